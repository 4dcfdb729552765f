//! How much there is of everything.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

/// Devices by their admission.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceCounts {
    /// Wait for approval.
    pub pending: i64,
    /// Part of the fleet.
    pub accepted: i64,
    /// Accepted and heard of lately.
    pub online: i64,
    /// Kept out.
    pub rejected: i64,
    /// Taken out.
    pub decommissioned: i64,
    /// Wait for approval and say they are a machine that another device is.
    pub conflicting: i64,
}

/// Counts devices; one heard of at `online_since` or later is online.
pub async fn devices(connection: &mut PgConnection, online_since: DateTime<Utc>) -> sqlx::Result<DeviceCounts> {
    sqlx::query_as!(
        DeviceCounts,
        r#"SELECT
               count(*) FILTER (WHERE state = 'pending') AS "pending!",
               count(*) FILTER (WHERE state = 'accepted') AS "accepted!",
               count(*) FILTER (WHERE state = 'accepted' AND last_seen_at >= $1) AS "online!",
               count(*) FILTER (WHERE state = 'rejected') AS "rejected!",
               count(*) FILTER (WHERE state = 'decommissioned') AS "decommissioned!",
               count(*) FILTER (WHERE state = 'pending' AND identity_conflicts(device) <> '{}') AS "conflicting!"
           FROM device
           LEFT JOIN device_presence ON device_presence.device_id = device.id"#,
        online_since,
    )
    .fetch_one(connection)
    .await
}

/// What there is beside devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkCounts {
    /// Packages.
    pub packages: i64,
    /// Releases, yanked ones too.
    pub releases: i64,
    /// Bytes of all payloads.
    pub payload_bytes: i64,
    /// Rollouts that have not ended.
    pub open_rollouts: i64,
    /// Deployments that have not ended.
    pub open_deployments: i64,
}

/// Counts what there is beside devices.
pub async fn work(connection: &mut PgConnection) -> sqlx::Result<WorkCounts> {
    sqlx::query_as!(
        WorkCounts,
        r#"SELECT
               (SELECT count(*) FROM package) AS "packages!",
               (SELECT count(*) FROM release) AS "releases!",
               (SELECT COALESCE(sum(size_bytes), 0)::BIGINT FROM payload) AS "payload_bytes!",
               (SELECT count(*) FROM rollout WHERE ended_at IS NULL) AS "open_rollouts!",
               (SELECT count(*) FROM deployment WHERE ended_at IS NULL) AS "open_deployments!""#,
    )
    .fetch_one(connection)
    .await
}
