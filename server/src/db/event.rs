//! The append-only record of what happened.

use chrono::{DateTime, Utc};
use ota_domain::{
    DeviceId, RolloutId, Scope,
    event::{Cursor, Event, Field, Kind},
    filter::Filter,
};
use serde_json::{Map, Value};
use sqlx::{FromRow, PgConnection, Postgres, QueryBuilder, error::BoxDynError};

use super::{page::PageRequest, selector};
use crate::auth::Caller;

/// An event to record.
#[derive(Debug)]
pub struct NewEvent {
    /// What happened.
    pub kind: Kind,
    /// The resource it happened to, by its API name.
    pub subject: String,
    /// The device it concerns.
    pub device: Option<DeviceId>,
    /// The rollout it concerns.
    pub rollout: Option<RolloutId>,
    /// Facts of this kind of event: a flat object of texts.
    pub details: Map<String, Value>,
}

impl NewEvent {
    /// An event about `subject` alone.
    pub fn new(kind: Kind, subject: impl Into<String>) -> Self {
        Self { kind, subject: subject.into(), device: None, rollout: None, details: Map::new() }
    }

    /// Names the device it concerns.
    #[must_use]
    pub fn device(self, device: DeviceId) -> Self {
        Self { device: Some(device), ..self }
    }

    /// Names the rollout it concerns.
    #[must_use]
    pub fn rollout(self, rollout: RolloutId) -> Self {
        Self { rollout: Some(rollout), ..self }
    }

    /// Adds a fact.
    #[must_use]
    pub fn detail(mut self, key: &str, value: impl ToString) -> Self {
        self.details.insert(key.to_owned(), Value::String(value.to_string()));
        self
    }
}

/// Records an event. To be called in the transaction of the change itself: there is no event without its change and no
/// change without its event.
pub async fn record(connection: &mut PgConnection, caller: &Caller, event: NewEvent) -> sqlx::Result<()> {
    sqlx::query!(
        "INSERT INTO event (kind, actor, actor_display_name, subject, device_id, rollout_id, details, request_id,
                            source_address)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        event.kind.as_str(),
        caller.principal.to_string(),
        caller.principal.display_name(),
        event.subject,
        event.device.map(|device| device.0),
        event.rollout.map(|rollout| rollout.0),
        Value::Object(event.details),
        &*caller.request_id,
        caller.source_address(),
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Which events to read.
#[derive(Debug, Clone, Default)]
pub struct Query {
    /// Those that concern this device.
    pub device: Option<DeviceId>,
    /// Those that concern this rollout.
    pub rollout: Option<RolloutId>,
    /// Those of devices and of packages in it.
    pub scope: Scope,
    /// Those that pass.
    pub filter: Filter<Field>,
}

impl Query {
    /// A statement that reads events, up to its order, which has to name the table: a bare `transaction` would be the text
    /// that is read, by which 10 comes before 9.
    fn select(&self) -> QueryBuilder<Postgres> {
        let mut sql = QueryBuilder::new(
            "SELECT id, transaction::TEXT AS transaction, at, kind, actor, actor_display_name, subject, device_id,
                    rollout_id, details, request_id, source_address
             FROM event
             WHERE TRUE",
        );
        if let Some(device) = self.device {
            sql.push(" AND device_id = ").push_bind(device.0);
        }
        if let Some(rollout) = self.rollout {
            sql.push(" AND rollout_id = ").push_bind(rollout.0);
        }
        self.push_scope(&mut sql);
        for condition in self.filter.conditions() {
            sql.push(if condition.negated { " AND NOT (" } else { " AND (" });
            match condition.field {
                Field::Kind => sql.push("kind = ANY(").push_bind(condition.values.clone()).push(")"),
                // A label's value has no slash, so an actor goes by the last part of their name.
                Field::Actor => sql
                    .push("regexp_replace(actor, '^.*/', '') = ANY(")
                    .push_bind(condition.values.clone())
                    .push(") OR actor_display_name = ANY(")
                    .push_bind(condition.values.clone())
                    .push(")"),
            };
            sql.push(")");
        }
        sql
    }
}

impl Query {
    /// Adds that an event is of a device in the scope, or of no device and of a package in it. What a deployment's event
    /// says of its package counts as well.
    fn push_scope(&self, sql: &mut QueryBuilder<Postgres>) {
        let Scope { devices, packages } = &self.scope;
        let prefix = packages.as_ref().map(|prefix| prefix.as_str().to_owned());
        if self.scope.is_limited() {
            sql.push(" AND (device_id IS NOT NULL OR starts_with(subject, ");
            sql.push_bind(format!("packages/{}", prefix.as_deref().unwrap_or_default())).push("))");
        }
        if let Some(selector) = devices {
            sql.push(" AND (device_id IS NULL OR EXISTS (SELECT FROM device WHERE device.id = event.device_id");
            selector::push(sql, "device.labels", selector);
            sql.push("))");
        }
        if let Some(prefix) = prefix {
            sql.push(
                " AND CASE WHEN starts_with(subject, 'deployments/') THEN EXISTS (
                      SELECT FROM deployment
                      JOIN package ON package.id = deployment.package_id
                      WHERE deployment.id = substr(subject, 13)::UUID AND starts_with(package.name, ",
            );
            sql.push_bind(prefix).push(")) ELSE TRUE END");
        }
    }
}

#[derive(FromRow)]
struct Row {
    id: i64,
    transaction: String,
    at: DateTime<Utc>,
    kind: String,
    actor: String,
    actor_display_name: String,
    subject: String,
    device_id: Option<DeviceId>,
    rollout_id: Option<RolloutId>,
    details: Value,
    request_id: String,
    source_address: String,
}

impl TryFrom<Row> for Event {
    type Error = sqlx::Error;

    fn try_from(row: Row) -> sqlx::Result<Self> {
        let details = match row.details {
            Value::Object(details) => details.into_iter().map(|(key, value)| (key, text(value))).collect(),
            other @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_)) => {
                return Err(undecoded("details", format!("{other} is no object")));
            }
        };
        Ok(Self {
            cursor: Cursor { transaction: transaction(&row.transaction)?, id: row.id },
            at: row.at,
            kind: row.kind,
            actor: row.actor,
            actor_display_name: row.actor_display_name,
            subject: row.subject,
            device: row.device_id,
            rollout: row.rollout_id,
            details,
            request_id: row.request_id,
            source_address: row.source_address,
        })
    }
}

