//! What the server last signed for each device.

use chrono::{DateTime, Utc};
use ota_domain::{DeviceId, Sha256Digest};
use sqlx::PgConnection;

use super::trust_metadata::Versions;

/// The documents of one device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// The version of all three.
    pub version: u64,
    /// SHA-256 over what was signed and by which root.
    pub content: Sha256Digest,
    /// The timestamp.
    pub timestamp: Vec<u8>,
    /// The snapshot.
    pub snapshot: Vec<u8>,
    /// The targets.
    pub targets: Vec<u8>,
    /// When they were signed.
    pub signed_at: DateTime<Utc>,
    /// When they run out.
    pub expires_at: DateTime<Utc>,
}

/// Reads a device's documents, and with them the versions of what is the same for the whole fleet: all that a check-in
/// has to ask for, in one statement.
pub async fn find(connection: &mut PgConnection, device: DeviceId) -> sqlx::Result<(Option<Signed>, Versions)> {
    let row = sqlx::query!(
        r#"SELECT
               (SELECT max(version) FROM trust_metadata WHERE repository = 'image' AND role = 'root') AS "image_root!",
               (SELECT max(version) FROM trust_metadata WHERE repository = 'image' AND role = 'timestamp')
                   AS "image_timestamp!",
               (SELECT max(version) FROM trust_metadata WHERE repository = 'director' AND role = 'root')
                   AS "director_root!",
               version AS "version?", content_sha256 AS "content?: Sha256Digest",
               timestamp_document AS "timestamp?", snapshot_document AS "snapshot?", targets_document AS "targets?",
               signed_at AS "signed_at?", expires_at AS "expires_at?"
           FROM (VALUES (1)) AS one
           LEFT JOIN director_document ON device_id = $1"#,
        device.0,
    )
    .fetch_one(connection)
    .await?;
    let versions = Versions {
        image_root: row.image_root.unsigned_abs(),
        image_timestamp: row.image_timestamp.unsigned_abs(),
        director_root: row.director_root.unsigned_abs(),
    };
    let signed = || {
        Some(Signed {
            version: row.version?.unsigned_abs(),
            content: row.content?,
            timestamp: row.timestamp?,
            snapshot: row.snapshot?,
            targets: row.targets?,
            signed_at: row.signed_at?,
            expires_at: row.expires_at?,
        })
    };
    Ok((signed(), versions))
}

/// Stores a device's documents, unless there are such of this version or a higher one. Says whether it did.
pub async fn put(connection: &mut PgConnection, device: DeviceId, signed: &Signed) -> sqlx::Result<bool> {
    let done = sqlx::query!(
        "INSERT INTO director_document (
             device_id, version, content_sha256, timestamp_document, snapshot_document, targets_document, signed_at,
             expires_at
         )
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
         ON CONFLICT (device_id) DO UPDATE SET
             version = EXCLUDED.version, content_sha256 = EXCLUDED.content_sha256,
             timestamp_document = EXCLUDED.timestamp_document, snapshot_document = EXCLUDED.snapshot_document,
             targets_document = EXCLUDED.targets_document, signed_at = EXCLUDED.signed_at,
             expires_at = EXCLUDED.expires_at
         WHERE director_document.version < EXCLUDED.version",
        device.0,
        signed.version.cast_signed(),
        signed.content as _,
        signed.timestamp,
        signed.snapshot,
        signed.targets,
        signed.signed_at,
        signed.expires_at,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected() > 0)
}
