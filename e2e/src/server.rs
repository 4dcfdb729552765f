//! A server in this process, with a database, a data directory and a blob folder of its own.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use clap::Parser;
use ota_domain::role::Role;
use ota_server::{
    app::App,
    auth::{Network, oidc},
    config::Config,
    serve::Pace,
    server::Server,
    tls,
};
use sqlx::PgPool;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use crate::{
    credential,
    database::{self, DedicatedCluster, TestDatabase},
    operator::Operator,
};

/// What a test may want otherwise.
#[derive(Debug, Clone)]
pub struct Options {
    /// How often devices are told to check in.
    pub check_in_interval: Duration,
    /// How connections are encrypted. Not at all by default: most tests are about something else.
    pub tls: tls::Options,
    /// How long a connection lasts.
    pub max_connection_age: Duration,
    /// How long a device's certificate is good.
    pub device_certificate_lifetime: Duration,
    /// Largest payload taken, in bytes.
    pub max_payload_bytes: u64,
    /// Where payloads are kept, when not in the data directory.
    pub blob_store: Option<String>,
    /// How long a stopping server waits for calls in progress.
    pub drain_timeout: Duration,
    /// Most connections to Postgres. Few by default: the servers of many tests share one.
    pub database_connections: u32,
    /// Proxies that are believed when they say for whom they call.
    pub trusted_proxies: Vec<Network>,
    /// Who vouches for people. Nobody by default.
    pub oidc: oidc::Options,
    /// How slowly clients may send and take.
    pub pace: Pace,
    /// Whether operators have a port of their own.
    pub admin_port: bool,
}

impl Options {
    /// The same with TLS, as the program has it.
    #[must_use]
    pub fn encrypted() -> Self {
        Self { tls: tls::Options::default(), ..Self::default() }
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            check_in_interval: Duration::from_secs(300),
            tls: tls::Options { no_tls: true, ..Default::default() },
            max_connection_age: Duration::from_secs(3600),
            device_certificate_lifetime: Duration::from_secs(7 * 24 * 3600),
            max_payload_bytes: 1 << 30,
            blob_store: None,
            drain_timeout: Duration::from_secs(5),
            database_connections: 6,
            trusted_proxies: Vec::new(),
            oidc: oidc::Options::default(),
            pace: Pace::default(),
            admin_port: false,
        }
    }
}

/// A running server. Dropping it ends it without a farewell; [`TestServer::stop`] stops it as SIGTERM would.
#[derive(Debug)]
pub struct TestServer {
    server: Server,
    stopping: CancellationToken,
    admin_token: String,
    options: Options,
    database: Database,
    /// Holds the file with the key that seals the keys of all servers on the database.
    keys: Arc<TempDir>,
    /// Holds the blobs of all servers on the database, unless the options say where these are.
    blobs: Arc<TempDir>,
    data_dir: TempDir,
}

#[derive(Debug, Clone)]
enum Database {
    Shared(Arc<TestDatabase>),
    Dedicated { url: String, pool: PgPool },
}

impl Database {
    fn url(&self) -> String {
        match self {
            Self::Shared(database) => database.url(),
            Self::Dedicated { url, .. } => url.clone(),
        }
    }
}

impl TestServer {
    /// Starts one on a fresh database.
    pub async fn start() -> Self {
        Self::with(Options::default()).await
    }

    /// Starts one on a fresh database, as the test wants it.
    pub async fn with(options: Options) -> Self {
        Self::first(Database::Shared(Arc::new(database::fresh().await)), options).await
    }

    /// Starts one on a Postgres that the test can stop and start.
    pub async fn on(cluster: &DedicatedCluster, options: Options) -> Self {
        let database = Database::Dedicated { url: cluster.url().to_owned(), pool: cluster.pool() };
        Self::first(database, options).await
    }

    async fn first(database: Database, options: Options) -> Self {
        let blobs = TempDir::with_prefix("ota-blobs-").expect("a scratch folder");
        let keys = TempDir::with_prefix("ota-keys-").expect("a scratch folder");
        Self::another(database, Arc::new(keys), Arc::new(blobs), options, None).await
    }

    /// Starts another server on the same database and the same blobs.
    pub async fn replica(&self) -> Self {
        self.replica_with(self.options.clone()).await
    }

    /// Starts another server on the same database and the same blobs, as the test wants it.
    pub async fn replica_with(&self, options: Options) -> Self {
        let token = Some(self.admin_token.clone());
        let (keys, blobs) = (Arc::clone(&self.keys), Arc::clone(&self.blobs));
        Self::another(self.database.clone(), keys, blobs, options, token).await
    }

    async fn another(
        database: Database,
        keys: Arc<TempDir>,
        blobs: Arc<TempDir>,
        options: Options,
        token: Option<String>,
    ) -> Self {
        let data_dir = TempDir::with_prefix("ota-server-").expect("a scratch folder");
        let blob_store = options.blob_store.clone().unwrap_or_else(|| blobs.path().to_string_lossy().into_owned());
        let (server, stopping) = start(&database, data_dir.path(), keys.path(), blob_store, &options).await;
        let admin_token = token.unwrap_or_else(|| {
            let token = server.admin_token_file.as_deref().expect("a fresh database gets an admin token");
            fs::read_to_string(token).expect("the file with the admin token").trim().to_owned()
        });
        Self { server, stopping, admin_token, options, database, keys, blobs, data_dir }
    }

