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
    auth::{Offer, TrustedProxies, limits::Limits, oidc},
    blobs::{self, Blobs},
    config::Config,
    fleet::Fleet,
    keys::Keyring,
    metrics::Metrics,
    reconcile, secret_file,
    serve::{self, health::Health, operations::Operations},
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
    /// Where it listens for operators, when that is another place.
    pub admin_address: Option<SocketAddr>,
    /// Where its metrics and health checks are, when it was told to have such a place.
    pub metrics_address: Option<SocketAddr>,
    /// What its use cases work with.
    pub app: App,
    /// The file with the first admin token, when this start made the admin.
    pub admin_token_file: Option<PathBuf>,
    database: Database,
    stopping: CancellationToken,
    /// Fires when the server is not ready any more: with `stopping`, or before.
    leaving: CancellationToken,
    tasks: JoinSet<()>,
    _operations: Option<Operations>,
}

impl Server {
    /// Starts everything. When this returns, the server answers on its addresses.
    ///
    /// # Errors
    /// The first thing that does not start; what had started is stopped.
    pub async fn start(config: &Config, stopping: CancellationToken) -> Result<Self, StartError> {
        for address in [Some(config.listen), config.admin_listen].into_iter().flatten() {
            if config.tls.no_tls && !address.ip().is_loopback() && !config.insecure_listen {
                return Err(StartError::ListenInsecure(address));
            }
        }
        let oidc = config.oidc.provider().map_err(StartError::Oidc)?.map(Arc::new);
        std::fs::create_dir_all(&config.data_dir)
            .map_err(|error| StartError::DataDir(config.data_dir.clone(), error))?;
        let (health, metrics) = (Health::starting().await, Arc::default());
        // First of all, so that whoever supervises the start sees that it goes on.
        let operations = match config.metrics_listen {
            Some(address) => {
                let opened = Operations::open(address, &health, Arc::clone(&metrics)).await;
                Some(opened.map_err(|error| StartError::Listen(address, error))?)
            }
            None => None,
        };
        let database = Database::open(config, &stopping).await?;
        let leaving = stopping.child_token();
        let begin = async {
            // A token that is none shall show before anything is made.
            let token = first_token(config, &database).await?;
            let app = open(config, &database, oidc, metrics, &stopping).await?;
            let begun = Begun::begin(config, app, &health, &stopping).await?;
            let file = match token {
                Some(token) => first_admin(config, &database, &token).await?,
                None => None,
            };
            Ok((file, begun))
        };
        let begun = stopping.run_until_cancelled(begin).await.unwrap_or(Err(StartError::Stopped));
        let (admin_token_file, Begun { app, address, admin_address, tls, mut tasks }) = match begun {
            Ok(begun) => begun,
            Err(error) => {
                database.close().await;
                return Err(error);
            }
        };
        tasks.spawn(health.follow(app.pool.clone(), leaving.clone()));
        if let Some(operations) = &operations {
            operations.started(&app, tls);
        }
        let metrics_address = operations.as_ref().map(|operations| operations.address);
        Ok(Self {
            address,
            admin_address,
            metrics_address,
            app,
            admin_token_file,
            database,
            stopping,
            leaving,
            tasks,
            _operations: operations,
        })
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

/// Opens what the use cases work with.
async fn open(
    config: &Config,
    database: &Database,
    oidc: Option<Arc<oidc::Provider>>,
    metrics: Arc<Metrics>,
    stopping: &CancellationToken,
) -> Result<App, StartError> {
    let store = match &config.blob_store {
        Some(store) => store.clone(),
        None => config.data_dir.join("blobs").to_string_lossy().into_owned(),
    };
    let blobs = Blobs::open(&store, s3_credentials(config)?).map_err(|error| StartError::Blobs(store, error))?;
    blobs.try_out().await.map_err(StartError::BlobsRefused)?;
    let keys = Keyring::open(&database.pool, &config.key_file(), Utc::now()).await.map_err(StartError::Keys)?;
    let forwarding = config.tls.forwarding(keys.authority()).map_err(StartError::Tls)?.map(Arc::new);
    let fleet = Fleet::new(database.pool.clone(), config.check_in_interval, stopping.clone());
    Ok(App {
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
        metrics,
    })
}

/// The ports and the work behind them, as they began.
struct Begun {
    app: App,
    address: SocketAddr,
    admin_address: Option<SocketAddr>,
    tls: Option<Arc<Tls>>,
    tasks: JoinSet<()>,
}

impl Begun {
    async fn begin(
        config: &Config,
        app: App,
        health: &Health,
        stopping: &CancellationToken,
    ) -> Result<Self, StartError> {
        let tls = if config.tls.no_tls {
            None
        } else {
            let tls = Tls::start(&config.tls, Arc::clone(&app.keys), Utc::now()).map_err(StartError::Tls)?;
            Some(Arc::new(tls))
        };
        publish_authority(&app, &config.data_dir)
            .map_err(|error| StartError::DataDir(config.data_dir.clone(), error))?;
        let devices = listen(config.listen).await?;
        let operators = match config.admin_listen {
            Some(address) => Some(listen(address).await?),
            None => None,
        };
        let (address, admin_address) = (devices.1, operators.as_ref().map(|(_, address)| *address));

        let mut tasks = JoinSet::new();
        tasks.spawn(Arc::clone(&app.fleet).run());
        tasks.spawn(reconcile::run(app.clone(), stopping.clone()));
        if let Some(provider) = &app.oidc {
            tasks.spawn(Arc::clone(provider).run(stopping.clone()));
        }
        if let Some(tls) = &tls {
            tasks.spawn(Arc::clone(tls).keep_fresh(stopping.clone()));
        }
        let offer = if operators.is_some() { Offer::Devices } else { Offer::All };
        let ports = [Some((devices.0, offer)), operators.map(|(listener, _)| (listener, Offer::Operators))];
        for (listener, offer) in ports.into_iter().flatten() {
            let settings = serve::Settings {
                service: serve::services(&app, health, offer).map_err(StartError::Services)?,
                tls: tls.clone(),
                max_connection_age: config.max_connection_age,
                pace: config.pace,
            };
            tasks.spawn(serve::serve(listener, settings, stopping.clone(), config.drain_timeout));
        }
        Ok(Self { app, address, admin_address, tls, tasks })
    }
}

async fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), StartError> {
    let listening = |error| StartError::Listen(address, error);
    let listener = TcpListener::bind(address).await.map_err(listening)?;
    let address = listener.local_addr().map_err(listening)?;
    Ok((listener, address))
}

/// The token to make the first admin of a database that has none: the one that the operator gave, or a random one.
async fn first_token(config: &Config, database: &Database) -> Result<Option<NewToken>, StartError> {
    if app::access::any_token(&database.pool).await.map_err(StartError::FirstAdmin)? {
        return Ok(None);
    }
    match &config.admin_token_file {
        Some(file) => given_token(file).map(Some),
        None => Ok(Some(NewToken::random())),
    }
}

/// Makes the first admin, unless another server was faster. Answers with the file that holds the token: the operator's, or
/// one that is left in the data directory.
async fn first_admin(config: &Config, database: &Database, token: &NewToken) -> Result<Option<PathBuf>, StartError> {
    if !app::access::first_admin(&database.pool, token, Utc::now()).await.map_err(StartError::FirstAdmin)? {
        return Ok(None);
    }
    if let Some(file) = &config.admin_token_file {
        return Ok(Some(file.clone()));
    }
    let file = config.data_dir.join("admin-token");
    write_private_file(&file, &token.to_string())
        .map_err(|error| StartError::DataDir(config.data_dir.clone(), error))?;
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
