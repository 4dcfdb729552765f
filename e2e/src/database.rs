//! Databases for tests, on a real Postgres. One private cluster serves a whole test process; each test gets its own
//! database, copied from one that was migrated once. The cluster lives in memory where it can, keeps no promise about
//! durability, and goes with the process, also when that is killed.
//!
//! With `OTA_TEST_DATABASE_URL` the databases are made on that server, by a role that may create some. They are named
//! `ota_test_*`, and the last few stay there for its owner to drop.

use std::{
    env, fs,
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::PathBuf,
    process::{ChildStdin, Command, Stdio},
    str::FromStr as _,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};

use anyhow::Context as _;
use ota_server::{
    db::MIGRATOR,
    postgres::{Cluster, Durability},
};
use rustix::process::{Pid, Signal, kill_process};
use sqlx::{
    AssertSqlSafe, ConnectOptions as _, Connection as _, PgConnection, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tokio::sync::OnceCell;

use crate::scratch;

/// Names a server to use instead of a private one.
const OVERRIDE: &str = "OTA_TEST_DATABASE_URL";

/// Tests run in parallel, each with its own pools, and share the server's limit.
const POOL_CONNECTIONS: u32 = 5;

const SETTINGS: [(&str, &str); 2] = [
    ("max_connections", "300"),
    // It would visit the template just when that is being copied, which needs it alone.
    ("autovacuum", "off"),
];

static SERVER: OnceCell<Server> = OnceCell::const_new();

/// Databases that no test uses any more. Dropping one takes a connection, which a destructor cannot wait for.
static DISCARDED: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// A database of its own for one test. Dropping it gives it up.
#[derive(Debug)]
pub struct TestDatabase {
    name: String,
    options: PgConnectOptions,
    pool: PgPool,
}

/// Makes a migrated database.
///
/// # Panics
/// When there is no Postgres to be had: nothing that needs a database can be tested then.
pub async fn fresh() -> TestDatabase {
    let made = async { server().await?.create(Some("template")).await };
    made.await.unwrap_or_else(|error| panic!("no test database: {error:?}"))
}

/// Makes a database without any tables, for tests of the migrations themselves.
///
/// # Panics
/// As [`fresh`].
pub async fn empty() -> TestDatabase {
    let made = async { server().await?.create(None).await };
    made.await.unwrap_or_else(|error| panic!("no test database: {error:?}"))
}

impl TestDatabase {
    /// Returns a small pool, connected when first used.
    pub fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// Returns how to connect, for a pool of the test's own.
    pub fn connect_options(&self) -> PgConnectOptions {
        self.options.clone()
    }

    /// Returns the address, for a server in a process of its own.
    pub fn url(&self) -> String {
        self.options.to_url_lossy().to_string()
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        DISCARDED.lock().unwrap_or_else(PoisonError::into_inner).push(std::mem::take(&mut self.name));
    }
}

/// The server that holds the databases of this process.
struct Server {
    /// How to connect to a database that none of the tests uses.
    options: PgConnectOptions,
    /// Unique on a server that others may use too.
    prefix: String,
    /// Copies files where the server has the choice, which is faster than the log as long as nothing is synced.
    strategy: &'static str,
    _private: Option<DedicatedCluster>,
}

async fn server() -> anyhow::Result<&'static Server> {
    SERVER.get_or_try_init(Server::start).await
}

impl Server {
    async fn start() -> anyhow::Result<Server> {
        let (options, private) = match env::var(OVERRIDE) {
            Ok(url) => (PgConnectOptions::from_str(&url).with_context(|| format!("cannot use {OVERRIDE}"))?, None),
            Err(_) => {
                let cluster = DedicatedCluster::bare().await?;
                (cluster.connect_options(), Some(cluster))
            }
        };
        let mut connection = PgConnection::connect_with(&options).await?;
        let version: i32 =
            sqlx::query_scalar("SELECT current_setting('server_version_num')::int").fetch_one(&mut connection).await?;
        connection.close().await?;
        let server = Server {
            options,
            prefix: format!("ota_test_{}", std::process::id()),
            strategy: if version >= 150_000 { "STRATEGY file_copy" } else { "" },
            _private: private,
        };
        server.create_template().await?;
        Ok(server)
    }

    async fn create_template(&self) -> anyhow::Result<()> {
        let name = format!("{}_template", self.prefix);
        let mut connection = PgConnection::connect_with(&self.options).await?;
        execute(&mut connection, format!("DROP DATABASE IF EXISTS {name}")).await?;
        execute(&mut connection, format!("CREATE DATABASE {name}")).await?;
        connection.close().await?;
        migrate(&self.options.clone().database(&name)).await
    }

