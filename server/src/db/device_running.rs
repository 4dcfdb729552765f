//! What devices run, as they say themselves.

use chrono::{DateTime, Utc};
use ota_domain::{DeviceId, device::Running};
use sqlx::PgConnection;

/// Makes `running` all that the device runs, by package and each once. Whether that is news.
pub async fn replace(
    connection: &mut PgConnection,
    device: DeviceId,
    running: &[Running],
    now: DateTime<Utc>,
) -> sqlx::Result<bool> {
    let packages: Vec<String> = running.iter().map(|release| release.package.to_string()).collect();
    let versions: Vec<String> = running.iter().map(|release| release.version.to_string()).collect();
    let payloads: Vec<Vec<u8>> = running.iter().map(|release| release.payload.0.to_vec()).collect();
    sqlx::query_scalar!(
        r#"WITH told AS (
               SELECT package, version, payload_sha256
               FROM unnest($2::TEXT[], $3::TEXT[], $4::BYTEA[]) AS told (package, version, payload_sha256)
           ), gone AS (
               DELETE FROM device_running
               WHERE device_id = $1 AND package <> ALL ($2)
               RETURNING package
           ), put AS (
               INSERT INTO device_running (device_id, package, version, payload_sha256, since)
               SELECT $1, package, version, payload_sha256, $5 FROM told
               ON CONFLICT (device_id, package) DO UPDATE
               SET version = EXCLUDED.version, payload_sha256 = EXCLUDED.payload_sha256, since = EXCLUDED.since
               WHERE (device_running.version, device_running.payload_sha256)
                   IS DISTINCT FROM (EXCLUDED.version, EXCLUDED.payload_sha256)
               RETURNING package
           )
           SELECT EXISTS (SELECT FROM gone) OR EXISTS (SELECT FROM put) AS "changed!""#,
        device.0,
        &packages,
        &versions,
        &payloads,
        now,
    )
    .fetch_one(connection)
    .await
}
