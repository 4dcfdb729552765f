//! Starts and stops a cluster: the order of the steps.

use std::{
    ffi::OsString,
    fs::{self, DirBuilder, File, Permissions},
    io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process::ExitStatus,
    time::{Duration, Instant, SystemTime},
};

use rustix::process::{Signal, kill_process};
use sqlx::{
    Connection as _, PgConnection,
    postgres::{PgConnectOptions, PgSslMode},
};

use super::{
    account::{self, Account},
    binaries::{self, Binaries},
    error::{StartError, StopError},
    lock::{Lock, LockError},
    log::{self, Log},
    orphan::{self, OrphanError},
    pidfile::{self, Status},
    socket,
    supervisor::Supervised,
};

/// Both the superuser and the database that it is for.
const NAME: &str = "ota";

/// How often to look whether Postgres is ready, which takes from 40 ms to as long as recovery takes.
const INTERVAL: Duration = Duration::from_millis(10);

/// How often to say that it is still not.
const REMINDER: Duration = Duration::from_secs(10);

/// How long a Postgres that calls itself ready may refuse connections before that is an error.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// How long a fast shutdown may take (it writes all dirty pages) before it is made an immediate one.
const STOP_LIMIT: Duration = Duration::from_secs(60);

/// How much of what was committed survives a power cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// All of it.
    Full,
    /// Perhaps nothing, perhaps a broken cluster. For tests.
    None,
}

/// A running cluster. Dropping it shuts Postgres down too, without waiting for that.
#[derive(Debug)]
pub struct Cluster {
    supervised: Supervised,
    data: PathBuf,
    sockets: PathBuf,
    _lock: Lock,
}

impl Cluster {
    /// Starts the cluster in `folder`, making it when there is none, and returns when it takes connections.
    pub async fn start(folder: &Path, durability: Durability) -> Result<Cluster, StartError> {
        Cluster::start_with(folder, durability, &[]).await
    }

    /// Starts the cluster with further settings, which have precedence over the built-in ones.
    pub async fn start_with(
        folder: &Path,
        durability: Durability,
        settings: &[(&str, &str)],
    ) -> Result<Cluster, StartError> {
        fs::create_dir_all(folder).map_err(preparing(folder))?;
        let folder = fs::canonicalize(folder).map_err(preparing(folder))?;
        let lock = take_lock(&folder)?;
        let data = folder.join("data");
        let account = account::to_lend(&data);
        let account = account.as_ref();
        let binaries = binaries::find(&data).await?;
        account::give(&folder, account).map_err(preparing(&folder))?;
        fs::set_permissions(&folder, Permissions::from_mode(0o700)).map_err(preparing(&folder))?;
        for way in [&folder, &binaries.folder] {
            check_way(way, account).await?;
        }

        if data.exists() {
            orphan::gone(&data).await.map_err(|error| match error {
                OrphanError::Stays(pid) => StartError::Orphan { pid: pid.as_raw_nonzero().get(), data: data.clone() },
                OrphanError::Io(source) => StartError::Prepare { path: data.clone(), source },
            })?;
        } else {
            init(&folder, &data, &binaries, durability, account).await?;
        }

        let sockets = socket::folder(&folder);
        if !sockets.starts_with(&folder) {
            tracing::info!(folder = %sockets.display(), "the data directory's path is too long for a socket, which is elsewhere");
        }
        prepare_sockets(&sockets, account)?;

        let path = folder.join("postgres.log");
        let log = Log::open(path.clone()).map_err(preparing(&path))?;
        let program = binaries.postgres();
        let args = arguments(&data, &sockets, durability, settings);
        let supervised = log
            .writer()
            .and_then(|log| Supervised::start(&program, args, account, log))
            .map_err(|source| StartError::Run { program, source })?;
        let mut cluster = Cluster { supervised, data, sockets, _lock: lock };
        let connection = cluster.ready(&log).await?;
        create_database(connection).await.map_err(StartError::CreateDatabase)?;
        Ok(cluster)
    }

    /// Returns how to connect to the database, for sqlx.
    pub fn connect_options(&self) -> PgConnectOptions {
        self.options().database(NAME)
    }

