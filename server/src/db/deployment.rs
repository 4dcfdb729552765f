//! Deployments, and the open ones' rules: one per device and package, and an end is final.
//!
//! Lock order, so that no two transactions wait for each other: the package ([`lock_package`]), then the rollout's row,
//! then deployments' rows.

use chrono::{DateTime, Utc};
use ota_domain::{
    DeploymentId, DeviceId, PackageId, PackageName, ReleaseId, RolloutId, Scope, Selector, Version,
    deployment::{Deployment, Failure, Field, State},
    device,
    event::Kind,
    filter::Filter,
    release,
};
use sqlx::{FromRow, PgConnection, Postgres, QueryBuilder, error::BoxDynError};
use uuid::Uuid;

use super::{page::PageRequest, selector};
use crate::auth::Caller;

mod progress;

pub use progress::{Reported, enter, refresh, reported, standing};

/// Proof that no other transaction opens deployments of the package, or ends many of them at once.
///
/// Two such transactions would meet the same rows in different orders and wait for each other, or both find a device free
/// and break the rule of one open deployment. A lock on each device would be 100,000 locks and still leave the order to
/// get right; this is one. Reports and grants do not take it: each changes a single row.
#[derive(Debug)]
pub struct PackageLock(PackageId);

/// Waits for the package's lock and holds it until the transaction ends.
pub async fn lock_package(connection: &mut PgConnection, package: PackageId) -> sqlx::Result<PackageLock> {
    sqlx::query!("SELECT pg_advisory_xact_lock(hashtextextended('ota.package.' || $1::TEXT, 0))", package.to_string())
        .execute(connection)
        .await?;
    Ok(PackageLock(package))
}

