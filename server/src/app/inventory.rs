//! What a device says its machine is made of.

use chrono::{DateTime, Utc};
use ota_domain::{DeviceId, Sha256Digest, Violations, inventory::Inventory};

use super::{App, Result};
use crate::db;

/// Compares the checksum with what is kept, or keeps the inventory that came with it. Whether the inventory is wanted.
///
/// The checksum is in the device's own reckoning: it tells changes apart and proves nothing.
///
/// # Errors
/// `Invalid` with everything in the inventory that is too long or too many.
pub async fn report(
    app: &App,
    device: DeviceId,
    sha256: Sha256Digest,
    inventory: Option<Inventory>,
    now: DateTime<Utc>,
) -> Result<bool> {
    let Some(inventory) = inventory else {
        let kept = db::inventory::checksum(&mut *app.pool.acquire().await?, device).await?;
        return Ok(kept != Some(sha256));
    };
    let mut violations = Violations::default();
    inventory.check(&mut violations);
    violations.finish(Some(()))?;
    db::inventory::put(&mut *app.pool.acquire().await?, device, sha256, &inventory, now).await?;
    Ok(false)
}
