//! A running server: database, blob store, services and the work in the background, started and stopped as one.

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use chrono::Utc;
use ota_domain::secret::BearerToken;
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::{
    app::{self, App, Settings, access::NewToken},
    auth::{TrustedProxies, limits::Limits, oidc},
    blobs::{self, Blobs},
    config::Config,
    fleet::Fleet,
    keys::Keyring,
    reconcile, secret_file, serve,
    tls::Tls,
};

mod database;
mod error;

pub use database::Database;
pub use error::StartError;

/// Where the authority's certificate is, in the data directory.
pub const AUTHORITY_FILE: &str = "ca.pem";

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
    /// Fires when the server is not ready any more: with `stopping`, or before.
    leaving: CancellationToken,
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
        let leaving = stopping.child_token();
        let database = Database::open(config, &stopping).await?;
        let started = stopping.run_until_cancelled(Self::start_on(config, oidc, &database, &stopping, &leaving)).await;
        match started.unwrap_or(Err(StartError::Stopped)) {
            Ok((addresses, app, admin_token_file, tasks)) => {
                let Addresses { grpc: address, metrics: metrics_address } = addresses;
                Ok(Self { address, metrics_address, app, admin_token_file, database, stopping, leaving, tasks })
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
        leaving: &CancellationToken,
    ) -> Result<(Addresses, App, Option<PathBuf>, JoinSet<()>), StartError> {
        let store = match &config.blob_store {
            Some(store) => store.clone(),
            None => config.data_dir.join("blobs").to_string_lossy().into_owned(),
        };
        let blobs = Blobs::open(&store, s3_credentials(config)?).map_err(|error| StartError::Blobs(store, error))?;
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
        let admin_token_file = first_admin(&app, config).await?;

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
        tasks.spawn(serve::report_health(app.pool.clone(), reporter, leaving.clone()));
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

    /// Says from now on that it is not ready, and goes on as before.
    pub fn withdraw(&self) {
        self.leaving.cancel();
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

/// Makes the first admin token of a database that has none, unless another server is faster: the one that the operator gave,
/// or one that is left in the data directory. Answers with the file that holds it.
async fn first_admin(app: &App, config: &Config) -> Result<Option<PathBuf>, StartError> {
    if app::access::any_token(app).await.map_err(StartError::FirstAdmin)? {
        return Ok(None);
    }
    let (file, token) = match &config.admin_token_file {
        Some(file) => (file.clone(), given_token(file)?),
        None => (config.data_dir.join("admin-token"), NewToken::random()),
    };
    if !app::access::first_admin(app, &token, Utc::now()).await.map_err(StartError::FirstAdmin)? {
        return Ok(None);
    }
    if config.admin_token_file.is_none() {
        write_private_file(&file, &token.to_string())
            .map_err(|error| StartError::DataDir(config.data_dir.clone(), error))?;
    }
    Ok(Some(file))
}

/// Reads the token that the operator gave.
fn given_token(file: &Path) -> Result<NewToken, StartError> {
    match secret_file::read("--admin-token-file", file)?.parse() {
        Ok(BearerToken::Api { token: id, secret }) => Ok(NewToken { id, secret }),
        Ok(BearerToken::Session(_)) | Err(_) => Err(StartError::AdminToken(file.to_owned())),
    }
}

/// Reads the credentials for the object store, when they are in files.
fn s3_credentials(config: &Config) -> Result<Option<blobs::Credentials>, StartError> {
    let (Some(id), Some(key)) = (&config.s3_access_key_id_file, &config.s3_secret_access_key_file) else {
        return Ok(None);
    };
    Ok(Some(blobs::Credentials {
        access_key_id: secret_file::read("--s3-access-key-id-file", id)?,
        secret_access_key: secret_file::read("--s3-secret-access-key-file", key)?,
    }))
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
