//! What machines are made of, by their own account.

use chrono::{DateTime, Utc};
use ota_domain::{DeviceId, Sha256Digest, inventory::Inventory};
use sqlx::{PgConnection, types::Json};

/// The checksum of the inventory that is kept of a device.
pub async fn checksum(connection: &mut PgConnection, device: DeviceId) -> sqlx::Result<Option<Sha256Digest>> {
    sqlx::query_scalar!(r#"SELECT inventory_sha256 AS "sha256: Sha256Digest" FROM device WHERE id = $1"#, device.0)
        .fetch_optional(connection)
        .await
        .map(Option::flatten)
}

/// Keeps the inventory of a device, unless one with this checksum is kept already.
pub async fn put(
    connection: &mut PgConnection,
    device: DeviceId,
    sha256: Sha256Digest,
    inventory: &Inventory,
    now: DateTime<Utc>,
) -> sqlx::Result<()> {
    sqlx::query!(
        "UPDATE device
         SET inventory = $3, inventory_sha256 = $2, inventory_at = $4
         WHERE id = $1 AND inventory_sha256 IS DISTINCT FROM $2",
        device.0,
        sha256 as _,
        Json(inventory) as _,
        now,
    )
    .execute(connection)
    .await?;
    Ok(())
}