    /// Returns how to connect to the database, for any client on this machine that may enter the socket's folder.
    pub fn url(&self) -> String {
        socket::url(&self.sockets, NAME, NAME)
    }

    /// Waits for Postgres to end by itself, which is always a fault: the caller should end too.
    pub async fn died(&mut self) -> io::Result<ExitStatus> {
        self.supervised.exited().await
    }

    /// Shuts Postgres down and waits until it has ended. Connections are cut, so finish the work first.
    pub async fn stop(mut self) -> Result<(), StopError> {
        self.supervised.release();
        if let Ok(exited) = tokio::time::timeout(STOP_LIMIT, self.supervised.exited()).await {
            return exited.map(drop).map_err(StopError::Wait);
        }
        tracing::warn!("Postgres takes too long to shut down; the next start will recover it from its log");
        if let Some(file) = read_pidfile(&self.data) {
            // It may have ended by itself since, which is just as well.
            kill_process(file.pid, Signal::QUIT).ok();
        }
        match tokio::time::timeout(CONNECT_LIMIT, self.supervised.exited()).await {
            Ok(exited) => exited.map(drop).map_err(StopError::Wait),
            Err(_elapsed) => Err(StopError::Stays { data: self.data }),
        }
    }

    fn options(&self) -> PgConnectOptions {
        PgConnectOptions::new_without_pgpass()
            .socket(&self.sockets)
            .port(socket::PORT)
            .username(NAME)
            .ssl_mode(PgSslMode::Disable)
    }

    /// Waits until Postgres takes connections. There is no limit to how long it may be starting: recovery takes the
    /// time it takes, and ending it would only make the next one longer.
    async fn ready(&mut self, log: &Log) -> Result<PgConnection, StartError> {
        let mut reminded = Instant::now();
        let mut ready_since = None;
        loop {
            if let Ok(Some(status)) = self.supervised.has_exited() {
                return Err(StartError::Exited { status, log: log.tail() });
            }
            if read_pidfile(&self.data).and_then(|file| file.status) == Some(Status::Ready) {
                let since = *ready_since.get_or_insert_with(Instant::now);
                match PgConnection::connect_with(&self.options().database("postgres")).await {
                    Ok(connection) => return Ok(connection),
                    Err(source) if since.elapsed() > CONNECT_LIMIT => {
                        return Err(StartError::Connect { socket: socket::file(&self.sockets), source });
                    }
                    Err(_) => {}
                }
            } else {
                ready_since = None;
            }
            if reminded.elapsed() > REMINDER {
                tracing::info!("Postgres is still starting, perhaps recovering: {}", log.tail());
                reminded = Instant::now();
            }
            tokio::time::sleep(INTERVAL).await;
        }
    }
}

fn preparing(path: &Path) -> impl FnOnce(io::Error) -> StartError {
    let path = path.to_owned();
    |source| StartError::Prepare { path, source }
}

fn take_lock(folder: &Path) -> Result<Lock, StartError> {
    let path = folder.join("lock");
    Lock::take(&path).map_err(|error| match error {
        LockError::Held { by } => StartError::Locked { folder: folder.to_owned(), by },
        LockError::Io(source) => StartError::Prepare { path, source },
    })
}

async fn check_way(folder: &Path, account: Option<&Account>) -> Result<(), StartError> {
    let Some(lent) = account else {
        return Ok(());
    };
    match account::first_closed(folder, account).await.map_err(preparing(folder))? {
        Some(closed) => Err(StartError::Closed { account: lent.name.clone(), closed }),
        None => Ok(()),
    }
}

/// Makes the cluster beside its place and moves it there when it is whole. Each attempt has its own name, because the
/// `initdb` of a killed server may still be writing to an earlier one.
async fn init(
    folder: &Path,
    data: &Path,
    binaries: &Binaries,
    durability: Durability,
    account: Option<&Account>,
) -> Result<(), StartError> {
    for entry in fs::read_dir(folder).map_err(preparing(folder))? {
        let entry = entry.map_err(preparing(folder))?;
        if entry.file_name().as_encoded_bytes().starts_with(b"data.new") {
            // What an `initdb` is still writing to goes at the next chance.
            fs::remove_dir_all(entry.path()).ok();
        }
    }
    let nanos = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_nanos());
    let new = folder.join(format!("data.new.{}.{nanos}", std::process::id()));
    let program = binaries.initdb();
    let mut command = account::command(&program, account);
    command.current_dir("/").args(["-U", NAME, "-A", "trust", "-E", "UTF8", "--locale=C", "-D"]).arg(&new);
    if durability == Durability::None {
        command.arg("--no-sync");
    }
    let output = command.output().await.map_err(|source| StartError::Run { program, source })?;
    if !output.status.success() {
        return Err(StartError::Init {
            status: output.status,
            log: log::last_lines(&String::from_utf8_lossy(&output.stderr)),
        });
    }
    fs::rename(&new, data).map_err(preparing(data))?;
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(preparing(folder))
}

