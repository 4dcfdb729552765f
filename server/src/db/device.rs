//! Devices, as operators see and change them.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use ota_domain::{
    DeviceId, EnrollTokenId, Hardware, Labels, PackageName, Selector, Sha256Digest, TrustFault, Version,
    device::{Device, Field, Presence, Running, RunningSince, State},
    enrollment::Enrollment,
    filter::Filter,
    inventory::Inventory,
};
use sqlx::{FromRow, PgConnection, Postgres, QueryBuilder, types::Json};
use uuid::Uuid;

use super::{page::PageRequest, selector};
use crate::ca::DeviceKey;

/// A device without what it runs, which comes from a table of its own.
#[derive(FromRow)]
struct Row {
    id: DeviceId,
    state: State,
    hardware: Hardware,
    hardware_id: String,
    labels: Json<Labels>,
    inventory: Option<Json<Inventory>>,
    inventory_at: Option<DateTime<Utc>>,
    created_at: DateTime<Utc>,
    enroll_token_id: EnrollTokenId,
    revision: i64,
    last_seen_at: Option<DateTime<Utc>>,
    agent_version: Option<String>,
    key_sha256: Option<Sha256Digest>,
    certificate_expires_at: Option<DateTime<Utc>>,
    identity_conflicts: Vec<Uuid>,
    trust_fault: Option<TrustFault>,
}

impl Row {
    fn into_device(self, running: Vec<RunningSince>) -> Device {
        let presence = self.last_seen_at.zip(self.agent_version);
        Device {
            id: self.id,
            state: self.state,
            hardware: self.hardware,
            hardware_id: self.hardware_id,
            labels: self.labels.0,
            running,
            presence: presence.map(|(last_seen_at, agent_version)| Presence { last_seen_at, agent_version }),
            inventory: self.inventory.map(|inventory| inventory.0),
            inventory_at: self.inventory_at,
            created_at: self.created_at,
            enroll_token: self.enroll_token_id,
            revision: self.revision,
            key_sha256: self.key_sha256,
            certificate_expires_at: self.certificate_expires_at,
            identity_conflicts: self.identity_conflicts.into_iter().map(DeviceId).collect(),
            trust_fault: self.trust_fault,
        }
    }
}

/// Reads a device with its inventory.
pub async fn get(connection: &mut PgConnection, id: DeviceId) -> sqlx::Result<Option<Device>> {
    let row = sqlx::query_as!(
        Row,
        r#"SELECT device.id AS "id: DeviceId", state AS "state: State", hardware AS "hardware: Hardware", hardware_id,
                  labels AS "labels: Json<Labels>", inventory AS "inventory: Json<Inventory>", inventory_at, created_at,
                  enroll_token_id AS "enroll_token_id: EnrollTokenId", revision,
                  device_presence.last_seen_at AS "last_seen_at?", device_presence.agent_version AS "agent_version?",
                  key_sha256 AS "key_sha256: Sha256Digest", certificate_expires_at,
                  identity_conflicts(device) AS "identity_conflicts!", trust_fault AS "trust_fault: TrustFault"
           FROM device
           LEFT JOIN device_presence ON device_presence.device_id = device.id
           WHERE device.id = $1"#,
        id.0,
    )
    .fetch_optional(&mut *connection)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let running = running(connection, &[id]).await?.remove(&id).unwrap_or_default();
    Ok(Some(row.into_device(running)))
}

/// Which devices to list.
#[derive(Debug, Clone)]
pub struct Query {
    /// Those whose labels all of these choose.
    pub selectors: Vec<Selector>,
    /// Those that pass.
    pub filter: Filter<Field>,
    /// A device heard of at this time or later is online.
    pub online_since: DateTime<Utc>,
}

