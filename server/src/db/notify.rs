//! Tells every replica what changed, by Postgres' NOTIFY: delivered when the transaction commits, and only then.

use ota_domain::DeviceId;
use sqlx::PgConnection;

/// Channel for devices whose desired state, labels or admission changed: their ids, separated by commas, or `*` for all.
pub const DEVICES: &str = "ota_devices";
/// Channel that rings when events were recorded which somebody may be watching. Carries nothing.
pub const EVENTS: &str = "ota_events";

/// Channel that rings when signed metadata changed that is the same for the whole fleet. Carries nothing.
pub const TRUST: &str = "ota_trust";

/// Stands for all devices.
pub const EVERYONE: &str = "*";

/// Ids in one notification: Postgres takes 8,000 bytes, an id with its comma has 37.
const IDS_PER_NOTIFICATION: usize = 200;
/// Above this many, dropping everything is cheaper than naming them.
const MOST_NAMED: usize = 5_000;

/// Tells every replica that these devices changed. To be called in the transaction of the change.
pub async fn devices(connection: &mut PgConnection, devices: &[DeviceId]) -> sqlx::Result<()> {
    let payloads: Vec<String> = if devices.len() > MOST_NAMED {
        vec![EVERYONE.to_owned()]
    } else {
        devices
            .chunks(IDS_PER_NOTIFICATION)
            .map(|chunk| chunk.iter().map(ToString::to_string).collect::<Vec<_>>().join(","))
            .collect()
    };
    sqlx::query!("SELECT pg_notify($1, payload) FROM unnest($2::TEXT[]) AS payload", DEVICES, &payloads)
        .execute(connection)
        .await?;
    Ok(())
}

/// Wakes everybody who watches events. To be called in the transaction that recorded them.
pub async fn events(connection: &mut PgConnection) -> sqlx::Result<()> {
    sqlx::query!("SELECT pg_notify($1, '')", EVENTS).execute(connection).await?;
    Ok(())
}

/// Tells every replica that the metadata it remembers is not the newest any more. To be called in the transaction of the
/// change.
pub async fn trust(connection: &mut PgConnection) -> sqlx::Result<()> {
    sqlx::query!("SELECT pg_notify($1, '')", TRUST).execute(connection).await?;
    Ok(())
}