/// Queues a deployment of the release for each device. None of them may have an open one of the package.
pub async fn queue(
    connection: &mut PgConnection,
    lock: &PackageLock,
    rollout: RolloutId,
    release: ReleaseId,
    devices: &[DeviceId],
    now: DateTime<Utc>,
) -> sqlx::Result<()> {
    let ids: Vec<Uuid> = devices.iter().map(|_| Uuid::now_v7()).collect();
    let devices: Vec<Uuid> = devices.iter().map(|device| device.0).collect();
    sqlx::query!(
        "INSERT INTO deployment (id, rollout_id, device_id, release_id, package_id, state, created_at, updated_at)
         SELECT id, $3, device_id, $4, $5, 'queued', $6, $6
         FROM unnest($1::UUID[], $2::UUID[]) AS queued (id, device_id)",
        &ids,
        &devices,
        rollout.0,
        release.0,
        lock.0.0,
        now,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// The devices' open deployments of the package.
pub async fn open_of_devices(
    connection: &mut PgConnection,
    lock: &PackageLock,
    devices: &[DeviceId],
) -> sqlx::Result<Vec<DeploymentId>> {
    let devices: Vec<Uuid> = devices.iter().map(|device| device.0).collect();
    sqlx::query_scalar!(
        r#"SELECT id AS "id: DeploymentId"
           FROM deployment
           WHERE device_id = ANY($1) AND package_id = $2 AND ended_at IS NULL"#,
        &devices,
        lock.0.0,
    )
    .fetch_all(connection)
    .await
}

/// The rollout's deployments in one of `states`.
pub async fn of_rollout(
    connection: &mut PgConnection,
    _lock: &PackageLock,
    rollout: RolloutId,
    states: &[State],
) -> sqlx::Result<Vec<DeploymentId>> {
    sqlx::query_scalar!(
        r#"SELECT id AS "id: DeploymentId" FROM deployment WHERE rollout_id = $1 AND state = ANY($2)"#,
        rollout.0,
        states as _,
    )
    .fetch_all(connection)
    .await
}

/// How the server ends deployments.
#[derive(Debug)]
pub struct End<'a> {
    /// The state they take.
    pub state: State,
    /// What is recorded of each.
    pub kind: Kind,
    /// A fact that is recorded with it, as its name and text.
    pub detail: Option<(&'a str, String)>,
    /// When.
    pub now: DateTime<Utc>,
}

/// Ends those of the deployments that are still in one of `states`, and records it. Answers whose they were.
pub async fn end(
    connection: &mut PgConnection,
    caller: &Caller,
    deployments: &[DeploymentId],
    states: &[State],
    end: End<'_>,
) -> sqlx::Result<Vec<DeviceId>> {
    if deployments.is_empty() {
        return Ok(Vec::new());
    }
    let ids: Vec<Uuid> = deployments.iter().map(|deployment| deployment.0).collect();
    let details: serde_json::Map<_, _> =
        end.detail.into_iter().map(|(key, value)| (key.to_owned(), serde_json::Value::String(value))).collect();
    // One statement, so that 100,000 events cost no round trip each.
    sqlx::query_scalar!(
        r#"WITH ended AS (
               UPDATE deployment
               SET state = $3, ended_at = $4, updated_at = $4, changed_at = clock_timestamp()
               WHERE id = ANY($1) AND state = ANY($2)
               RETURNING id, device_id, rollout_id, attempt
           )
           INSERT INTO event (kind, actor, actor_display_name, subject, device_id, rollout_id, details, request_id,
                              source_address)
           SELECT $5, $6, $7, 'deployments/' || id, device_id, rollout_id,
                  $8 || jsonb_build_object('attempt', attempt::TEXT), $9, $10
           FROM ended
           RETURNING device_id AS "device_id!: DeviceId""#,
        &ids,
        states as _,
        end.state as State,
        end.now,
        end.kind.as_str(),
        caller.principal.to_string(),
        caller.principal.display_name(),
        serde_json::Value::Object(details),
        &*caller.request_id,
        caller.source_address(),
    )
    .fetch_all(connection)
    .await
}

/// A device of one of the deployments that the selector does not choose, if there is one.
pub async fn device_outside(
    connection: &mut PgConnection,
    deployments: &[DeploymentId],
    selector: &Selector,
) -> sqlx::Result<Option<DeviceId>> {
    let ids: Vec<Uuid> = deployments.iter().map(|deployment| deployment.0).collect();
    let mut sql = QueryBuilder::<Postgres>::new(
        "SELECT device.id
         FROM deployment
         JOIN device ON device.id = deployment.device_id
         WHERE deployment.id = ANY(",
    );
    sql.push_bind(ids).push(") AND NOT (TRUE");
    selector::push(&mut sql, "device.labels", selector);
    sql.push(") LIMIT 1").build_query_scalar().fetch_optional(connection).await
}

/// What a deployment is part of. None of it ever changes.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    /// The rollout.
    pub rollout: RolloutId,
    /// The device.
    pub device: DeviceId,
    /// The release.
    pub release: ReleaseId,
    /// The release's package.
    pub package: PackageId,
}

/// Finds what a deployment is part of.
pub async fn place(connection: &mut PgConnection, id: DeploymentId) -> sqlx::Result<Option<Place>> {
    sqlx::query_as!(
        Place,
        r#"SELECT rollout_id AS "rollout: RolloutId", device_id AS "device: DeviceId",
                  release_id AS "release: ReleaseId", package_id AS "package: PackageId"
           FROM deployment
           WHERE id = $1"#,
        id.0,
    )
    .fetch_optional(connection)
    .await
}

/// Locks a deployment and reads its state.
pub async fn lock(connection: &mut PgConnection, id: DeploymentId) -> sqlx::Result<Option<State>> {
    sqlx::query_scalar!(r#"SELECT state AS "state: State" FROM deployment WHERE id = $1 FOR UPDATE"#, id.0)
        .fetch_optional(connection)
        .await
}

/// The states on which it depends whether a deployment may begin. They stay as they are until the transaction ends.
pub async fn may_begin(connection: &mut PgConnection, place: Place) -> sqlx::Result<(device::State, release::State)> {
    let row = sqlx::query!(
        r#"SELECT device.state AS "device: device::State", release.state AS "release: release::State"
           FROM device, release
           WHERE device.id = $1 AND release.id = $2
           FOR SHARE"#,
        place.device.0,
        place.release.0,
    )
    .fetch_one(connection)
    .await?;
    Ok((row.device, row.release))
}

/// Queues an ended deployment again, for its next attempt.
pub async fn queue_again(
    connection: &mut PgConnection,
    _lock: &PackageLock,
    id: DeploymentId,
    now: DateTime<Utc>,
) -> sqlx::Result<()> {
    sqlx::query!(
        "UPDATE deployment
         SET state = 'queued', sequence = 0, bytes_done = 0, ended_at = NULL, updated_at = $2,
             failure_code = NULL, failure_message = NULL, failure_log_tail = NULL, changed_at = clock_timestamp()
         WHERE id = $1",
        id.0,
        now,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Which deployments to list.
#[derive(Debug, Clone, Default)]
pub struct Query {
    /// Those of this rollout.
    pub rollout: Option<RolloutId>,
    /// Those of this device.
    pub device: Option<DeviceId>,
    /// Those of packages and devices in it.
    pub scope: Scope,
    /// Those that pass.
    pub filter: Filter<Field>,
}

impl Query {
    /// The states that pass.
    fn states(&self) -> Vec<State> {
        let passes = |state: &State| {
            self.filter
                .conditions()
                .iter()
                .filter(|condition| condition.field == Field::State)
                .all(|condition| condition.values.iter().any(|value| value == state.as_str()) != condition.negated)
        };
        State::ALL.into_iter().filter(passes).collect()
    }

    /// The packages that pass, `None` for all of them, and those that do not.
    fn packages(&self) -> (Option<Vec<String>>, Vec<String>) {
        let mut wanted: Option<Vec<String>> = None;
        let mut unwanted = Vec::new();
        for condition in self.filter.conditions().iter().filter(|condition| condition.field == Field::Package) {
            match &mut wanted {
                _ if condition.negated => unwanted.extend(condition.values.iter().cloned()),
                None => wanted = Some(condition.values.clone()),
                Some(wanted) => wanted.retain(|package| condition.values.contains(package)),
            }
        }
        (wanted, unwanted)
    }
}

/// A deployment's row with what it is called elsewhere.
#[derive(FromRow)]
struct Row {
    id: DeploymentId,
    rollout: RolloutId,
    device: DeviceId,
    package: PackageName,
    version: Version,
    state: State,
    attempt: i32,
    bytes_done: i64,
    bytes_total: i64,
    failure_code: Option<String>,
    failure_message: Option<String>,
    failure_log_tail: Option<String>,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
    ended_at: Option<DateTime<Utc>>,
}

impl TryFrom<Row> for Deployment {
    type Error = sqlx::Error;

    fn try_from(row: Row) -> sqlx::Result<Self> {
        let failure = row.failure_code.map(|code| {
            let code = code.parse().map_err(|source: ota_domain::deployment::ParseFailureCodeError| {
                sqlx::Error::ColumnDecode { index: "failure_code".to_owned(), source: BoxDynError::from(source) }
            })?;
            let message = row.failure_message.unwrap_or_default();
            let log_tail = row.failure_log_tail.unwrap_or_default();
            Ok::<_, sqlx::Error>(Failure { code, message, log_tail })
        });
        Ok(Self {
            id: row.id,
            rollout: row.rollout,
            device: row.device,
            package: row.package,
            version: row.version,
            state: row.state,
            attempt: row.attempt.unsigned_abs(),
            bytes_done: row.bytes_done.unsigned_abs(),
            bytes_total: row.bytes_total.unsigned_abs(),
            failure: failure.transpose()?,
            created_at: row.created_at,
            updated_at: row.updated_at,
            ended_at: row.ended_at,
        })
    }
}

/// Reads a deployment.
pub async fn get(connection: &mut PgConnection, id: DeploymentId) -> sqlx::Result<Option<Deployment>> {
    sqlx::query_as!(
        Row,
        r#"SELECT deployment.id AS "id: DeploymentId", deployment.rollout_id AS "rollout: RolloutId",
                  deployment.device_id AS "device: DeviceId", package.name AS "package: PackageName",
                  release.version AS "version: Version", deployment.state AS "state: State", deployment.attempt,
                  deployment.bytes_done, payload.size_bytes AS bytes_total, deployment.failure_code,
                  deployment.failure_message, deployment.failure_log_tail, deployment.created_at,
                  deployment.updated_at, deployment.ended_at
           FROM deployment
           JOIN release ON release.id = deployment.release_id
           JOIN package ON package.id = deployment.package_id
           JOIN payload ON payload.sha256 = release.payload_sha256
           WHERE deployment.id = $1"#,
        id.0,
    )
    .fetch_optional(connection)
    .await?
    .map(Deployment::try_from)
    .transpose()
}

/// Reads a page of deployments, newest first.
pub async fn list(
    connection: &mut PgConnection,
    query: &Query,
    page: &PageRequest<DeploymentId>,
) -> sqlx::Result<Vec<Deployment>> {
    let (packages, other_packages) = query.packages();
    let mut sql = QueryBuilder::<Postgres>::new(
        "SELECT deployment.id, deployment.rollout_id AS rollout, deployment.device_id AS device, package.name AS package,
                release.version, deployment.state, deployment.attempt, deployment.bytes_done,
                payload.size_bytes AS bytes_total, deployment.failure_code, deployment.failure_message,
                deployment.failure_log_tail, deployment.created_at, deployment.updated_at, deployment.ended_at
         FROM deployment
         JOIN release ON release.id = deployment.release_id
         JOIN package ON package.id = deployment.package_id
         JOIN payload ON payload.sha256 = release.payload_sha256
         WHERE deployment.state = ANY(",
    );
    sql.push_bind(query.states()).push(")");
    if let Some(rollout) = query.rollout {
        sql.push(" AND deployment.rollout_id = ").push_bind(rollout.0);
    }
    if let Some(device) = query.device {
        sql.push(" AND deployment.device_id = ").push_bind(device.0);
    }
    if let Some(packages) = packages {
        sql.push(" AND package.name = ANY(").push_bind(packages).push(")");
    }
    if !other_packages.is_empty() {
        sql.push(" AND package.name <> ALL(").push_bind(other_packages).push(")");
    }
    if let Some(after) = page.after {
        sql.push(" AND deployment.id < ").push_bind(after.0);
    }
    if let Some(prefix) = &query.scope.packages {
        sql.push(" AND starts_with(package.name, ").push_bind(prefix.as_str().to_owned()).push(")");
    }
    if let Some(selector) = &query.scope.devices {
        sql.push(" AND EXISTS (SELECT FROM device WHERE device.id = deployment.device_id");
        selector::push(&mut sql, "device.labels", selector);
        sql.push(")");
    }
    sql.push(" ORDER BY deployment.id DESC LIMIT ").push_bind(page.limit());
    let rows: Vec<Row> = sql.build_query_as().fetch_all(connection).await?;
    rows.into_iter().map(Deployment::try_from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(filter: &str) -> Query {
        Query { filter: Filter::parse(filter).unwrap(), ..Query::default() }
    }

    #[test]
    fn conditions_on_states_narrow_each_other() {
        assert_eq!(query("").states(), State::ALL);
        assert_eq!(query("state in (failed,queued),state!=queued").states(), [State::Failed]);
        assert!(query("state=failed,state=queued").states().is_empty());
    }

    #[test]
    fn conditions_on_packages_narrow_each_other() {
        let texts = |texts: &[&str]| texts.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(query("state=failed").packages(), (None, vec![]));
        assert_eq!(query("package in (a,b),package=b").packages(), (Some(texts(&["b"])), vec![]));
        assert_eq!(query("package!=a,package notin (b)").packages(), (None, texts(&["a", "b"])));
    }
}
