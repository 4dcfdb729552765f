//! Rollouts, and the devices that may be chosen for one.

use std::{collections::BTreeMap, fmt, str::FromStr};

use chrono::{DateTime, Utc};
use ota_domain::{
    DeviceId, Hardware, PackageId, PackageName, ReleaseId, RolloutId, Sha256Digest, Version, deployment, device,
    release::{self, Payload},
    rollout::{Candidate, Counts, Draft, Rollout, State, Target},
};
use sqlx::{PgConnection, Postgres, QueryBuilder, error::BoxDynError};
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

/// The devices that `target` names or describes. A device that does not exist is left out.
pub async fn candidates(connection: &mut PgConnection, target: &Target, hold: Hold) -> sqlx::Result<Vec<Candidate>> {
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

/// The devices of a rollout, in the order of their ids.
async fn devices(connection: &mut PgConnection, id: RolloutId) -> sqlx::Result<Vec<DeviceId>> {
    sqlx::query_scalar!(
        r#"SELECT device_id AS "device: DeviceId" FROM deployment WHERE rollout_id = $1 ORDER BY device_id"#,
        id.0,
    )
    .fetch_all(connection)
    .await
}

/// The deployments of these rollouts by state.
async fn counts(connection: &mut PgConnection, ids: &[Uuid]) -> sqlx::Result<BTreeMap<RolloutId, Counts>> {
    let rows = sqlx::query!(
        r#"SELECT rollout_id AS "rollout: RolloutId", state AS "state: deployment::State", count(*) AS "count!"
           FROM deployment
           WHERE rollout_id = ANY($1)
           GROUP BY rollout_id, state"#,
        ids,
    )
    .fetch_all(connection)
    .await?;
    let mut counts: BTreeMap<RolloutId, Counts> = BTreeMap::new();
    for row in rows {
        counts.entry(row.rollout).or_default().add(row.state, row.count.unsigned_abs());
    }
    Ok(counts)
}

/// A rollout's row with its release's name.
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

/// Reads a rollout with its counts and, where they were named, its devices.
pub async fn get(connection: &mut PgConnection, id: RolloutId) -> sqlx::Result<Option<Rollout>> {
    let row = sqlx::query_as!(
        Row,
        r#"SELECT rollout.id AS "id: RolloutId", package.name AS "package: PackageName",
                  release.version AS "version: Version", rollout.selector, rollout.all_devices,
                  rollout.state AS "state: State", rollout.created_at, rollout.creator, rollout.ended_at
           FROM rollout
           JOIN release ON release.id = rollout.release_id
           JOIN package ON package.id = release.package_id
           WHERE rollout.id = $1"#,
        id.0,
    )
    .fetch_optional(&mut *connection)
    .await?;
    let Some(mut rollout) = row.map(Row::rollout).transpose()? else { return Ok(None) };
    rollout.counts = counts(connection, &[id.0]).await?.remove(&id).unwrap_or_default();
    if let Target::Devices(named) = &mut rollout.draft.target {
        *named = devices(connection, id).await?;
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

/// Reads a page of rollouts, newest first, with their counts. Devices that were named are left out: there may be 10,000
/// in each.
pub async fn list(connection: &mut PgConnection, page: &PageRequest<Key>) -> sqlx::Result<Vec<Rollout>> {
    let rows = sqlx::query_as!(
        Row,
        r#"SELECT rollout.id AS "id: RolloutId", package.name AS "package: PackageName",
                  release.version AS "version: Version", rollout.selector, rollout.all_devices,
                  rollout.state AS "state: State", rollout.created_at, rollout.creator, rollout.ended_at
           FROM rollout
           JOIN release ON release.id = rollout.release_id
           JOIN package ON package.id = release.package_id
           WHERE $1::TIMESTAMPTZ IS NULL OR (rollout.created_at, rollout.id) < ($1, $2)
           ORDER BY rollout.created_at DESC, rollout.id DESC
           LIMIT $3"#,
        page.after.map(|after| after.created_at),
        page.after.map(|after| after.id.0),
        page.limit(),
    )
    .fetch_all(&mut *connection)
    .await?;
    let mut rollouts = rows.into_iter().map(Row::rollout).collect::<sqlx::Result<Vec<_>>>()?;
    let ids: Vec<Uuid> = rollouts.iter().map(|rollout| rollout.id.0).collect();
    let counts = counts(connection, &ids).await?;
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
