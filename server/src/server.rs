//! A running server: database, blob store, services and the work in the background, started and stopped as one.

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use chrono::Utc;
use sqlx::{PgPool, migrate::MigrateError, postgres::PgConnectOptions};
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::{
    app::{self, App, Settings},
    auth::{TrustedProxies, limits::Limits, oidc},
    blobs::{self, Blobs},
    config::Config,
    db,
    fleet::Fleet,
    keys::{self, Keyring},
    postgres::{self, Cluster, Durability},
    reconcile, serve,
    tls::{Tls, TlsError},
};

/// Where the authority's certificate is, in the data directory.
pub const AUTHORITY_FILE: &str = "ca.pem";

/// How long to wait before a database that does not answer is asked again at start.
const DATABASE_RETRY: Duration = Duration::from_secs(2);

/// Why the server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address beyond this machine without encryption.
    #[error("{0} is reachable from other machines, and nothing is encrypted")]
    ListenInsecure(SocketAddr),
    /// The database URL cannot be read.
    #[error("the database URL is not valid")]
    DatabaseUrl(#[source] sqlx::Error),
    /// The data directory cannot be made or used.
    #[error("the data directory {} cannot be used", .0.display())]
    DataDir(PathBuf, #[source] io::Error),
    /// The private Postgres does not start.
    #[error("the private Postgres does not start")]
    Postgres(#[source] postgres::StartError),
    /// The schema cannot be brought up to date.
    #[error("the database's schema cannot be brought up to date")]
    Migrate(#[source] MigrateError),
    /// The server's keys are not to be had.
    #[error("the server's keys are not to be had")]
    Keys(#[source] keys::OpenError),
    /// The blob store cannot be opened.
    #[error("the blob store {0} cannot be opened")]
    Blobs(String, #[source] blobs::OpenError),
    /// The address is taken or not ours.
    #[error("cannot listen on {0}")]
    Listen(SocketAddr, #[source] io::Error),
    /// The first admin token cannot be made.
    #[error("the first admin token cannot be made")]
    FirstAdmin(#[source] app::Error),
    /// Connections cannot be encrypted.
    #[error("connections cannot be encrypted")]
    Tls(#[source] TlsError),
    /// The identity provider cannot be used as configured.
    #[error("people cannot log in at the identity provider")]
    Oidc(#[source] oidc::ProviderError),
    /// The services cannot be put together.
    #[error("the services cannot be put together")]
    Services(#[source] tonic_reflection::server::Error),
    /// Told to stop before it had started.
    #[error("stopped while starting")]
    Stopped,
}

impl StartError {
    /// What the operator can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::ListenInsecure(_) => Some(
                "leave --no-tls out, listen on 127.0.0.1, or say --insecure-listen on a network in which nobody listens",
            ),
            Self::DatabaseUrl(_) => Some("write postgres://user:password@host:5432/database"),
            Self::DataDir(..) => Some("name a folder of your own with --data-dir"),
            Self::Postgres(_) => Some("or use a Postgres of your own with --database-url"),
            Self::Migrate(_) => {
                Some("a database that a newer server has used needs that server's version or a newer one")
            }
            Self::Keys(error) => error.hint(),
            Self::Blobs(..) => Some("--blob-store takes a folder or s3://bucket/prefix"),
            Self::Listen(..) => Some("another server may be running; choose another address with --listen"),
            Self::Tls(error) => error.hint(),
            Self::Oidc(error) => error.hint(),
            Self::FirstAdmin(_) | Self::Services(_) | Self::Stopped => None,
        }
    }
}

/// A database that is ready for the server: its schema is current.
#[derive(Debug)]
pub struct Database {
    /// Connections to it.
    pub pool: PgPool,
    /// The private cluster behind it, when there is one.
    pub cluster: Option<Cluster>,
}

impl Database {
    /// Connects to the configured Postgres or starts the private one, and brings the schema up to date. Waits for a
    /// Postgres that does not answer yet.
    ///
    /// # Errors
    /// When the private one does not start, a migration fails, or `stopping` fires first.
    pub async fn open(config: &Config, stopping: &CancellationToken) -> Result<Self, StartError> {
        let (options, cluster) = match &config.database_url {
            Some(url) => (url.parse::<PgConnectOptions>().map_err(StartError::DatabaseUrl)?, None),
            None => {
                let folder = config.data_dir.join("postgres");
                let cluster = Cluster::start(&folder, Durability::Full).await.map_err(StartError::Postgres)?;
                (cluster.connect_options(), Some(cluster))
            }
        };
        let pool = db::pool(options, config.database_connections);
        let database = Self { pool, cluster };
        loop {
            let error = match db::MIGRATOR.run(&database.pool).await {
                Ok(()) => return Ok(database),
                Err(MigrateError::Execute(error)) if app::is_outage(&error) => error,
                Err(error) => {
                    database.close().await;
                    return Err(StartError::Migrate(error));
                }
            };
            tracing::warn!(%error, "the database does not answer; trying again");
            if stopping.run_until_cancelled(tokio::time::sleep(DATABASE_RETRY)).await.is_none() {
                database.close().await;
                return Err(StartError::Stopped);
            }
        }
    }

    /// Closes the connections and stops the private cluster.
    pub async fn close(self) {
        self.pool.close().await;
        if let Some(cluster) = self.cluster
            && let Err(error) = cluster.stop().await
        {
            tracing::error!(%error, "the private Postgres did not stop as asked");
        }
    }
}

/// A running server.
#[derive(Debug)]
pub struct Server {
    /// Where it listens.
    pub address: SocketAddr,
    /// Where Prometheus finds its metrics, when it was told to have any.
    pub metrics_address: Option<SocketAddr>,
    /// What its use cases work with.
    pub app: App,
    /// The file with the first admin token, when this start made it.
    pub admin_token_file: Option<PathBuf>,
    database: Database,
    stopping: CancellationToken,
    tasks: JoinSet<()>,
}

struct Addresses {
    grpc: SocketAddr,
    metrics: Option<SocketAddr>,
}

impl Server {
    /// Starts everything. When this returns, the server answers on its address.
    ///
    /// # Errors
    /// The first thing that does not start; what had started is stopped.
    pub async fn start(config: &Config, stopping: CancellationToken) -> Result<Self, StartError> {
        if config.tls.no_tls && !config.listen.ip().is_loopback() && !config.insecure_listen {
            return Err(StartError::ListenInsecure(config.listen));
        }
        let oidc = config.oidc.provider().map_err(StartError::Oidc)?.map(Arc::new);
        std::fs::create_dir_all(&config.data_dir)
            .map_err(|error| StartError::DataDir(config.data_dir.clone(), error))?;
        let database = Database::open(config, &stopping).await?;
        match Self::start_on(config, oidc, &database, &stopping).await {
            Ok((addresses, app, admin_token_file, tasks)) => {
                let Addresses { grpc: address, metrics: metrics_address } = addresses;
                Ok(Self { address, metrics_address, app, admin_token_file, database, stopping, tasks })
            }
            Err(error) => {
                database.close().await;
                Err(error)
            }
        }
    }

    async fn start_on(
        config: &Config,
        oidc: Option<Arc<oidc::Provider>>,
        database: &Database,
        stopping: &CancellationToken,
    ) -> Result<(Addresses, App, Option<PathBuf>, JoinSet<()>), StartError> {
        let store = match &config.blob_store {
            Some(store) => store.clone(),
            None => config.data_dir.join("blobs").to_string_lossy().into_owned(),
        };
        let blobs = Blobs::open(&store).map_err(|error| StartError::Blobs(store, error))?;
        let keys = Keyring::open(&database.pool, &config.key_file(), Utc::now()).await.map_err(StartError::Keys)?;
        let forwarding = config.tls.forwarding(keys.authority()).map_err(StartError::Tls)?.map(Arc::new);
        let fleet = Fleet::new(database.pool.clone(), config.check_in_interval, stopping.clone());
        let app = App {
            pool: database.pool.clone(),
            blobs: Arc::new(blobs),
            keys: Arc::new(keys),
            published: Arc::default(),
            fleet: Arc::new(fleet),
            settings: Settings {
                max_payload_bytes: config.max_payload_bytes,
                check_in_interval: config.check_in_interval,
                device_certificate_lifetime: config.device_certificate_lifetime,
                embedded_database: database.cluster.is_some(),
                tls: !config.tls.no_tls,
            },
            limits: Arc::new(Limits::new(config.call_rate, config.enroll_rate)),
            trusted_proxies: Arc::new(TrustedProxies::new(config.trusted_proxies.clone())),
            forwarding,
            oidc,
            metrics: Arc::default(),
        };
        let tls = if config.tls.no_tls {
            None
        } else {
            let tls = Tls::start(&config.tls, Arc::clone(&app.keys), Utc::now()).map_err(StartError::Tls)?;
            Some(Arc::new(tls))
        };
        publish_authority(&app, &config.data_dir)
            .map_err(|error| StartError::DataDir(config.data_dir.clone(), error))?;
        let listening = |error| StartError::Listen(config.listen, error);
        let listener = TcpListener::bind(config.listen).await.map_err(listening)?;
        let address = listener.local_addr().map_err(listening)?;
        let admin_token_file = first_admin(&app, &config.data_dir).await?;

        let metrics = match config.metrics_listen {
            Some(address) => {
                Some(TcpListener::bind(address).await.map_err(|error| StartError::Listen(address, error))?)
            }
            None => None,
        };
        let metrics_address = metrics.as_ref().and_then(|listener| listener.local_addr().ok());

        let (reporter, health) = tonic_health::server::health_reporter();
        let gate = serve::services(&app, health).map_err(StartError::Services)?;
        let mut tasks = JoinSet::new();
        tasks.spawn(Arc::clone(&app.fleet).run());
        tasks.spawn(reconcile::run(app.clone(), stopping.clone()));
        tasks.spawn(serve::report_health(app.clone(), reporter));
        if let Some(listener) = metrics {
            tasks.spawn(serve::scrape::serve(listener, app.clone(), stopping.clone()));
        }
        if let Some(provider) = &app.oidc {
            tasks.spawn(Arc::clone(provider).run(stopping.clone()));
        }
        if let Some(tls) = &tls {
            tasks.spawn(Arc::clone(tls).keep_fresh(stopping.clone()));
        }
        let settings =
            serve::Settings { service: gate, tls, max_connection_age: config.max_connection_age, pace: config.pace };
        tasks.spawn(serve::serve(listener, settings, stopping.clone(), config.drain_timeout));
        Ok((Addresses { grpc: address, metrics: metrics_address }, app, admin_token_file, tasks))
    }

    /// Waits until the private Postgres dies, which it should not; forever when there is none.
    pub async fn database_died(&mut self) {
        match &mut self.database.cluster {
            Some(cluster) => {
                let status = cluster.died().await;
                tracing::error!(?status, "the private Postgres died");
            }
            None => std::future::pending().await,
        }
    }

    /// Stops: streams end, calls in progress finish, what is in memory is written, the database is closed.
    pub async fn stop(mut self) {
        self.stopping.cancel();
        while self.tasks.join_next().await.is_some() {}
        // An upload that was cut off still puts away what came, and tells the database.
        self.app.blobs.settle().await;
        self.database.close().await;
    }
}

/// Makes the first admin token of a fresh database and leaves it in the data directory.
async fn first_admin(app: &App, data_dir: &Path) -> Result<Option<PathBuf>, StartError> {
    let Some(token) = app::access::first_admin(app, Utc::now()).await.map_err(StartError::FirstAdmin)? else {
        return Ok(None);
    };
    let file = data_dir.join("admin-token");
    write_private_file(&file, &token.to_string()).map_err(|error| StartError::DataDir(data_dir.to_owned(), error))?;
    Ok(Some(file))
}

/// Leaves the authority's certificate in the data directory, for clients to check this server's with.
fn publish_authority(app: &App, data_dir: &Path) -> io::Result<()> {
    let unfinished = data_dir.join(format!("{AUTHORITY_FILE}.new"));
    std::fs::write(&unfinished, app.keys.authority().to_pem())?;
    std::fs::rename(unfinished, data_dir.join(AUTHORITY_FILE))
}

/// Writes a file that only its owner can read.
fn write_private_file(path: &Path, content: &str) -> io::Result<()> {
    use std::{io::Write, os::unix::fs::OpenOptionsExt};
    let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    writeln!(file, "{content}")?;
    file.sync_all()
}
