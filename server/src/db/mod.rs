//! All SQL of the server: free functions over a connection, one module for each aggregate.
//!
//! Functions take `&mut PgConnection`, so that a use case decides what is one transaction. Every query is checked against
//! the schema when it is compiled; the only text put together at run time comes from [`selector`], which names columns
//! itself and passes what people wrote as parameters.

use std::time::Duration;

use sqlx::{
    ConnectOptions, Connection as _, PgConnection, PgPool, Row as _,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tokio::time::timeout;

pub mod api_token;
pub mod deployment;
pub mod desired;
pub mod device;
pub mod device_running;
pub mod director;
pub mod enroll_token;
pub mod event;
pub mod event_seal;
pub mod inventory;
pub mod notify;
pub mod package;
pub mod page;
pub mod payload;
pub mod presence;
pub mod release;
pub mod revocation;
pub mod rollout;
pub mod schema;
pub mod selector;
pub mod server_key;
pub mod status;
pub mod trust_metadata;
pub mod upload;

pub use schema::MIGRATOR;

/// How long a request waits for a connection before it is told that the database does not answer.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(3);

/// A pool of at most `connections`, opened as needed: the server starts and says so also while Postgres is away.
pub fn pool(options: PgConnectOptions, connections: u32) -> PgPool {
    let options = options
        .application_name("ota-server")
        .log_slow_statements(tracing::log::LevelFilter::Warn, Duration::from_secs(1));
    PgPoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        // One question for another: whoever answers this one is alive too.
        .test_before_acquire(false)
        .before_acquire(|connection, _| Box::pin(has_nothing_open(connection)))
        .connect_lazy_with(options)
}

/// Whether no transaction is open on a connection that comes out of the pool. When a caller goes away while `BEGIN` is on its
/// way, it stays open, and sqlx 0.9.0 gives the connection to the next, whose writes nobody then commits:
/// <https://github.com/transact-rs/sqlx/issues/4393>.
async fn has_nothing_open(connection: &mut PgConnection) -> sqlx::Result<bool> {
    // In a transaction now() is when that began; here it is when this statement did, as it is sent in one message.
    sqlx::raw_sql("SELECT now() = statement_timestamp()").fetch_one(connection).await?.try_get(0)
}

/// Whether `error` says that the named constraint forbids the statement.
#[must_use]
pub fn violates(error: &sqlx::Error, constraint: &str) -> bool {
    error.as_database_error().and_then(|error| error.constraint()) == Some(constraint)
}

/// Whether `error` says that a table is not there.
#[must_use]
pub fn is_undefined_table(error: &sqlx::Error) -> bool {
    // https://www.postgresql.org/docs/current/errcodes-appendix.html
    error.as_database_error().and_then(|error| error.code()).as_deref() == Some("42P01")
}

/// Asks the database for a sign of life. Also while requests have all connections of the pool: a server that is busy is not
/// one that cannot work, and a balancer that took it out would make the others busier still.
pub async fn ping(pool: &PgPool) -> sqlx::Result<()> {
    let ask = async {
        if let Some(mut idle) = pool.try_acquire() {
            return idle.ping().await;
        }
        let mut own = PgConnection::connect_with(&pool.connect_options()).await?;
        own.ping().await?;
        own.close().await
    };
    timeout(ACQUIRE_TIMEOUT, ask).await.unwrap_or(Err(sqlx::Error::PoolTimedOut))
}
