//! How much there is of everything.

use chrono::{DateTime, Utc};
use ota_domain::Scope;
use sqlx::{FromRow, PgConnection, Postgres, QueryBuilder};

use super::selector;

/// Devices by their admission.
#[derive(FromRow, Debug, Clone, Copy, PartialEq, Eq)]
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
    /// Accepted and do not believe the server.
    pub disbelieving: i64,
}

/// Counts the devices in `scope`; one heard of at `online_since` or later is online.
pub async fn devices(
    connection: &mut PgConnection,
    online_since: DateTime<Utc>,
    scope: &Scope,
) -> sqlx::Result<DeviceCounts> {
    let mut sql = QueryBuilder::<Postgres>::new(
        "SELECT count(*) FILTER (WHERE state = 'pending') AS pending,
                count(*) FILTER (WHERE state = 'accepted') AS accepted,
                count(*) FILTER (WHERE state = 'rejected') AS rejected,
                count(*) FILTER (WHERE state = 'decommissioned') AS decommissioned,
                count(*) FILTER (WHERE state = 'pending' AND identity_conflicts(device) <> '{}') AS conflicting,
                count(*) FILTER (WHERE state = 'accepted' AND trust_fault IS NOT NULL) AS disbelieving,
                count(*) FILTER (WHERE state = 'accepted' AND last_seen_at >= ",
    );
    sql.push_bind(online_since).push(
        ") AS online
         FROM device
         LEFT JOIN device_presence ON device_presence.device_id = device.id
         WHERE TRUE",
    );
    if let Some(selector) = &scope.devices {
        selector::push(&mut sql, "labels", selector);
    }
    sql.build_query_as().fetch_one(connection).await
}

/// Rollouts by their state.
#[derive(FromRow, Debug, Clone, Copy, PartialEq, Eq)]
pub struct RolloutCounts {
    /// Granting deployments.
    pub active: i64,
    /// Done.
    pub completed: i64,
    /// Ended by a person.
    pub canceled: i64,
}

/// Counts all rollouts.
pub async fn rollouts(connection: &mut PgConnection) -> sqlx::Result<RolloutCounts> {
    let sql = "SELECT count(*) FILTER (WHERE state = 'active') AS active,
                      count(*) FILTER (WHERE state = 'completed') AS completed,
                      count(*) FILTER (WHERE state = 'canceled') AS canceled
               FROM rollout";
    sqlx::query_as(sql).fetch_one(connection).await
}

/// What there is beside devices.
#[derive(FromRow, Debug, Clone, Copy, PartialEq, Eq)]
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

/// Counts what there is in `scope` beside devices.
pub async fn work(connection: &mut PgConnection, scope: &Scope) -> sqlx::Result<WorkCounts> {
    let prefix = || scope.packages.as_ref().map(|prefix| prefix.as_str().to_owned()).unwrap_or_default();
    // Every name begins with the empty prefix.
    let mut sql = QueryBuilder::<Postgres>::new(
        "WITH package_in_scope AS MATERIALIZED (SELECT id FROM package WHERE starts_with(name, ",
    );
    sql.push_bind(prefix()).push(
        ")), open_in_scope AS MATERIALIZED (
             SELECT deployment.rollout_id
             FROM deployment
             JOIN package_in_scope ON package_in_scope.id = deployment.package_id
             WHERE deployment.ended_at IS NULL",
    );
    if let Some(selector) = &scope.devices {
        sql.push(" AND EXISTS (SELECT FROM device WHERE device.id = deployment.device_id");
        selector::push(&mut sql, "device.labels", selector);
        sql.push(")");
    }
    sql.push(
        ")
         SELECT (SELECT count(*) FROM package_in_scope) AS packages,
                (SELECT count(*) FROM release JOIN package_in_scope ON package_in_scope.id = package_id) AS releases,
                (SELECT COALESCE(sum(size_bytes), 0)::BIGINT FROM payload",
    );
    if scope.packages.is_some() {
        sql.push(
            " WHERE EXISTS (SELECT FROM release JOIN package_in_scope ON package_in_scope.id = package_id
                            WHERE payload_sha256 = sha256)",
        );
    }
    sql.push(") AS payload_bytes, (SELECT count(*) FROM open_in_scope) AS open_deployments, ");
    sql.push(if scope.is_limited() {
        "(SELECT count(DISTINCT rollout_id) FROM open_in_scope) AS open_rollouts"
    } else {
        "(SELECT count(*) FROM rollout WHERE ended_at IS NULL) AS open_rollouts"
    });
    sql.build_query_as().fetch_one(connection).await
}
