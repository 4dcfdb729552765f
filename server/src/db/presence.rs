//! When devices were last heard of. Written behind, many at a time.

use chrono::{DateTime, Utc};
use ota_domain::DeviceId;
use sqlx::PgConnection;

/// A device was heard of.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Which.
    pub device: DeviceId,
    /// When.
    pub at: DateTime<Utc>,
    /// Its agent's version.
    pub agent_version: String,
}

/// Writes all of them in one statement. The latest sign of life stays, whichever replica writes last; devices deleted
/// meanwhile are left out.
pub async fn write(connection: &mut PgConnection, seen: &[Seen]) -> sqlx::Result<()> {
    let devices: Vec<_> = seen.iter().map(|seen| seen.device.0).collect();
    let times: Vec<_> = seen.iter().map(|seen| seen.at).collect();
    let versions: Vec<_> = seen.iter().map(|seen| seen.agent_version.clone()).collect();
    // Ordered, so that two replicas that write the same devices wait for each other instead of deadlocking.
    sqlx::query!(
        "INSERT INTO device_presence (device_id, last_seen_at, agent_version)
         SELECT DISTINCT ON (seen.id) seen.id, seen.at, seen.agent_version
         FROM unnest($1::UUID[], $2::TIMESTAMPTZ[], $3::TEXT[]) AS seen (id, at, agent_version)
         JOIN device ON device.id = seen.id
         ORDER BY seen.id, seen.at DESC
         ON CONFLICT (device_id) DO UPDATE
         SET last_seen_at = EXCLUDED.last_seen_at, agent_version = EXCLUDED.agent_version
         WHERE device_presence.last_seen_at < EXCLUDED.last_seen_at",
        &devices,
        &times,
        &versions,
    )
    .execute(connection)
    .await?;
    Ok(())
}
