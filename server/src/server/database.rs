//! The database at the start: found, answering, and with the schema that this server needs.

use std::time::Duration;

use sqlx::{PgPool, postgres::PgConnectOptions};
use tokio_util::sync::CancellationToken;

use super::StartError;
use crate::{
    app,
    config::{Config, Schema},
    db::{self, schema},
    postgres::{Cluster, Durability},
    secret_file,
};

/// How long to wait before a database is asked again that does not answer or is not ready.
const RETRY: Duration = Duration::from_secs(2);

/// A database that is ready for the server: its schema is current.
#[derive(Debug)]
pub struct Database {
    /// Connections to it.
    pub pool: PgPool,
    /// The private cluster behind it, when there is one.
    pub cluster: Option<Cluster>,
}

impl Database {
    /// Connects to the configured Postgres or starts the private one, and waits until it has the schema that this server
    /// needs: brings it up to date, or lets somebody else do that.
    ///
    /// # Errors
    /// When the private one does not start, the schema is not to be had, or `stopping` fires first.
    pub async fn open(config: &Config, stopping: &CancellationToken) -> Result<Self, StartError> {
        let database = Self::connect(config).await?;
        let current = async {
            while !database.look(config.schema).await? {
                tokio::time::sleep(RETRY).await;
            }
            Ok(())
        };
        match stopping.run_until_cancelled(current).await.unwrap_or(Err(StartError::Stopped)) {
            Ok(()) => Ok(database),
            Err(error) => {
                database.close().await;
                Err(error)
            }
        }
    }

    /// Connects to the configured Postgres, whatever is in it, or starts the private one.
    ///
    /// # Errors
    /// When the private one does not start, or what is configured is no good.
    pub async fn connect(config: &Config) -> Result<Self, StartError> {
        let (options, cluster) = match options(config)? {
            Some(options) => (options, None),
            None if config.schema == Schema::Wait => return Err(StartError::SchemaOfNobody),
            None => {
                let folder = config.data_dir.join("postgres");
                let cluster = Cluster::start(&folder, Durability::Full).await.map_err(StartError::Postgres)?;
                (cluster.connect_options(), Some(cluster))
            }
        };
        Ok(Self { pool: db::pool(options, config.database_connections), cluster })
    }

    /// Answers whether the schema is current: made so, or found so.
    async fn look(&self, who: Schema) -> Result<bool, StartError> {
        let missing = match who {
            Schema::Migrate => schema::migrate(&self.pool).await.map(|()| 0),
            Schema::Wait => schema::missing(&self.pool).await,
        };
        match missing {
            Ok(0) => Ok(true),
            Ok(missing) => {
                tracing::info!(missing, "waiting for somebody to bring the schema up to date: ota-server migrate");
                Ok(false)
            }
            Err(error) => match error.database_error().filter(|error| app::is_outage(error)) {
                Some(error) => {
                    tracing::warn!(%error, "the database does not answer; trying again");
                    Ok(false)
                }
                None => Err(StartError::Schema(error)),
            },
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

/// How to connect to the Postgres that the operator named; `None` when they named none.
fn options(config: &Config) -> Result<Option<PgConnectOptions>, StartError> {
    let url = match (&config.database_url_file, &config.database_url) {
        (Some(file), _) => Some(secret_file::read("--database-url-file", file)?),
        (None, url) => url.clone(),
    };
    let Some(url) = url else {
        return if config.database_password_file.is_some() { Err(StartError::DatabasePassword) } else { Ok(None) };
    };
    let options: PgConnectOptions = url.parse().map_err(StartError::DatabaseUrl)?;
    let Some(file) = &config.database_password_file else { return Ok(Some(options)) };
    // It has just been parsed as one.
    let has_password = url::Url::parse(&url)
        .is_ok_and(|url| url.password().is_some() || url.query_pairs().any(|(name, _)| name == "password"));
    if has_password {
        return Err(StartError::DatabasePassword);
    }
    Ok(Some(options.password(&secret_file::read("--database-password-file", file)?)))
}