/// Reads a page of devices, newest first, without their inventories.
pub async fn list(
    connection: &mut PgConnection,
    query: &Query,
    page: &PageRequest<DeviceId>,
) -> sqlx::Result<Vec<Device>> {
    let mut sql = QueryBuilder::<Postgres>::new(
        "SELECT device.id, state, hardware, hardware_id, labels, NULL::JSONB AS inventory, inventory_at, created_at,
                enroll_token_id, revision, last_seen_at, agent_version, key_sha256, certificate_expires_at,
                identity_conflicts(device) AS identity_conflicts, trust_fault
         FROM device
         LEFT JOIN device_presence ON device_presence.device_id = device.id
         WHERE TRUE",
    );
    if let Some(after) = page.after {
        sql.push(" AND device.id < ").push_bind(after.0);
    }
    for chosen in &query.selectors {
        selector::push(&mut sql, "labels", chosen);
    }
    for condition in query.filter.conditions() {
        match condition.field {
            Field::State => sql.push(" AND state::TEXT"),
            Field::Hardware => sql.push(" AND hardware"),
            Field::HardwareId => sql.push(" AND hardware_id"),
            Field::Online => {
                sql.push(" AND COALESCE(last_seen_at >= ").push_bind(query.online_since).push(", FALSE)::TEXT")
            }
        };
        sql.push(if condition.negated { " <> ALL(" } else { " = ANY(" });
        sql.push_bind(condition.values.clone()).push(")");
    }
    sql.push(" ORDER BY device.id DESC LIMIT ").push_bind(page.limit());
    let rows: Vec<Row> = sql.build_query_as().fetch_all(&mut *connection).await?;
    let ids: Vec<DeviceId> = rows.iter().map(|row| row.id).collect();
    let mut running = running(connection, &ids).await?;
    Ok(rows
        .into_iter()
        .map(|row| {
            let running = running.remove(&row.id).unwrap_or_default();
            row.into_device(running)
        })
        .collect())
}

/// What these devices run, by package.
async fn running(
    connection: &mut PgConnection,
    devices: &[DeviceId],
) -> sqlx::Result<HashMap<DeviceId, Vec<RunningSince>>> {
    let ids: Vec<_> = devices.iter().map(|device| device.0).collect();
    let rows = sqlx::query!(
        r#"SELECT device_id AS "device_id: DeviceId", package AS "package: PackageName", version AS "version: Version",
                  payload_sha256 AS "payload: Sha256Digest", since
           FROM device_running
           WHERE device_id = ANY($1)
           ORDER BY device_id, package COLLATE "C""#,
        &ids,
    )
    .fetch_all(connection)
    .await?;
    let mut running: HashMap<_, Vec<_>> = HashMap::new();
    for row in rows {
        let release = Running { package: row.package, version: row.version, payload: row.payload };
        running.entry(row.device_id).or_default().push(RunningSince { running: release, since: row.since });
    }
    Ok(running)
}