    async fn create(&self, template: Option<&str>) -> anyhow::Result<TestDatabase> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("{}_{}", self.prefix, NUMBER.fetch_add(1, Ordering::Relaxed));
        let template = template.map_or_else(|| "template0".to_owned(), |name| format!("{}_{name}", self.prefix));

        let mut connection = PgConnection::connect_with(&self.options).await?;
        let discarded = std::mem::take(&mut *DISCARDED.lock().unwrap_or_else(PoisonError::into_inner));
        for old in discarded {
            execute(&mut connection, format!("DROP DATABASE {old} WITH (FORCE)")).await?;
        }
        // A process that had the same number may have left one of the same name.
        execute(&mut connection, format!("DROP DATABASE IF EXISTS {name}")).await?;
        execute(&mut connection, format!("CREATE DATABASE {name} TEMPLATE {template} {}", self.strategy)).await?;
        connection.close().await?;

        let options = self.options.clone().database(&name);
        let pool = small_pool(&options);
        Ok(TestDatabase { name, options, pool })
    }
}

/// A Postgres of its own for one test, to be stopped and started again at will.
#[derive(Debug)]
pub struct DedicatedCluster {
    cluster: Option<Cluster>,
    options: PgConnectOptions,
    url: String,
    scratch: Scratch,
}

impl DedicatedCluster {
    /// Starts one with a migrated database.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn start() -> DedicatedCluster {
        let started = async {
            let cluster = DedicatedCluster::bare().await?;
            migrate(&cluster.options).await?;
            anyhow::Ok(cluster)
        };
        started.await.unwrap_or_else(|error| panic!("no cluster for the test: {error:?}"))
    }

    async fn bare() -> anyhow::Result<DedicatedCluster> {
        let scratch = Scratch::create()?;
        let cluster = scratch.start_cluster().await?;
        Ok(DedicatedCluster { options: cluster.connect_options(), url: cluster.url(), cluster: Some(cluster), scratch })
    }

    /// Returns how to connect; it stays the same when the cluster is started again.
    pub fn connect_options(&self) -> PgConnectOptions {
        self.options.clone()
    }

    /// Returns the address; it stays the same when the cluster is started again.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Returns a small pool, connected when first used.
    pub fn pool(&self) -> PgPool {
        small_pool(&self.options)
    }

    /// Stops it, cutting all connections.
    ///
    /// # Panics
    /// When it does not stop.
    pub async fn stop(&mut self) {
        if let Some(cluster) = self.cluster.take() {
            cluster.stop().await.unwrap_or_else(|error| panic!("the cluster of the test: {error}"));
        }
    }

    /// Makes it take connections and answer nothing, until what is returned is dropped.
    ///
    /// # Panics
    /// When it does not run.
    #[must_use]
    pub fn freeze(&self) -> Frozen {
        let file = fs::read_to_string(self.scratch.folder.join("postgres/data/postmaster.pid")).expect("it runs");
        let parent = file.lines().next().and_then(|line| line.trim().parse().ok()).expect("its first line is the pid");
        let mut frozen = Frozen(Vec::new());
        // The parent first: then there are no new children.
        frozen.stop(parent);
        let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).expect("it has children");
        children.split_whitespace().filter_map(|pid| pid.parse().ok()).for_each(|pid| frozen.stop(pid));
        frozen
    }

    /// Starts it again after [`DedicatedCluster::stop`].
    ///
    /// # Panics
    /// When it does not start.
    pub async fn resume(&mut self) {
        if self.cluster.is_none() {
            let started = self.scratch.start_cluster().await;
            self.cluster = Some(started.unwrap_or_else(|error| panic!("the cluster of the test: {error:?}")));
        }
    }
}

/// A cluster that takes connections and answers nothing. It answers again when this is dropped.
#[derive(Debug)]
pub struct Frozen(Vec<Pid>);

impl Frozen {
    fn stop(&mut self, pid: i32) {
        let pid = Pid::from_raw(pid).expect("a process");
        // A child may have ended since it was listed.
        if kill_process(pid, Signal::STOP).is_ok() {
            self.0.push(pid);
        }
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        for pid in &self.0 {
            kill_process(*pid, Signal::CONT).ok();
        }
    }
}

/// A folder that goes with this process. A destructor would not run for the cluster of the whole process, which is
/// never dropped, nor after a kill: so a shell waits for the end of a pipe that only this process holds.
#[derive(Debug)]
struct Scratch {
    folder: PathBuf,
    _leash: Option<ChildStdin>,
}

