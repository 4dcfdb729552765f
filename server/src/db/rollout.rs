//! Rollouts, and the devices that may be chosen for one.

use std::{collections::BTreeMap, fmt, str::FromStr};

use chrono::{DateTime, Utc};
use ota_domain::{
    DeviceId, Hardware, PackageId, PackageName, ReleaseId, RolloutId, Scope, Selector, Sha256Digest, Version,
    deployment, device,
    release::{self, Payload},
    rollout::{Candidate, Counts, Draft, Rollout, State, Target},
};
use sqlx::{FromRow, PgConnection, Postgres, QueryBuilder, error::BoxDynError};
use uuid::Uuid;

use super::{page::PageRequest, selector};

/// A release as a rollout needs it.
#[derive(Debug)]
pub struct Wanted {
    /// Its id.
    pub release: ReleaseId,
    /// Its package.
    pub package: PackageId,
    /// Whether it may be installed.
    pub state: release::State,
    /// Hardware types it fits.
    pub hardware: Vec<Hardware>,
    /// What it installs.
    pub payload: Payload,
    /// Whether a signed targets document lists it.
    pub is_signed: bool,
}

/// Finds a release and holds it as it is until the transaction ends, so that nobody yanks or deletes it meanwhile.
pub async fn wanted(
    connection: &mut PgConnection,
    package: &PackageName,
    version: &Version,
) -> sqlx::Result<Option<Wanted>> {
    let row = sqlx::query!(
        r#"SELECT release.id AS "id: ReleaseId", release.package_id AS "package: PackageId",
                  release.state AS "state: release::State", release.hardware AS "hardware: Vec<Hardware>",
                  payload.sha256 AS "sha256: Sha256Digest", payload.size_bytes,
                  release.signed_at IS NOT NULL AS "is_signed!"
           FROM release
           JOIN package ON package.id = release.package_id
           JOIN payload ON payload.sha256 = release.payload_sha256
           WHERE package.name = $1 AND release.version = $2
           FOR SHARE OF release"#,
        package.as_str(),
        version.to_string(),
    )
    .fetch_optional(connection)
    .await?;
    Ok(row.map(|row| Wanted {
        release: row.id,
        package: row.package,
        state: row.state,
        hardware: row.hardware,
        payload: Payload { sha256: row.sha256, size_bytes: row.size_bytes.unsigned_abs() },
        is_signed: row.is_signed,
    }))
}

/// What happens to the candidates while the transaction lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    /// They may change.
    Free,
    /// They stay as they are: nobody decommissions a device after it was chosen and before it has its deployment.
    AsTheyAre,
}

/// The devices in `scope` that `target` names or describes. A device that does not exist is left out.
pub async fn candidates(
    connection: &mut PgConnection,
    target: &Target,
    scope: &Scope,
    hold: Hold,
) -> sqlx::Result<Vec<Candidate>> {
    let mut query = QueryBuilder::<Postgres>::new("SELECT id, state, hardware FROM device WHERE ");
    match target {
        Target::Devices(devices) => {
            let ids: Vec<Uuid> = devices.iter().map(|device| device.0).collect();
            query.push("id = ANY(").push_bind(ids).push(")");
        }
        Target::Selector(chosen) => {
            query.push("state = 'accepted'");
            selector::push(&mut query, "labels", chosen);
        }
        Target::All => {
            query.push("state = 'accepted'");
        }
    }
    if let Some(own) = &scope.devices {
        selector::push(&mut query, "labels", own);
    }
    if hold == Hold::AsTheyAre {
        query.push(" FOR SHARE");
    }
    let rows: Vec<(DeviceId, device::State, Hardware)> = query.build_query_as().fetch_all(connection).await?;
    Ok(rows.into_iter().map(|(id, state, hardware)| Candidate { id, state, hardware }).collect())
}

