//! The signed documents that are the same for the whole fleet.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::notify;

/// Key of the advisory lock that whoever signs the next documents holds: the letters `ota-tuf1`.
const WRITERS_LOCK: i64 = i64::from_be_bytes(*b"ota-tuf1");

/// How many versions of a document stay besides the newest, for people who look back. Roots stay all.
const KEPT_VERSIONS: i64 = 8;

/// The two repositories.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::Type)]
#[sqlx(type_name = "trust_repository", rename_all = "snake_case")]
pub enum Repository {
    /// What may be installed.
    Image,
    /// What each device should run.
    Director,
}

impl Repository {
    /// The name the database uses.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::Director => "director",
        }
    }
}

/// A document to store.
#[derive(Debug, Clone)]
pub struct NewDocument {
    /// Where it belongs.
    pub repository: Repository,
    /// The role whose document it is.
    pub role: String,
    /// Its version.
    pub version: u64,
    /// As signed.
    pub document: Vec<u8>,
    /// When it runs out.
    pub expires_at: DateTime<Utc>,
}

/// A document as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The role whose document it is.
    pub role: String,
    /// Its version.
    pub version: u64,
    /// As signed.
    pub document: Vec<u8>,
    /// When it runs out.
    pub expires_at: DateTime<Utc>,
    /// When it was stored.
    pub created_at: DateTime<Utc>,
}

struct Row {
    role: String,
    version: i64,
    document: Vec<u8>,
    expires_at: DateTime<Utc>,
    created_at: DateTime<Utc>,
}

impl From<Row> for Stored {
    fn from(row: Row) -> Self {
        Self {
            role: row.role,
            version: row.version.unsigned_abs(),
            document: row.document,
            expires_at: row.expires_at,
            created_at: row.created_at,
        }
    }
}

/// The newest versions of what is the same for the whole fleet: tells whether what a replica remembers is still so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Versions {
    /// The image repository's root.
    pub image_root: u64,
    /// The image repository's timestamp, which rises with everything else in it.
    pub image_timestamp: u64,
    /// The director repository's root.
    pub director_root: u64,
}

/// Makes other callers of this wait until the transaction ends: documents follow each other one by one.
pub async fn lock(connection: &mut PgConnection) -> sqlx::Result<()> {
    sqlx::query!("SELECT pg_advisory_xact_lock($1)", WRITERS_LOCK).execute(connection).await?;
    Ok(())
}

/// Lets the transaction, which has just begun, see everything as of one moment.
pub async fn freeze(connection: &mut PgConnection) -> sqlx::Result<()> {
    sqlx::query!("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY").execute(connection).await?;
    Ok(())
}

/// Stores a document, forgets what is long outdated, and tells the replicas.
pub async fn insert(connection: &mut PgConnection, new: &NewDocument, now: DateTime<Utc>) -> sqlx::Result<()> {
    let version = new.version.cast_signed();
    sqlx::query!(
        "INSERT INTO trust_metadata (repository, role, version, document, expires_at, created_at)
         VALUES ($1, $2, $3, $4, $5, $6)",
        new.repository as Repository,
        new.role,
        version,
        new.document,
        new.expires_at,
        now,
    )
    .execute(&mut *connection)
    .await?;
    sqlx::query!(
        "DELETE FROM trust_metadata WHERE repository = $1 AND role = $2 AND version < $3 AND role <> 'root'",
        new.repository as Repository,
        new.role,
        version - KEPT_VERSIONS,
    )
    .execute(&mut *connection)
    .await?;
    notify::trust(connection).await
}

/// Reads a version of a role's document.
pub async fn find(
    connection: &mut PgConnection,
    repository: Repository,
    role: &str,
    version: u64,
) -> sqlx::Result<Option<Stored>> {
    let row = sqlx::query_as!(
        Row,
        "SELECT role, version, document, expires_at, created_at
         FROM trust_metadata
         WHERE repository = $1 AND role = $2 AND version = $3",
        repository as Repository,
        role,
        version.cast_signed(),
    )
    .fetch_optional(connection)
    .await?;
    Ok(row.map(Stored::from))
}

/// Reads the newest version of a role's document.
pub async fn newest(connection: &mut PgConnection, repository: Repository, role: &str) -> sqlx::Result<Option<Stored>> {
    let row = sqlx::query_as!(
        Row,
        "SELECT role, version, document, expires_at, created_at
         FROM trust_metadata
         WHERE repository = $1 AND role = $2
         ORDER BY version DESC
         LIMIT 1",
        repository as Repository,
        role,
    )
    .fetch_optional(connection)
    .await?;
    Ok(row.map(Stored::from))
}

/// Reads the newest document of every role.
pub async fn all_newest(connection: &mut PgConnection, repository: Repository) -> sqlx::Result<Vec<Stored>> {
    let rows = sqlx::query_as!(
        Row,
        "SELECT DISTINCT ON (role) role, version, document, expires_at, created_at
         FROM trust_metadata
         WHERE repository = $1
         ORDER BY role, version DESC",
        repository as Repository,
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(Stored::from).collect())
}

/// Reads all roots, oldest first.
pub async fn roots(connection: &mut PgConnection, repository: Repository) -> sqlx::Result<Vec<Stored>> {
    let rows = sqlx::query_as!(
        Row,
        "SELECT role, version, document, expires_at, created_at
         FROM trust_metadata
         WHERE repository = $1 AND role = 'root'
         ORDER BY version",
        repository as Repository,
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(Stored::from).collect())
}

/// Reads the newest versions of both repositories.
pub async fn versions(connection: &mut PgConnection) -> sqlx::Result<Versions> {
    let row = sqlx::query!(
        r#"SELECT
               (SELECT max(version) FROM trust_metadata WHERE repository = 'image' AND role = 'root') AS "image_root!",
               (SELECT max(version) FROM trust_metadata WHERE repository = 'image' AND role = 'timestamp')
                   AS "image_timestamp!",
               (SELECT max(version) FROM trust_metadata WHERE repository = 'director' AND role = 'root')
                   AS "director_root!""#,
    )
    .fetch_one(connection)
    .await?;
    Ok(Versions {
        image_root: row.image_root.unsigned_abs(),
        image_timestamp: row.image_timestamp.unsigned_abs(),
        director_root: row.director_root.unsigned_abs(),
    })
}

/// When the newest document of a role runs out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expiry {
    /// Where it belongs.
    pub repository: Repository,
    /// The role whose document it is.
    pub role: String,
    /// Its version.
    pub version: i64,
    /// When it runs out.
    pub expires_at: DateTime<Utc>,
}

/// Reads when the newest documents run out, one for each role.
pub async fn expiries(connection: &mut PgConnection) -> sqlx::Result<Vec<Expiry>> {
    sqlx::query_as!(
        Expiry,
        r#"SELECT DISTINCT ON (repository, role) repository AS "repository: Repository", role, version, expires_at
           FROM trust_metadata
           ORDER BY repository, role, version DESC"#,
    )
    .fetch_all(connection)
    .await
}