/// Postgres gets ten seconds to be gone, since it would write to the folder while that is being removed.
const REMOVER: &str = r#"
read -r line
looks=0
while [ -e "$1/postgres/data/postmaster.pid" ] && [ $looks -lt 200 ]; do
    looks=$((looks + 1))
    sleep 0.05
done
rm -rf -- "$1"
"#;

impl Scratch {
    fn create() -> anyhow::Result<Scratch> {
        let parent = scratch::parent();
        let folder = tempfile::Builder::new()
            .prefix("ota-test-")
            // The account that root lends to Postgres has to get in.
            .permissions(fs::Permissions::from_mode(0o755))
            .tempdir_in(&parent)
            .with_context(|| format!("cannot make a folder in {}", parent.display()))?
            .keep();
        let mut remover = Command::new("/bin/sh")
            .args(["-c", REMOVER, "ota-test-remover"])
            .arg(&folder)
            .current_dir("/")
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot run /bin/sh")?;
        Ok(Scratch { folder, _leash: remover.stdin.take() })
    }

    async fn start_cluster(&self) -> anyhow::Result<Cluster> {
        Ok(Cluster::start_with(&self.folder.join("postgres"), Durability::None, &SETTINGS).await?)
    }
}

fn small_pool(options: &PgConnectOptions) -> PgPool {
    PgPoolOptions::new().max_connections(POOL_CONNECTIONS).connect_lazy_with(options.clone())
}

async fn migrate(options: &PgConnectOptions) -> anyhow::Result<()> {
    let mut connection = PgConnection::connect_with(options).await?;
    MIGRATOR.run(&mut connection).await.context("cannot migrate")?;
    Ok(connection.close().await?)
}

async fn execute(connection: &mut PgConnection, statement: String) -> anyhow::Result<()> {
    // All of it is composed here, of names that have no need for quotes.
    sqlx::query(AssertSqlSafe(statement.clone())).execute(connection).await.with_context(|| statement)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader};

    use super::*;

    /// Tells the binary to be the process that gets killed.
    const VICTIM: &str = "OTA_TEST_DATABASE_VICTIM";

    async fn tables(pool: &PgPool) -> Vec<String> {
        let statement = "SELECT tablename::text FROM pg_tables WHERE schemaname = 'public' ORDER BY tablename";
        sqlx::query_scalar(statement).fetch_all(pool).await.unwrap()
    }

    #[tokio::test]
    async fn tests_do_not_see_each_other() {
        let one = fresh().await;
        let other = fresh().await;
        sqlx::query("CREATE TABLE a_mine (id int)").execute(one.pool()).await.unwrap();
        assert_eq!(tables(one.pool()).await[0], "_sqlx_migrations");
        assert_eq!(tables(one.pool()).await.len(), tables(other.pool()).await.len() + 1);
        assert!(tables(empty().await.pool()).await.is_empty());
    }

    #[tokio::test]
    async fn url_leads_to_the_same_database() {
        let database = fresh().await;
        let mut connection = PgConnection::connect(&database.url()).await.unwrap();
        let name: String =
            sqlx::query_scalar("SELECT current_database()::text").fetch_one(&mut connection).await.unwrap();
        assert_eq!(name, database.name);
    }

    #[tokio::test]
    async fn dedicated_cluster_comes_back_with_its_data() {
        let mut cluster = DedicatedCluster::start().await;
        let pool = cluster.pool();
        sqlx::query("CREATE TABLE kept (id int)").execute(&pool).await.unwrap();
        cluster.stop().await;
        assert!(sqlx::query("SELECT id FROM kept").execute(&pool).await.is_err());
        cluster.resume().await;
        sqlx::query("SELECT id FROM kept").execute(&pool).await.unwrap();
    }

    #[tokio::test]
    async fn killed_process_leaves_nothing() {
        let mut victim = Command::new(env::current_exe().unwrap())
            .args(["--exact", "database::tests::victim", "--nocapture"])
            .env(VICTIM, "1")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(victim.stdout.take().unwrap()).lines().map_while(Result::ok);
        let folder = lines.into_iter().find_map(|line| line.strip_prefix("folder ").map(PathBuf::from)).unwrap();
        assert!(folder.exists());
        victim.kill().unwrap();
        victim.wait().unwrap();
        let mut looks = tokio::time::interval(std::time::Duration::from_millis(5));
        while folder.exists() {
            looks.tick().await;
        }
    }

    #[tokio::test]
    async fn victim() {
        if env::var_os(VICTIM).is_some() {
            let cluster = DedicatedCluster::start().await;
            println!("\nfolder {}", cluster.scratch.folder.display());
            std::future::pending::<()>().await;
        }
    }
}
