//! Thousands of devices, written straight into the database: enrolling each would take longer than what is measured.

use anyhow::Context as _;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use ota_domain::{DeviceId, Sha256Digest, release::Payload};
use ota_e2e::{TestKey, device::session};
use sqlx::PgPool;
use tonic::{
    metadata::{Ascii, MetadataValue},
    transport::Channel,
};
use uuid::Uuid;

use crate::product::Product;

/// What every device of the fleet runs.
pub(crate) const RUNNING: (&str, &str, [u8; 32]) = ("gateway-fw", "1.0.0", [7; 32]);

/// What some of them are about to run.
const NEXT_VERSION: &str = "1.1.0";

/// Rows in one statement.
const BATCH: usize = 10_000;

/// Sessions that are begun at once.
const AT_ONCE: usize = 64;

/// A registered device.
#[derive(Debug, Clone)]
pub(crate) struct Device {
    /// Its id.
    pub(crate) id: DeviceId,
    /// Its key.
    pub(crate) key: TestKey,
    /// The header it sends.
    pub(crate) authorization: MetadataValue<Ascii>,
}

/// Registers `count` accepted devices that run [`RUNNING`], as if long ago, and begins a session of each.
pub(crate) async fn register(product: &Product, count: usize) -> anyhow::Result<Vec<Device>> {
    let keys = insert(&product.database, count).await?;
    begin_all(product, keys).await
}

/// Begins a session of each of these devices.
pub(crate) async fn begin_all(product: &Product, keys: Vec<(DeviceId, TestKey)>) -> anyhow::Result<Vec<Device>> {
    let channel = product.channel().await?;
    let devices = stream::iter(keys).map(|(id, key)| begin(channel.clone(), id, key)).buffered(AT_ONCE);
    devices.try_collect().await
}

async fn begin(channel: Channel, id: DeviceId, key: TestKey) -> anyhow::Result<Device> {
    let bearer = session(&channel, &id.to_string(), &key).await?;
    let header = format!("Bearer {}", bearer.token().context("a session has a token")?);
    let mut authorization: MetadataValue<Ascii> = header.parse().context("a session is no header value")?;
    // As the agent does.
    authorization.set_sensitive(true);
    Ok(Device { id, key, authorization })
}

/// Registers `count` accepted devices that run [`RUNNING`], as if long ago.
pub(crate) async fn insert(database: &PgPool, count: usize) -> anyhow::Result<Vec<(DeviceId, TestKey)>> {
    let token = Uuid::now_v7();
    sqlx::query(
        "INSERT INTO enroll_token (id, secret_sha256, max_uses, expires_at, approval_required, created_at, creator)
         VALUES ($1, sha256('bench'), 1, now(), FALSE, now(), 'server')",
    )
    .bind(token)
    .execute(database)
    .await?;
    let mut devices = Vec::with_capacity(count);
    for start in (0..count).step_by(BATCH) {
        let batch = BATCH.min(count - start);
        let mut ids = Vec::with_capacity(batch);
        let mut keys = Vec::with_capacity(batch);
        for _ in 0..batch {
            let (id, key) = (Uuid::now_v7(), TestKey::generate());
            ids.push(id);
            keys.push(key.public().as_spki().to_vec());
            devices.push((DeviceId(id), key));
        }
        // The sweep looks at what changed lately, and of a fleet at rest nothing did.
        sqlx::query(
            "INSERT INTO device (id, state, hardware, public_key, enroll_token_id, created_at, changed_at)
             SELECT id, 'accepted', 'bench', public_key, $3, now() - INTERVAL '1 day', now() - INTERVAL '1 day'
             FROM unnest($1::UUID[], $2::BYTEA[]) AS new (id, public_key)",
        )
        .bind(&ids)
        .bind(&keys)
        .bind(token)
        .execute(database)
        .await?;
        let (package, version, payload) = RUNNING;
        sqlx::query(
            "INSERT INTO device_running (device_id, package, version, payload_sha256, since)
             SELECT id, $2, $3, $4, now() - INTERVAL '1 day'
             FROM unnest($1::UUID[]) AS new (id)",
        )
        .bind(&ids)
        .bind(package)
        .bind(version)
        .bind(payload.as_slice())
        .execute(database)
        .await?;
    }
    sqlx::query("ANALYZE device, device_running").execute(database).await?;
    Ok(devices)
}

/// Gives these devices an open deployment of a payload, in the middle of its download.
pub(crate) async fn deploy(database: &PgPool, devices: &[Device], payload: Payload) -> anyhow::Result<()> {
    let (package, release, rollout) = (Uuid::now_v7(), Uuid::now_v7(), Uuid::now_v7());
    let sha256 = payload.sha256.0.as_slice();
    let mut transaction = database.begin().await?;
    sqlx::query("INSERT INTO payload (sha256, size_bytes, created_at) VALUES ($1, $2, now())")
        .bind(sha256)
        .bind(i64::try_from(payload.size_bytes)?)
        .execute(&mut *transaction)
        .await?;
    sqlx::query("INSERT INTO package (id, name, last_release_counter, created_at) VALUES ($1, $2, 1, now())")
        .bind(package)
        .bind(RUNNING.0)
        .execute(&mut *transaction)
        .await?;
    sqlx::query(
        "INSERT INTO release
             (id, package_id, version, release_counter, installer, payload_sha256, state, created_at, creator)
         VALUES ($1, $2, $3, 1, 'file', $4, 'published', now(), 'server')",
    )
    .bind(release)
    .bind(package)
    .bind(NEXT_VERSION)
    .bind(sha256)
    .execute(&mut *transaction)
    .await?;
    sqlx::query(
        "INSERT INTO rollout (id, release_id, all_devices, state, created_at, creator)
         VALUES ($1, $2, TRUE, 'active', now(), 'server')",
    )
    .bind(rollout)
    .bind(release)
    .execute(&mut *transaction)
    .await?;
    let ids: Vec<_> = devices.iter().map(|_| Uuid::now_v7()).collect();
    let device_ids: Vec<_> = devices.iter().map(|device| device.id.0).collect();
    sqlx::query(
        "INSERT INTO deployment (id, rollout_id, device_id, release_id, package_id, state, attempt, created_at,
                                 updated_at, changed_at)
         SELECT id, $3, device_id, $4, $5, 'downloading', 1, now(), now(), now() - INTERVAL '1 day'
         FROM unnest($1::UUID[], $2::UUID[]) AS new (id, device_id)",
    )
    .bind(&ids)
    .bind(&device_ids)
    .bind(rollout)
    .bind(release)
    .bind(package)
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await?;
    Ok(())
}

/// A payload that exists in name only.
pub(crate) fn imaginary_payload() -> Payload {
    Payload { sha256: Sha256Digest([9; 32]), size_bytes: 1 << 20 }
}