/// A fact as text: without the quotes that JSON would give it.
fn text(value: Value) -> String {
    match value {
        Value::String(text) => text,
        other @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => {
            other.to_string()
        }
    }
}

/// The driver has no type for XID8, so transactions travel as text.
pub(super) fn transaction(text: &str) -> sqlx::Result<u64> {
    text.parse().map_err(|_| undecoded("transaction", format!("{text:?} is no transaction")))
}

fn undecoded(column: &str, problem: String) -> sqlx::Error {
    sqlx::Error::ColumnDecode { index: column.to_owned(), source: BoxDynError::from(problem) }
}

/// Reads a page of events, newest first.
pub async fn list(connection: &mut PgConnection, query: &Query, page: &PageRequest<i64>) -> sqlx::Result<Vec<Event>> {
    let mut sql = query.select();
    if let Some(after) = page.after {
        sql.push(" AND id < ").push_bind(after);
    }
    sql.push(" ORDER BY id DESC LIMIT ").push_bind(page.limit());
    read(connection, sql).await
}

/// The oldest transaction that is still running: what all older ones recorded can be seen, and they record no more.
/// A transaction in another database of the same Postgres counts too, so a long one there delays watchers here.
pub async fn horizon(connection: &mut PgConnection) -> sqlx::Result<u64> {
    let oldest = sqlx::query_scalar!(r#"SELECT pg_snapshot_xmin(pg_current_snapshot())::TEXT AS "oldest!""#)
        .fetch_one(connection)
        .await?;
    transaction(&oldest)
}

/// Whether there are events of this transaction or a later one. They can be seen, but an older one may still come before.
pub async fn any_from(connection: &mut PgConnection, oldest: u64) -> sqlx::Result<bool> {
    sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM event WHERE transaction >= $1::TEXT::XID8) AS "any!""#,
        oldest.to_string(),
    )
    .fetch_one(connection)
    .await
}

/// Reads events in the order of watching: after `after`, of transactions before `horizon`, at most `limit`.
pub async fn between(
    connection: &mut PgConnection,
    query: &Query,
    after: Cursor,
    horizon: u64,
    limit: i64,
) -> sqlx::Result<Vec<Event>> {
    let mut sql = query.select();
    sql.push(" AND (transaction, id) > (").push_bind(after.transaction.to_string()).push("::TEXT::XID8, ");
    sql.push_bind(after.id).push(") AND transaction < ").push_bind(horizon.to_string()).push("::TEXT::XID8");
    sql.push(" ORDER BY event.transaction, event.id LIMIT ").push_bind(limit);
    read(connection, sql).await
}

/// Reads all events in the order of watching: after `after` and up to `last`, at most `limit`.
pub async fn through(
    connection: &mut PgConnection,
    after: Cursor,
    last: Cursor,
    limit: i64,
) -> sqlx::Result<Vec<Event>> {
    let mut sql = Query::default().select();
    sql.push(" AND (transaction, id) > (").push_bind(after.transaction.to_string()).push("::TEXT::XID8, ");
    sql.push_bind(after.id).push(") AND (transaction, id) <= (").push_bind(last.transaction.to_string());
    sql.push("::TEXT::XID8, ")
        .push_bind(last.id)
        .push(") ORDER BY event.transaction, event.id LIMIT ")
        .push_bind(limit);
    read(connection, sql).await
}

async fn read(connection: &mut PgConnection, mut sql: QueryBuilder<Postgres>) -> sqlx::Result<Vec<Event>> {
    let rows: Vec<Row> = sql.build_query_as().fetch_all(connection).await?;
    rows.into_iter().map(Event::try_from).collect()
}
