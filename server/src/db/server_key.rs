//! The server's own keys, sealed.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

/// Key of the advisory lock under which the first keys are made: the letters `ota-key1`.
const FIRST_KEYS_LOCK: i64 = i64::from_be_bytes(*b"ota-key1");

/// A key as it is kept.
#[derive(Debug, Clone)]
pub struct ServerKey {
    /// Its name.
    pub name: String,
    /// SubjectPublicKeyInfo, DER; empty for a key that has no public part.
    pub public_key: Vec<u8>,
    /// The private part, sealed.
    pub sealed: Vec<u8>,
    /// Names the key-encryption key that sealed it.
    pub kek_id: String,
    /// Its self-signed certificate, DER.
    pub certificate: Option<Vec<u8>>,
}

/// Makes other callers of this wait until the transaction ends, so that of several replicas that start at once one makes
/// the keys.
pub async fn lock(connection: &mut PgConnection) -> sqlx::Result<()> {
    sqlx::query!("SELECT pg_advisory_xact_lock($1)", FIRST_KEYS_LOCK).execute(connection).await?;
    Ok(())
}

/// Reads all keys.
pub async fn all(connection: &mut PgConnection) -> sqlx::Result<Vec<ServerKey>> {
    sqlx::query_as!(
        ServerKey,
        "SELECT name, public_key, sealed, kek_id, certificate
         FROM server_key
         ORDER BY name",
    )
    .fetch_all(connection)
    .await
}

/// Stores a key, in the place of one that has its name.
pub async fn put(connection: &mut PgConnection, key: &ServerKey, now: DateTime<Utc>) -> sqlx::Result<()> {
    sqlx::query!(
        "INSERT INTO server_key (name, public_key, sealed, kek_id, certificate, created_at)
         VALUES ($1, $2, $3, $4, $5, $6)
         ON CONFLICT (name) DO UPDATE SET
             public_key = EXCLUDED.public_key, sealed = EXCLUDED.sealed, kek_id = EXCLUDED.kek_id,
             certificate = EXCLUDED.certificate, created_at = EXCLUDED.created_at",
        key.name,
        key.public_key,
        key.sealed,
        key.kek_id,
        key.certificate,
        now,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Stores a key's private part as it is sealed under another key-encryption key.
pub async fn reseal(connection: &mut PgConnection, name: &str, sealed: &[u8], kek_id: &str) -> sqlx::Result<()> {
    sqlx::query!("UPDATE server_key SET sealed = $2, kek_id = $3 WHERE name = $1", name, sealed, kek_id)
        .execute(connection)
        .await?;
    Ok(())
}

/// Deletes a key, and answers whether there was one.
pub async fn delete(connection: &mut PgConnection, name: &str) -> sqlx::Result<bool> {
    let done = sqlx::query!("DELETE FROM server_key WHERE name = $1", name).execute(connection).await?;
    Ok(done.rows_affected() > 0)
}

/// Reads the names of all keys.
pub async fn names(connection: &mut PgConnection) -> sqlx::Result<Vec<String>> {
    sqlx::query_scalar!("SELECT name FROM server_key ORDER BY name").fetch_all(connection).await
}
