//! Payloads: which ones the blob store has in full, and which of its bytes nobody needs any more.

use chrono::{DateTime, Utc};
use ota_domain::{
    Sha256Digest,
    payload::{Payload, Stored},
};
use sqlx::PgConnection;

/// The constraint that keeps a payload which a release installs.
pub const NEEDED_BY_RELEASE: &str = "release_payload_sha256_fkey";

/// Advisory locks of this class are for payloads; the second key is the start of their SHA-256. Two payloads that share
/// it wait for each other, which does no harm.
const LOCK_CLASS: i32 = 0x0074_a001;

/// Proof of the lock on a payload's name, which lasts until the transaction ends.
///
/// A row of `payload` must exist only while the blob does, and the blob store takes part in no transaction. So whoever
/// puts a blob into place, or takes one away, does that and looks at the rows under this lock.
#[derive(Debug)]
pub struct Lock(Sha256Digest);

/// Waits for the lock on a payload's name.
pub async fn lock(connection: &mut PgConnection, sha256: Sha256Digest) -> sqlx::Result<Lock> {
    let [a, b, c, d, ..] = sha256.0;
    sqlx::query!("SELECT pg_advisory_xact_lock($1, $2)", LOCK_CLASS, i32::from_be_bytes([a, b, c, d]))
        .execute(connection)
        .await?;
    Ok(Lock(sha256))
}

/// Reads a payload.
pub async fn find(connection: &mut PgConnection, sha256: Sha256Digest) -> sqlx::Result<Option<Stored>> {
    let row = sqlx::query!("SELECT size_bytes, created_at FROM payload WHERE sha256 = $1", sha256 as _)
        .fetch_optional(connection)
        .await?;
    Ok(row.map(|row| Stored {
        payload: Payload { sha256, size_bytes: row.size_bytes.unsigned_abs() },
        created_at: row.created_at,
    }))
}

/// Reads a payload and keeps it from being deleted until the transaction ends.
pub async fn hold(connection: &mut PgConnection, sha256: Sha256Digest) -> sqlx::Result<Option<Payload>> {
    let row = sqlx::query!("SELECT size_bytes FROM payload WHERE sha256 = $1 FOR KEY SHARE", sha256 as _)
        .fetch_optional(connection)
        .await?;
    Ok(row.map(|row| Payload { sha256, size_bytes: row.size_bytes.unsigned_abs() }))
}

/// Keeps everybody else from holding or deleting a payload until the transaction ends; `false` when there is none.
pub async fn lock_row(connection: &mut PgConnection, sha256: Sha256Digest) -> sqlx::Result<bool> {
    let row = sqlx::query!("SELECT size_bytes FROM payload WHERE sha256 = $1 FOR UPDATE", sha256 as _)
        .fetch_optional(connection)
        .await?;
    Ok(row.is_some())
}

/// Records that the blob store has a payload; `false` when that was known.
pub async fn insert(
    connection: &mut PgConnection,
    lock: &Lock,
    size_bytes: u64,
    now: DateTime<Utc>,
) -> sqlx::Result<bool> {
    sqlx::query!("DELETE FROM dropped_payload WHERE sha256 = $1", lock.0 as _).execute(&mut *connection).await?;
    let done = sqlx::query!(
        "INSERT INTO payload (sha256, size_bytes, created_at) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
        lock.0 as _,
        size_bytes.cast_signed(),
        now,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// Deletes a payload and notes that its bytes may go; `false` when there is none. Fails on [`NEEDED_BY_RELEASE`].
pub async fn delete(connection: &mut PgConnection, sha256: Sha256Digest) -> sqlx::Result<bool> {
    let done = sqlx::query!("DELETE FROM payload WHERE sha256 = $1", sha256 as _).execute(&mut *connection).await?;
    let deleted = done.rows_affected() > 0;
    if deleted {
        drop_bytes(connection, sha256).await?;
    }
    Ok(deleted)
}

/// Notes that bytes which have no row may be in the blob store.
pub async fn drop_bytes(connection: &mut PgConnection, sha256: Sha256Digest) -> sqlx::Result<()> {
    sqlx::query!("INSERT INTO dropped_payload (sha256) VALUES ($1) ON CONFLICT DO NOTHING", sha256 as _)
        .execute(connection)
        .await?;
    Ok(())
}

/// Some payloads whose bytes may go.
pub async fn dropped(connection: &mut PgConnection, limit: i64) -> sqlx::Result<Vec<Sha256Digest>> {
    sqlx::query_scalar!(
        r#"SELECT sha256 AS "sha256: Sha256Digest" FROM dropped_payload ORDER BY sha256 LIMIT $1"#,
        limit
    )
    .fetch_all(connection)
    .await
}

/// Takes the note off; whether the bytes are to be deleted under this lock.
pub async fn take_dropped(connection: &mut PgConnection, lock: &Lock) -> sqlx::Result<bool> {
    let noted = sqlx::query!("DELETE FROM dropped_payload WHERE sha256 = $1", lock.0 as _)
        .execute(&mut *connection)
        .await?
        .rows_affected()
        > 0;
    Ok(noted && find(connection, lock.0).await?.is_none())
}
