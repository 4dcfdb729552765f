//! What a device's report reads and writes: the rows of one deployment, by its key.

use chrono::{DateTime, Utc};
use ota_domain::{
    DeploymentId, DeviceId, PackageName, RolloutId, Sha256Digest, Version,
    deployment::{Report, Standing, State},
    release::Payload,
};
use sqlx::PgConnection;

/// A deployment as its device reports on it.
#[derive(Debug)]
pub struct Reported {
    /// Where it stands.
    pub standing: Standing,
    /// Its rollout.
    pub rollout: RolloutId,
    /// The release's package.
    pub package: PackageName,
    /// The release's version.
    pub version: Version,
    /// What the release installs.
    pub payload: Payload,
}

/// Reads the device's deployment; `None` also when it is another device's.
pub async fn reported(
    connection: &mut PgConnection,
    id: DeploymentId,
    device: DeviceId,
) -> sqlx::Result<Option<Reported>> {
    let row = sqlx::query!(
        r#"SELECT deployment.state AS "state: State", deployment.attempt, deployment.sequence,
                  deployment.rollout_id AS "rollout: RolloutId", package.name AS "package: PackageName",
                  release.version AS "version: Version", payload.sha256 AS "sha256: Sha256Digest", payload.size_bytes
           FROM deployment
           JOIN release ON release.id = deployment.release_id
           JOIN package ON package.id = deployment.package_id
           JOIN payload ON payload.sha256 = release.payload_sha256
           WHERE deployment.id = $1 AND deployment.device_id = $2"#,
        id.0,
        device.0,
    )
    .fetch_optional(connection)
    .await?;
    Ok(row.map(|row| Reported {
        standing: Standing {
            state: row.state,
            attempt: row.attempt.unsigned_abs(),
            sequence: row.sequence.unsigned_abs(),
        },
        rollout: row.rollout,
        package: row.package,
        version: row.version,
        payload: Payload { sha256: row.sha256, size_bytes: row.size_bytes.unsigned_abs() },
    }))
}

/// Locks the device's deployment and reads where it stands.
pub async fn standing(
    connection: &mut PgConnection,
    id: DeploymentId,
    device: DeviceId,
) -> sqlx::Result<Option<Standing>> {
    let row = sqlx::query!(
        r#"SELECT state AS "state: State", attempt, sequence
           FROM deployment
           WHERE id = $1 AND device_id = $2
           FOR UPDATE"#,
        id.0,
        device.0,
    )
    .fetch_optional(connection)
    .await?;
    Ok(row.map(|row| Standing {
        state: row.state,
        attempt: row.attempt.unsigned_abs(),
        sequence: row.sequence.unsigned_abs(),
    }))
}

/// Writes the figures of a report that leaves the deployment in its state, unless it no longer stands where `standing`
/// says. Whether it did.
pub async fn refresh(
    connection: &mut PgConnection,
    standing: Standing,
    report: &Report,
    now: DateTime<Utc>,
) -> sqlx::Result<bool> {
    let done = sqlx::query!(
        "UPDATE deployment
         SET sequence = $5, bytes_done = $6, updated_at = $7
         WHERE id = $1 AND state = $2 AND attempt = $3 AND sequence = $4",
        report.deployment.0,
        standing.state as State,
        i32::try_from(standing.attempt).unwrap_or(i32::MAX),
        signed(standing.sequence),
        signed(report.sequence),
        signed(report.bytes_done),
        now,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Moves a deployment on to `state`, as its device reports. The row must be locked. Answers when it entered the state that
/// it leaves, where that is known.
pub async fn enter(
    connection: &mut PgConnection,
    state: State,
    report: &Report,
    now: DateTime<Utc>,
) -> sqlx::Result<Option<DateTime<Utc>>> {
    let failure = report.failure.as_ref();
    sqlx::query_scalar!(
        "UPDATE deployment
         SET state = $2, sequence = $3, bytes_done = $4, updated_at = $5, entered_at = $5, ended_at = $6,
             failure_code = $7, failure_message = $8, failure_log_tail = $9,
             changed_at = CASE WHEN $6::TIMESTAMPTZ IS NULL THEN deployment.changed_at ELSE clock_timestamp() END
         FROM (SELECT id, entered_at FROM deployment WHERE id = $1) AS left_behind
         WHERE deployment.id = left_behind.id
         RETURNING left_behind.entered_at",
        report.deployment.0,
        state as State,
        signed(report.sequence),
        signed(report.bytes_done),
        now,
        state.is_ended().then_some(now),
        failure.map(|failure| failure.code.as_str()),
        failure.map(|failure| failure.message.as_str()),
        failure.map(|failure| failure.log_tail.as_str()),
    )
    .fetch_one(connection)
    .await
}

/// A number that was a `BIGINT` before, or was checked against one.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
