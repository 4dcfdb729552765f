//! Unfinished uploads and how far the blob store has them.

use chrono::{DateTime, Utc};
use ota_domain::{Sha256Digest, UploadId, payload::Payload, upload::Upload};
use sqlx::{PgConnection, types::Json};

use crate::blobs::{Checkpoint, Hash, Parts};

/// An upload and what it takes to go on.
#[derive(Debug)]
pub struct Unfinished {
    /// The upload.
    pub upload: Upload,
    /// How far the blob store has it.
    pub checkpoint: Checkpoint,
}

struct Row {
    id: UploadId,
    sha256: Sha256Digest,
    size_bytes: i64,
    received_bytes: i64,
    hash_state: Vec<u8>,
    parts: Json<Parts>,
    expires_at: DateTime<Utc>,
}

impl Row {
    fn unfinished(self) -> sqlx::Result<Unfinished> {
        let received_bytes = self.received_bytes.unsigned_abs();
        let hash = Hash::from_state(&self.hash_state).map_err(|error| sqlx::Error::Decode(error.to_string().into()))?;
        Ok(Unfinished {
            upload: Upload {
                id: self.id,
                payload: Payload { sha256: self.sha256, size_bytes: self.size_bytes.unsigned_abs() },
                received_bytes,
                expires_at: self.expires_at,
            },
            checkpoint: Checkpoint { received_bytes, hash, parts: self.parts.0 },
        })
    }
}

/// Reads an upload.
pub async fn find(connection: &mut PgConnection, id: UploadId) -> sqlx::Result<Option<Unfinished>> {
    let row = sqlx::query_as!(
        Row,
        r#"SELECT id AS "id: UploadId", sha256 AS "sha256: Sha256Digest", size_bytes, received_bytes, hash_state,
                  parts AS "parts: Json<Parts>", expires_at
           FROM upload
           WHERE id = $1"#,
        id.0
    )
    .fetch_optional(connection)
    .await?;
    row.map(Row::unfinished).transpose()
}

/// Returns the upload of a payload: the one that was begun, which then lives longer, or a new one with this id.
pub async fn announce(
    connection: &mut PgConnection,
    id: UploadId,
    payload: Payload,
    now: DateTime<Utc>,
    expires_at: DateTime<Utc>,
) -> sqlx::Result<Upload> {
    let row = sqlx::query!(
        r#"INSERT INTO upload (id, sha256, size_bytes, hash_state, created_at, expires_at)
           VALUES ($1, $2, $3, $4, $5, $6)
           ON CONFLICT ON CONSTRAINT upload_payload_key
           DO UPDATE SET expires_at = GREATEST(upload.expires_at, EXCLUDED.expires_at)
           RETURNING id AS "id: UploadId", received_bytes, expires_at"#,
        id.0,
        payload.sha256 as _,
        payload.size_bytes.cast_signed(),
        Hash::default().state(),
        now,
        expires_at,
    )
    .fetch_one(connection)
    .await?;
    let received_bytes = row.received_bytes.unsigned_abs();
    Ok(Upload { id: row.id, payload, received_bytes, expires_at: row.expires_at })
}

/// Records a checkpoint after the one at `expected`; `false` when another stream recorded one meanwhile or the upload is
/// gone.
pub async fn record(
    connection: &mut PgConnection,
    id: UploadId,
    expected: u64,
    checkpoint: &Checkpoint,
    expires_at: DateTime<Utc>,
) -> sqlx::Result<bool> {
    let done = sqlx::query!(
        "UPDATE upload
         SET received_bytes = $3, hash_state = $4, parts = $5, expires_at = GREATEST(expires_at, $6)
         WHERE id = $1 AND received_bytes = $2",
        id.0,
        expected.cast_signed(),
        checkpoint.received_bytes.cast_signed(),
        checkpoint.hash.state(),
        Json(&checkpoint.parts) as _,
        expires_at,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// Deletes an upload; `false` when there is none.
pub async fn delete(connection: &mut PgConnection, id: UploadId) -> sqlx::Result<bool> {
    let done = sqlx::query!("DELETE FROM upload WHERE id = $1", id.0).execute(connection).await?;
    Ok(done.rows_affected() > 0)
}

/// Some uploads that nobody went on with in time.
pub async fn expired(connection: &mut PgConnection, now: DateTime<Utc>, limit: i64) -> sqlx::Result<Vec<UploadId>> {
    sqlx::query_scalar!(
        r#"SELECT id AS "id: UploadId" FROM upload WHERE expires_at < $1 ORDER BY expires_at LIMIT $2"#,
        now,
        limit
    )
    .fetch_all(connection)
    .await
}