/// A device's labels.
pub async fn labels(connection: &mut PgConnection, id: DeviceId) -> sqlx::Result<Option<Labels>> {
    let labels = sqlx::query_scalar!(r#"SELECT labels AS "labels: Json<Labels>" FROM device WHERE id = $1"#, id.0);
    Ok(labels.fetch_optional(connection).await?.map(|labels| labels.0))
}

/// Those of the devices that the selector does not choose.
pub async fn outside(
    connection: &mut PgConnection,
    devices: &[DeviceId],
    selector: &Selector,
) -> sqlx::Result<Vec<DeviceId>> {
    let ids: Vec<_> = devices.iter().map(|device| device.0).collect();
    let mut sql = QueryBuilder::<Postgres>::new("SELECT id FROM device WHERE id = ANY(");
    sql.push_bind(ids).push(") AND NOT (TRUE");
    selector::push(&mut sql, "labels", selector);
    sql.push(")").build_query_scalar().fetch_all(connection).await
}

/// What an operator's change starts from.
#[derive(Debug)]
pub struct Standing {
    /// Where the device stands in its admission.
    pub state: State,
    /// Its labels.
    pub labels: Labels,
    /// Counts the operators' changes.
    pub revision: i64,
}

/// Reads what a change starts from, and keeps others from changing the device until the transaction ends.
pub async fn lock(connection: &mut PgConnection, id: DeviceId) -> sqlx::Result<Option<Standing>> {
    let row = sqlx::query!(
        r#"SELECT state AS "state: State", labels AS "labels: Json<Labels>", revision
           FROM device
           WHERE id = $1
           FOR NO KEY UPDATE"#,
        id.0,
    )
    .fetch_optional(connection)
    .await?;
    Ok(row.map(|row| Standing { state: row.state, labels: row.labels.0, revision: row.revision }))
}

/// Changes a device's labels.
pub async fn set_labels(connection: &mut PgConnection, id: DeviceId, labels: &Labels) -> sqlx::Result<()> {
    sqlx::query!(
        "UPDATE device SET labels = $2, revision = revision + 1, changed_at = clock_timestamp() WHERE id = $1",
        id.0,
        Json(labels) as _,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Changes where a device stands in its admission.
pub async fn set_state(connection: &mut PgConnection, id: DeviceId, state: State) -> sqlx::Result<()> {
    sqlx::query!(
        "UPDATE device SET state = $2, revision = revision + 1, changed_at = clock_timestamp() WHERE id = $1",
        id.0,
        state as State,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Notes why the device does not believe the server, or that it does. Whether that is news.
pub async fn set_trust_fault(
    connection: &mut PgConnection,
    id: DeviceId,
    fault: Option<TrustFault>,
) -> sqlx::Result<bool> {
    let changed = sqlx::query!(
        "UPDATE device SET trust_fault = $2, changed_at = clock_timestamp()
         WHERE id = $1 AND trust_fault IS DISTINCT FROM $2",
        id.0,
        fault.map(TrustFault::as_str),
    )
    .execute(connection)
    .await?;
    Ok(changed.rows_affected() == 1)
}

/// Forgets a device, with its deployments and everything else but its events.
pub async fn delete(connection: &mut PgConnection, id: DeviceId) -> sqlx::Result<()> {
    sqlx::query!("DELETE FROM device WHERE id = $1", id.0).execute(connection).await?;
    Ok(())
}

/// The device's key.
pub async fn key(connection: &mut PgConnection, id: DeviceId) -> sqlx::Result<Option<DeviceKey>> {
    let row = sqlx::query!("SELECT public_key FROM device WHERE id = $1", id.0).fetch_optional(connection).await?;
    Ok(row.and_then(|row| DeviceKey::from_stored(&row.public_key?)))
}

/// The device that is known by this key.
pub async fn by_key(connection: &mut PgConnection, key: &DeviceKey) -> sqlx::Result<Option<(DeviceId, State)>> {
    let row = sqlx::query!(
        r#"SELECT id AS "id: DeviceId", state AS "state: State" FROM device WHERE key_sha256 = $1"#,
        &key.sha256().0[..],
    )
    .fetch_optional(connection)
    .await?;
    Ok(row.map(|row| (row.id, row.state)))
}

/// Adds a device that starts in `state` with `labels`. Says whether it did: not when its key is another's.
pub async fn insert(
    connection: &mut PgConnection,
    id: DeviceId,
    enrollment: &Enrollment,
    key: &DeviceKey,
    state: State,
    labels: &Labels,
    now: DateTime<Utc>,
) -> sqlx::Result<bool> {
    let added = sqlx::query!(
        "INSERT INTO device (id, state, hardware, hardware_id, labels, public_key, enroll_token_id, created_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
         ON CONFLICT ON CONSTRAINT device_key_key DO NOTHING",
        id.0,
        state as State,
        enrollment.hardware.as_str(),
        enrollment.hardware_id,
        Json(labels) as _,
        key.as_spki(),
        enrollment.token.0,
        now,
    )
    .execute(connection)
    .await?;
    Ok(added.rows_affected() == 1)
}

/// Notes until when the device's newest certificate is good.
pub async fn set_certificate_expiry(
    connection: &mut PgConnection,
    id: DeviceId,
    expires_at: DateTime<Utc>,
) -> sqlx::Result<()> {
    sqlx::query!("UPDATE device SET certificate_expires_at = $2 WHERE id = $1", id.0, expires_at)
        .execute(connection)
        .await?;
    Ok(())
}

/// Other devices, pending or accepted, that say they are the machine that its maker calls this; the newest first. Nobody
/// else finds or adds one until the transaction ends.
pub async fn same_machine(connection: &mut PgConnection, hardware_id: &str) -> sqlx::Result<Vec<DeviceId>> {
    if hardware_id.is_empty() {
        return Ok(Vec::new());
    }
    sqlx::query!("SELECT pg_advisory_xact_lock(hashtextextended($1, 1))", hardware_id)
        .execute(&mut *connection)
        .await?;
    sqlx::query_scalar!(
        r#"SELECT id AS "id: DeviceId" FROM device
           WHERE hardware_id = $1 AND hardware_id <> '' AND state IN ('pending', 'accepted')
           ORDER BY id DESC"#,
        hardware_id,
    )
    .fetch_all(connection)
    .await
}