/// Makes the socket's folder, and clears it of what a killed Postgres left: that names a process whose number may be
/// somebody else's by now, and Postgres would take it for a running one.
fn prepare_sockets(sockets: &Path, account: Option<&Account>) -> Result<(), StartError> {
    let own = rustix::process::geteuid().as_raw();
    let uid = account.map_or(own, |account| account.uid);
    match DirBuilder::new().mode(0o700).create(sockets) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(source) => return Err(StartError::Prepare { path: sockets.to_owned(), source }),
    }
    // Not following links: in /tmp anybody may have been here first.
    let meta = fs::symlink_metadata(sockets).map_err(preparing(sockets))?;
    if !meta.is_dir() || ![own, uid].contains(&meta.uid()) || meta.mode() & 0o077 != 0 {
        return Err(StartError::SocketFolder { folder: sockets.to_owned(), uid });
    }
    account::give(sockets, account).map_err(preparing(sockets))?;
    let socket = socket::file(sockets);
    for left in [socket.with_extension(format!("{}.lock", socket::PORT)), socket] {
        match fs::remove_file(&left) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(StartError::Prepare { path: left, source }),
        }
    }
    Ok(())
}

/// Returns the command line. All settings are here and none in the cluster's own files, so that a new version of the
/// server changes them for old clusters too.
fn arguments(data: &Path, sockets: &Path, durability: Durability, settings: &[(&str, &str)]) -> Vec<OsString> {
    let port = socket::PORT.to_string();
    let mut sockets_setting = OsString::from("unix_socket_directories=");
    sockets_setting.push(socket::setting(sockets));
    let mut arguments = vec!["-D".into(), data.into(), "-c".into(), sockets_setting];
    let fixed: &[(&str, &str)] = &[
        ("listen_addresses", ""),
        ("port", &port),
        ("unix_socket_permissions", "0700"),
        ("logging_collector", "off"),
        ("log_destination", "stderr"),
        // One line every five minutes otherwise, for as long as the server runs.
        ("log_checkpoints", "off"),
        ("timezone", "UTC"),
        ("log_timezone", "UTC"),
        // Room for several servers' pools and for people with psql; an unused one costs some kilobytes.
        ("max_connections", "200"),
        // Half of the default: a small machine is the usual home of an embedded cluster, and the kernel caches too.
        ("shared_buffers", "64MB"),
        // To compile a statement costs more than ours take, and a hardened service may not make code at run time.
        ("jit", "off"),
    ];
    let durability: &[(&str, &str)] = match durability {
        Durability::Full => &[],
        Durability::None => &[
            ("fsync", "off"),
            ("synchronous_commit", "off"),
            ("full_page_writes", "off"),
            ("wal_level", "minimal"),
            ("max_wal_senders", "0"),
        ],
    };
    for (name, value) in fixed.iter().chain(durability).chain(settings) {
        arguments.push("-c".into());
        arguments.push(format!("{name}={value}").into());
    }
    arguments
}

async fn create_database(mut connection: PgConnection) -> Result<(), sqlx::Error> {
    let found: bool = sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)")
        .bind(NAME)
        .fetch_one(&mut connection)
        .await?;
    if !found {
        // Nobody else can be making it: this process holds the lock on the folder.
        sqlx::query("CREATE DATABASE ota").execute(&mut connection).await?;
    }
    connection.close().await
}

fn read_pidfile(data: &Path) -> Option<pidfile::PidFile> {
    pidfile::parse(&fs::read_to_string(data.join("postmaster.pid")).ok()?)
}