    /// Returns where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.server.address
    }

    /// Returns where it listens, as devices and operators write it.
    #[must_use]
    pub fn url(&self) -> String {
        self.url_of(self.server.address)
    }

    /// Returns where it listens for operators: the same place, unless they have a port of their own.
    #[must_use]
    pub fn admin_url(&self) -> String {
        self.url_of(self.server.admin_address.unwrap_or(self.server.address))
    }

    fn url_of(&self, address: SocketAddr) -> String {
        let scheme = if self.options.tls.no_tls { "http" } else { "https" };
        format!("{scheme}://{address}")
    }

    /// Returns where it tells how it is, to whoever runs it.
    ///
    /// # Panics
    /// Never: every test server has such a place.
    #[must_use]
    pub fn metrics_url(&self) -> String {
        format!("http://{}", self.server.metrics_address.expect("a test server has metrics"))
    }

    /// Connects to it.
    #[must_use]
    pub fn channel(&self) -> Channel {
        credential::connect(&self.url())
    }

    /// Returns the first admin's token.
    #[must_use]
    pub fn admin_token(&self) -> &str {
        &self.admin_token
    }

    /// Calls as the first admin.
    #[must_use]
    pub fn admin(&self) -> Operator {
        Operator::new(&self.admin_url(), &self.admin_token)
    }

    /// Calls as somebody whom the admin gives this role.
    pub async fn operator(&self, role: Role) -> Operator {
        self.admin().appoint(role).await
    }

    /// Returns what the server's use cases work with.
    #[must_use]
    pub fn app(&self) -> &App {
        &self.server.app
    }

    /// Returns the page with the server's metrics.
    ///
    /// # Panics
    /// When it does not answer with one.
    pub async fn metrics(&self) -> String {
        scrape(self.server.metrics_address.expect("a test server has metrics")).await
    }

    /// Returns connections of the test's own to the server's database.
    #[must_use]
    pub fn pool(&self) -> &PgPool {
        match &self.database {
            Database::Shared(database) => database.pool(),
            Database::Dedicated { pool, .. } => pool,
        }
    }

    /// Returns the folder or URL with the payloads.
    #[must_use]
    pub fn blob_store(&self) -> PathBuf {
        self.options.blob_store.as_ref().map_or_else(|| self.blobs.path().to_owned(), PathBuf::from)
    }

    /// Returns the folder with what the server keeps.
    #[must_use]
    pub fn data_dir(&self) -> &Path {
        self.data_dir.path()
    }

    /// Tells it to stop, and does not wait.
    pub fn begin_to_stop(&self) {
        self.stopping.cancel();
    }

    /// Stops it as SIGTERM would.
    pub async fn stop(self) {
        self.server.stop().await;
    }
}

/// Returns the page with the metrics at this address.
///
/// # Panics
/// When there is none.
pub async fn scrape(address: SocketAddr) -> String {
    let mut stream = TcpStream::connect(address).await.expect("the port of the metrics");
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").await.expect("a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer");
    let (head, page) = answer.split_once("\r\n\r\n").expect("a head and a body");
    assert!(head.starts_with("HTTP/1.0 200") && head.contains("openmetrics-text"), "{head}");
    page.to_owned()
}

/// Returns what a server is told that is told nothing.
#[must_use]
pub fn defaults() -> Config {
    #[derive(Parser)]
    struct Defaults {
        #[command(flatten)]
        config: Config,
    }
    Defaults::parse_from(["ota-server"]).config
}

async fn start(
    database: &Database,
    data_dir: &Path,
    keys: &Path,
    blobs: String,
    options: &Options,
) -> (Server, CancellationToken) {
    let config = Config {
        database_url: Some(database.url()),
        data_dir: data_dir.to_owned(),
        listen: ([127, 0, 0, 1], 0).into(),
        admin_listen: options.admin_port.then(|| ([127, 0, 0, 1], 0).into()),
        trusted_proxies: options.trusted_proxies.clone(),
        blob_store: Some(blobs),
        key_file: Some(keys.join("key-encryption-key")),
        max_payload_bytes: options.max_payload_bytes,
        check_in_interval: options.check_in_interval,
        tls: options.tls.clone(),
        oidc: options.oidc.clone(),
        pace: options.pace,
        max_connection_age: options.max_connection_age,
        device_certificate_lifetime: options.device_certificate_lifetime,
        database_connections: options.database_connections,
        drain_timeout: options.drain_timeout,
        metrics_listen: Some(([127, 0, 0, 1], 0).into()),
        ..defaults()
    };
    let stopping = CancellationToken::new();
    let server = Server::start(&config, stopping.clone()).await;
    (server.unwrap_or_else(|error| panic!("the server under test does not start: {error:?}")), stopping)
}
