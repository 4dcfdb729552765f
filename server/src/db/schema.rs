//! The schema's version: what this program brings, what the database has, and whether the two go together.
//!
//! While servers are replaced one after the other, and after a step back to the release before, older servers start on a
//! schema that newer ones have brought up to date. That works as long as migrations only add. One that takes away what the
//! release before needs has a description that begins with `contract`, and keeps those out that do not know it.

use std::{collections::BTreeSet, sync::LazyLock};

use sqlx::{
    PgPool,
    migrate::{MigrateError, Migrator},
};

use super::is_undefined_table;

/// Every change of the schema, in order. Applied under Postgres' advisory lock, so that several replicas may start at once.
pub static MIGRATOR: LazyLock<Migrator> = LazyLock::new(|| {
    let mut migrator = sqlx::migrate!("../migrations");
    // Those of newer servers: which may be there is decided below.
    migrator.set_ignore_missing(true);
    migrator
});

/// What the description of a migration begins with that breaks servers of the release before.
const CONTRACT: &str = "contract";

/// Why the database's schema is not to be had.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// A newer server has taken away what this one needs.
    #[error("the schema is too new for this server: it has the migration {version} ({description})")]
    TooNew {
        /// Of the migration.
        version: i64,
        /// Of the migration.
        description: String,
    },
    /// The database does not say what it has.
    #[error("the database does not say what its schema is")]
    Read(#[source] sqlx::Error),
    /// A migration failed.
    #[error("the schema cannot be brought up to date")]
    Migrate(#[source] MigrateError),
}

impl SchemaError {
    /// What the database said, when it said something.
    pub fn database_error(&self) -> Option<&sqlx::Error> {
        match self {
            Self::Read(error) | Self::Migrate(MigrateError::Execute(error)) => Some(error),
            Self::TooNew { .. } | Self::Migrate(_) => None,
        }
    }
}

/// Brings the schema up to date. Nothing is touched where this server has no place.
///
/// # Errors
/// When a migration fails, or one has been applied that this server cannot live with.
pub async fn migrate(pool: &PgPool) -> Result<(), SchemaError> {
    missing(pool).await?;
    MIGRATOR.run(pool).await.map_err(SchemaError::Migrate)
}

/// How many of this server's migrations the database has not got.
///
/// # Errors
/// When the database does not answer, or one has been applied that this server cannot live with.
pub async fn missing(pool: &PgPool) -> Result<usize, SchemaError> {
    let sql = "SELECT version, description, success FROM _sqlx_migrations ORDER BY version";
    let applied: Vec<(i64, String, bool)> = match sqlx::query_as(sql).fetch_all(pool).await {
        Ok(applied) => applied,
        Err(error) if is_undefined_table(&error) => Vec::new(),
        Err(error) => return Err(SchemaError::Read(error)),
    };
    let mut wanted: BTreeSet<i64> = MIGRATOR.iter().map(|migration| migration.version).collect();
    for (version, description, success) in applied {
        if !MIGRATOR.version_exists(version) && description.starts_with(CONTRACT) {
            return Err(SchemaError::TooNew { version, description });
        }
        if success {
            wanted.remove(&version);
        }
    }
    Ok(wanted.len())
}
