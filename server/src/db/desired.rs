//! What the server keeps in memory of a device: who it is, what it runs and what it should do.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use ota_domain::{
    DeploymentId, DeviceId, Hardware, PackageName, RolloutId, Sha256Digest, TrustFault, Version, deployment,
    device::{self, Running},
    release::{Installer, Payload},
};
use sqlx::PgConnection;

/// A device as the database has it.
#[derive(Debug, Clone)]
pub struct DesiredRow {
    /// Who.
    pub id: DeviceId,
    /// Its admission.
    pub state: device::State,
    /// SHA-256 of its key's SubjectPublicKeyInfo.
    pub key_sha256: Option<Sha256Digest>,
    /// Checksum of the inventory the server has.
    pub inventory_sha256: Option<Vec<u8>>,
    /// What it last said it runs, by package.
    pub running: Vec<Running>,
    /// Why it does not believe the server, as it last said.
    pub trust_fault: Option<TrustFault>,
    /// What it should do: its open deployments.
    pub work: Vec<Work>,
    /// When any of this last changed.
    pub changed_at: DateTime<Utc>,
}

/// An open deployment with what the device needs to know of its release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Work {
    /// The deployment.
    pub deployment: DeploymentId,
    /// Its rollout.
    pub rollout: RolloutId,
    /// Where it stands.
    pub state: deployment::State,
    /// Its attempt; 0 before the first grant.
    pub attempt: u32,
    /// The package.
    pub package: PackageName,
    /// The version.
    pub version: Version,
    /// The release's counter.
    pub release_counter: i64,
    /// How to install it.
    pub installer: Installer,
    /// What to install.
    pub payload: Payload,
    /// Hardware types it fits.
    pub hardware: Vec<Hardware>,
    /// Size of the installed tree in bytes; 0 when not known.
    pub unpacked_size_bytes: i64,
}

/// Reads these devices. Those that do not exist are left out.
pub async fn load(connection: &mut PgConnection, ids: &[DeviceId]) -> sqlx::Result<Vec<DesiredRow>> {
    let ids: Vec<_> = ids.iter().map(|id| id.0).collect();
    let mut running: HashMap<DeviceId, Vec<Running>> = HashMap::new();
    let rows = sqlx::query!(
        r#"SELECT device_id AS "device_id: DeviceId", package AS "package: PackageName", version AS "version: Version",
                  payload_sha256 AS "payload: Sha256Digest"
           FROM device_running
           WHERE device_id = ANY($1)
           ORDER BY device_id, package COLLATE "C""#,
        &ids,
    )
    .fetch_all(&mut *connection)
    .await?;
    for row in rows {
        running.entry(row.device_id).or_default().push(Running {
            package: row.package,
            version: row.version,
            payload: row.payload,
        });
    }
    let mut work: HashMap<DeviceId, Vec<Work>> = HashMap::new();
    let rows = sqlx::query!(
        r#"SELECT deployment.device_id AS "device_id: DeviceId", deployment.id AS "id: DeploymentId",
                  deployment.rollout_id AS "rollout_id: RolloutId", deployment.state AS "state: deployment::State",
                  deployment.attempt, package.name AS "package: PackageName", release.version AS "version: Version",
                  release.release_counter, release.installer AS "installer: Installer",
                  release.payload_sha256 AS "payload: Sha256Digest", payload.size_bytes,
                  release.hardware AS "hardware: Vec<Hardware>", release.unpacked_size_bytes
           FROM deployment
           JOIN release ON release.id = deployment.release_id
           JOIN package ON package.id = deployment.package_id
           JOIN payload ON payload.sha256 = release.payload_sha256
           WHERE deployment.device_id = ANY($1) AND deployment.ended_at IS NULL
           ORDER BY deployment.device_id, deployment.id"#,
        &ids,
    )
    .fetch_all(&mut *connection)
    .await?;
    for row in rows {
        work.entry(row.device_id).or_default().push(Work {
            deployment: row.id,
            rollout: row.rollout_id,
            state: row.state,
            attempt: row.attempt.unsigned_abs(),
            package: row.package,
            version: row.version,
            release_counter: row.release_counter,
            installer: row.installer,
            payload: Payload { sha256: row.payload, size_bytes: row.size_bytes.unsigned_abs() },
            hardware: row.hardware,
            unpacked_size_bytes: row.unpacked_size_bytes,
        });
    }
    // The devices last: what is newer than the rows above then shows in `changed_at`, and the sweep notices.
    let rows = sqlx::query!(
        r#"SELECT id AS "id: DeviceId", state AS "state: device::State",
                  key_sha256 AS "key_sha256: Sha256Digest", inventory_sha256,
                  trust_fault AS "trust_fault: TrustFault",
                  GREATEST(changed_at, (SELECT max(changed_at) FROM deployment WHERE device_id = device.id))
                      AS "changed_at!"
           FROM device
           WHERE id = ANY($1)"#,
        &ids,
    )
    .fetch_all(connection)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| DesiredRow {
            id: row.id,
            state: row.state,
            key_sha256: row.key_sha256,
            inventory_sha256: row.inventory_sha256,
            running: running.remove(&row.id).unwrap_or_default(),
            trust_fault: row.trust_fault,
            work: work.remove(&row.id).unwrap_or_default(),
            changed_at: row.changed_at,
        })
        .collect())
}

/// A deployment the device is now told of.
#[derive(Debug)]
pub struct Granted {
    /// The deployment.
    pub id: DeploymentId,
    /// Its rollout.
    pub rollout: RolloutId,
    /// The attempt that begins, from 1.
    pub attempt: i32,
}

/// Grants all of the device's queued deployments in one statement, so that two replicas never grant the same.
pub async fn grant(connection: &mut PgConnection, device: DeviceId, now: DateTime<Utc>) -> sqlx::Result<Vec<Granted>> {
    sqlx::query_as!(
        Granted,
        r#"UPDATE deployment
           SET state = 'granted', attempt = attempt + 1, sequence = 0, bytes_done = 0, updated_at = $2, entered_at = $2,
               changed_at = clock_timestamp()
           WHERE device_id = $1 AND state = 'queued'
           RETURNING id AS "id: DeploymentId", rollout_id AS "rollout: RolloutId", attempt"#,
        device.0,
        now,
    )
    .fetch_all(connection)
    .await
}

/// Devices of which something changed after `since`, and when it last did.
pub async fn changed_since(
    connection: &mut PgConnection,
    since: DateTime<Utc>,
) -> sqlx::Result<Vec<(DeviceId, DateTime<Utc>)>> {
    let rows = sqlx::query!(
        r#"SELECT id AS "id: DeviceId",
                  GREATEST(changed_at, (SELECT max(changed_at) FROM deployment WHERE device_id = device.id))
                      AS "changed_at!"
           FROM device
           WHERE id IN (
               SELECT id FROM device WHERE changed_at > $1
               UNION
               SELECT device_id FROM deployment WHERE changed_at > $1
           )"#,
        since,
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(|row| (row.id, row.changed_at)).collect())
}

/// The database's own clock, by which `changed_at` is told.
pub async fn clock(connection: &mut PgConnection) -> sqlx::Result<DateTime<Utc>> {
    sqlx::query_scalar!(r#"SELECT clock_timestamp() AS "now!""#).fetch_one(connection).await
}
