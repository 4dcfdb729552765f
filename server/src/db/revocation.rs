//! Devices that are not to be let in any more, noted by the database itself, for replicas that missed a notification.

use ota_domain::DeviceId;
use sqlx::PgConnection;

use super::{event, trust_metadata::Versions};

/// What a replica must not miss.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct News {
    /// Devices that were taken out or deleted, or whose key changed.
    pub devices: Vec<DeviceId>,
    /// The newest versions of what is the same for the whole fleet.
    pub versions: Versions,
    /// The oldest transaction still running: what to ask from the next time.
    pub horizon: u64,
}

/// Reads what transactions from `since` on have noted, in one statement of constant cost. What had not ended when a `since`
/// was told is among them, so nothing is passed over; some may be told twice.
pub async fn news(connection: &mut PgConnection, since: u64) -> sqlx::Result<News> {
    let row = sqlx::query!(
        r#"SELECT
               pg_snapshot_xmin(pg_current_snapshot())::TEXT AS "horizon!",
               ARRAY(
                   SELECT device_id FROM device_revocation WHERE transaction >= $1::TEXT::XID8
               ) AS "devices!",
               (SELECT max(version) FROM trust_metadata WHERE repository = 'image' AND role = 'root') AS "image_root!",
               (SELECT max(version) FROM trust_metadata WHERE repository = 'image' AND role = 'timestamp')
                   AS "image_timestamp!",
               (SELECT max(version) FROM trust_metadata WHERE repository = 'director' AND role = 'root')
                   AS "director_root!""#,
        since.to_string(),
    )
    .fetch_one(connection)
    .await?;
    Ok(News {
        devices: row.devices.into_iter().map(DeviceId).collect(),
        versions: Versions {
            image_root: row.image_root.unsigned_abs(),
            image_timestamp: row.image_timestamp.unsigned_abs(),
            director_root: row.director_root.unsigned_abs(),
        },
        horizon: event::transaction(&row.horizon)?,
    })
}

/// Forgets what every replica has had a day to read.
pub async fn prune(connection: &mut PgConnection) -> sqlx::Result<()> {
    sqlx::query!("DELETE FROM device_revocation WHERE at < clock_timestamp() - INTERVAL '1 day'")
        .execute(connection)
        .await?;
    Ok(())
}