/// How many of the devices run the payload as `package`.
pub async fn count_running(
    connection: &mut PgConnection,
    devices: &[DeviceId],
    package: &PackageName,
    payload: Sha256Digest,
) -> sqlx::Result<u64> {
    let ids: Vec<Uuid> = devices.iter().map(|device| device.0).collect();
    sqlx::query_scalar!(
        r#"SELECT count(*) AS "count!"
           FROM device_running
           WHERE device_id = ANY($1) AND package = $2 AND payload_sha256 = $3"#,
        &ids,
        package.as_str(),
        payload as _,
    )
    .fetch_one(connection)
    .await
    .map(i64::unsigned_abs)
}

/// Adds an active rollout.
pub async fn insert(
    connection: &mut PgConnection,
    id: RolloutId,
    release: ReleaseId,
    target: &Target,
    creator: &str,
    now: DateTime<Utc>,
) -> sqlx::Result<()> {
    let selector = match target {
        Target::Selector(selector) => Some(selector.to_string()),
        Target::Devices(_) | Target::All => None,
    };
    sqlx::query!(
        "INSERT INTO rollout (id, release_id, selector, all_devices, state, created_at, creator)
         VALUES ($1, $2, $3, $4, 'active', $5, $6)",
        id.0,
        release.0,
        selector,
        *target == Target::All,
        now,
        creator,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// The package a rollout is of. It never changes.
pub async fn package(connection: &mut PgConnection, id: RolloutId) -> sqlx::Result<Option<PackageId>> {
    sqlx::query_scalar!(
        r#"SELECT release.package_id AS "package: PackageId"
           FROM rollout
           JOIN release ON release.id = rollout.release_id
           WHERE rollout.id = $1"#,
        id.0,
    )
    .fetch_optional(connection)
    .await
}

/// Locks a rollout and reads its state.
pub async fn lock(connection: &mut PgConnection, id: RolloutId) -> sqlx::Result<Option<State>> {
    sqlx::query_scalar!(r#"SELECT state AS "state: State" FROM rollout WHERE id = $1 FOR NO KEY UPDATE"#, id.0)
        .fetch_optional(connection)
        .await
}

/// Ends a rollout at `now`, or makes it active again.
pub async fn set_state(
    connection: &mut PgConnection,
    id: RolloutId,
    state: State,
    now: DateTime<Utc>,
) -> sqlx::Result<()> {
    let ended_at = (state != State::Active).then_some(now);
    sqlx::query!("UPDATE rollout SET state = $2, ended_at = $3 WHERE id = $1", id.0, state as State, ended_at)
        .execute(connection)
        .await?;
    Ok(())
}

/// Completes active rollouts of which no deployment is open, some at a time. Those that another transaction works on are
/// left for the next time.
pub async fn complete(connection: &mut PgConnection, now: DateTime<Utc>) -> sqlx::Result<Vec<RolloutId>> {
    const AT_A_TIME: i64 = 100;
    let open: Vec<deployment::State> = deployment::State::open().collect();
    let locked = sqlx::query_scalar!(
        "SELECT id
         FROM rollout
         WHERE state = 'active'
           AND NOT EXISTS (SELECT FROM deployment WHERE rollout_id = rollout.id AND state = ANY($1))
         ORDER BY id
         LIMIT $2
         FOR NO KEY UPDATE SKIP LOCKED",
        &open as _,
        AT_A_TIME,
    )
    .fetch_all(&mut *connection)
    .await?;
    if locked.is_empty() {
        return Ok(Vec::new());
    }
    // Looks again now that the rows are locked: a deployment may have been retried before they were.
    sqlx::query_scalar!(
        r#"UPDATE rollout
           SET state = 'completed', ended_at = $3
           WHERE id = ANY($2) AND state = 'active'
             AND NOT EXISTS (SELECT FROM deployment WHERE rollout_id = rollout.id AND state = ANY($1))
           RETURNING id AS "id: RolloutId""#,
        &open as _,
        &locked,
        now,
    )
    .fetch_all(connection)
    .await
}

/// A device of the rollout that the selector does not choose, if there is one.
pub async fn device_outside(
    connection: &mut PgConnection,
    id: RolloutId,
    selector: &Selector,
) -> sqlx::Result<Option<DeviceId>> {
    let mut sql = QueryBuilder::<Postgres>::new(
        "SELECT device.id
         FROM deployment
         JOIN device ON device.id = deployment.device_id
         WHERE deployment.rollout_id = ",
    );
    sql.push_bind(id.0).push(" AND NOT (TRUE");
    selector::push(&mut sql, "device.labels", selector);
    sql.push(") LIMIT 1").build_query_scalar().fetch_optional(connection).await
}

/// Adds that the deployment's device is in the scope.
fn push_device(sql: &mut QueryBuilder<Postgres>, scope: &Scope) {
    if let Some(selector) = &scope.devices {
        sql.push(" AND EXISTS (SELECT FROM device WHERE device.id = deployment.device_id");
        selector::push(sql, "device.labels", selector);
        sql.push(")");
    }
}

/// The devices of a rollout that are in the scope, in the order of their ids.
async fn devices(connection: &mut PgConnection, id: RolloutId, scope: &Scope) -> sqlx::Result<Vec<DeviceId>> {
    let mut sql = QueryBuilder::<Postgres>::new("SELECT device_id FROM deployment WHERE rollout_id = ");
    sql.push_bind(id.0);
    push_device(&mut sql, scope);
    sql.push(" ORDER BY device_id").build_query_scalar().fetch_all(connection).await
}

/// The deployments of these rollouts, on devices that are in the scope, by state.
async fn counts(
    connection: &mut PgConnection,
    ids: &[Uuid],
    scope: &Scope,
) -> sqlx::Result<BTreeMap<RolloutId, Counts>> {
    let mut sql =
        QueryBuilder::<Postgres>::new("SELECT rollout_id, state, count(*) FROM deployment WHERE rollout_id = ANY(");
    sql.push_bind(ids).push(")");
    push_device(&mut sql, scope);
    sql.push(" GROUP BY rollout_id, state");
    let rows: Vec<(RolloutId, deployment::State, i64)> = sql.build_query_as().fetch_all(connection).await?;
    let mut counts: BTreeMap<RolloutId, Counts> = BTreeMap::new();
    for (rollout, state, count) in rows {
        counts.entry(rollout).or_default().add(state, count.unsigned_abs());
    }
    Ok(counts)
}

/// A rollout's row with its release's name.
#[derive(FromRow)]
struct Row {
    id: RolloutId,
    package: PackageName,
    version: Version,
    selector: Option<String>,
    all_devices: bool,
    state: State,
    created_at: DateTime<Utc>,
    creator: String,
    ended_at: Option<DateTime<Utc>>,
}

impl Row {
    /// The rollout, without its counts and the devices that were named.
    fn rollout(self) -> sqlx::Result<Rollout> {
        let target = match (self.selector, self.all_devices) {
            (Some(selector), _) => {
                Target::Selector(selector.parse().map_err(|source: ota_domain::selector::ParseSelectorError| {
                    sqlx::Error::ColumnDecode { index: "selector".to_owned(), source: BoxDynError::from(source) }
                })?)
            }
            (None, true) => Target::All,
            (None, false) => Target::Devices(Vec::new()),
        };
        Ok(Rollout {
            id: self.id,
            draft: Draft { package: self.package, version: self.version, target },
            state: self.state,
            counts: Counts::default(),
            created_at: self.created_at,
            creator: self.creator,
            ended_at: self.ended_at,
        })
    }
}

/// A statement that reads rollouts of packages and with devices that are in the scope, up to its further conditions.
fn select(scope: &Scope) -> QueryBuilder<Postgres> {
    let mut sql = QueryBuilder::new(
        "SELECT rollout.id, package.name AS package, release.version, rollout.selector, rollout.all_devices,
                rollout.state, rollout.created_at, rollout.creator, rollout.ended_at
         FROM rollout
         JOIN release ON release.id = rollout.release_id
         JOIN package ON package.id = release.package_id
         WHERE TRUE",
    );
    if let Some(prefix) = &scope.packages {
        sql.push(" AND starts_with(package.name, ").push_bind(prefix.as_str().to_owned()).push(")");
    }
    if scope.devices.is_some() {
        sql.push(" AND EXISTS (SELECT FROM deployment WHERE deployment.rollout_id = rollout.id");
        push_device(&mut sql, scope);
        sql.push(")");
    }
    sql
}

/// Reads a rollout that is in the scope, with its counts and, where they were named, its devices.
pub async fn get(connection: &mut PgConnection, id: RolloutId, scope: &Scope) -> sqlx::Result<Option<Rollout>> {
    let mut sql = select(scope);
    sql.push(" AND rollout.id = ").push_bind(id.0);
    let row: Option<Row> = sql.build_query_as().fetch_optional(&mut *connection).await?;
    let Some(mut rollout) = row.map(Row::rollout).transpose()? else { return Ok(None) };
    rollout.counts = counts(connection, &[id.0], scope).await?.remove(&id).unwrap_or_default();
    if let Target::Devices(named) = &mut rollout.draft.target {
        *named = devices(connection, id, scope).await?;
    }
    Ok(Some(rollout))
}

/// Where a rollout stands in the list: by its creation, then by its id, which the caller may have chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    created_at: DateTime<Utc>,
    id: RolloutId,
}

impl Key {
    /// The key of a rollout that was read from the database.
    #[must_use]
    pub fn of(rollout: &Rollout) -> Self {
        Self { created_at: rollout.created_at, id: rollout.id }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.created_at.timestamp_micros(), self.id)
    }
}

/// The text is no key of the list of rollouts.
#[derive(Debug, PartialEq, Eq)]
pub struct ParseKeyError;

impl FromStr for Key {
    type Err = ParseKeyError;

    fn from_str(text: &str) -> Result<Self, ParseKeyError> {
        let (micros, id) = text.split_once('.').ok_or(ParseKeyError)?;
        let micros = micros.parse().map_err(|_| ParseKeyError)?;
        let created_at = DateTime::from_timestamp_micros(micros).ok_or(ParseKeyError)?;
        Ok(Self { created_at, id: id.parse().map_err(|_| ParseKeyError)? })
    }
}

/// Reads a page of rollouts that are in the scope, newest first, with their counts. Devices that were named are left out:
/// there may be 10,000 in each.
pub async fn list(connection: &mut PgConnection, page: &PageRequest<Key>, scope: &Scope) -> sqlx::Result<Vec<Rollout>> {
    let mut sql = select(scope);
    if let Some(after) = page.after {
        sql.push(" AND (rollout.created_at, rollout.id) < (").push_bind(after.created_at).push(", ");
        sql.push_bind(after.id.0).push(")");
    }
    sql.push(" ORDER BY rollout.created_at DESC, rollout.id DESC LIMIT ").push_bind(page.limit());
    let rows: Vec<Row> = sql.build_query_as().fetch_all(&mut *connection).await?;
    let mut rollouts = rows.into_iter().map(Row::rollout).collect::<sqlx::Result<Vec<_>>>()?;
    let ids: Vec<Uuid> = rollouts.iter().map(|rollout| rollout.id.0).collect();
    let counts = counts(connection, &ids, scope).await?;
    for rollout in &mut rollouts {
        rollout.counts = counts.get(&rollout.id).copied().unwrap_or_default();
    }
    Ok(rollouts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_as_it_is_written() {
        let key = Key { created_at: DateTime::UNIX_EPOCH, id: RolloutId(Uuid::nil()) };
        assert_eq!(key.to_string().parse(), Ok(key));
        for bad in ["", ".", "1", "x.00000000-0000-0000-0000-000000000000", "1.x", "99999999999999999999.x"] {
            assert_eq!(bad.parse::<Key>(), Err(ParseKeyError), "{bad}");
        }
    }
}
