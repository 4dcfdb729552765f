//! Devices as operators see them, and what operators decide about them.

use chrono::{DateTime, Utc};
use ota_domain::{
    DeviceId, Selector, Violations,
    deployment::{Deployment, Field, State},
    device::{self, Decision, Device, LabelChange},
    event::Kind,
    filter::{Condition, Filter},
    label, schedule,
};
use sqlx::PgConnection;

use super::{App, Error, Reason, Result, scope};
use crate::{
    auth::Caller,
    db::{
        self,
        device::Query,
        event::NewEvent,
        page::{Page, PageRequest},
    },
};

mod explain;

pub use explain::Explanation;

/// Deployments looked through for each package's last one. A device with more packages than these has is unheard of.
const HISTORY: i64 = 200;

/// A device heard of at this time or later is online at `now`.
#[must_use]
pub fn online_since(app: &App, now: DateTime<Utc>) -> DateTime<Utc> {
    now - schedule::online_within(app.settings.check_in_interval)
}

/// Whether the device is online at `now`.
#[must_use]
pub fn is_online(app: &App, device: &Device, now: DateTime<Utc>) -> bool {
    let within = schedule::online_within(app.settings.check_in_interval);
    device.presence.as_ref().is_some_and(|presence| presence.is_online(now, within))
}

/// Reads a device with its inventory.
///
/// # Errors
/// `DEVICE_NOT_FOUND`.
pub async fn get(app: &App, caller: &Caller, id: DeviceId) -> Result<Device> {
    see(&mut *app.pool.acquire().await?, caller, id).await
}

/// Lists the devices the caller sees that `selector` chooses by their labels and `filter` by their fields, newest first, without their
/// inventories. An empty text chooses all.
///
/// # Errors
/// `Invalid` for a text that breaks the grammar or names a field that devices do not have.
pub async fn list(
    app: &App,
    caller: &Caller,
    selector: &str,
    filter: &str,
    page: PageRequest<DeviceId>,
    now: DateTime<Utc>,
) -> Result<Page<Device>> {
    let mut violations = Violations::default();
    let selector = match selector {
        "" => None,
        text => violations.take("selector", text.parse::<Selector>()),
    };
    let filter = violations.take("filter", Filter::parse(filter));
    let filter = violations.finish(filter)?;
    let selectors = selector.into_iter().chain(caller.scope().devices.clone()).collect();
    let query = Query { selectors, filter, online_since: online_since(app, now) };
    let mut connection = app.pool.acquire().await?;
    let mut devices = db::device::list(&mut connection, &query, &page).await?;
    hide(&mut connection, caller, &mut devices).await?;
    Ok(page.cut(devices, |device| device.id.to_string()))
}

/// Changes a device's labels, unless somebody changed the device since its `etag` was read. An empty etag asks for no such
/// guard. A change that leaves the labels as they are is none.
///
/// # Errors
/// `DEVICE_NOT_FOUND`, `ETAG_MISMATCH`, and `Invalid` with every label that breaks a rule.
pub async fn label(app: &App, caller: &Caller, id: DeviceId, etag: &str, change: LabelChange) -> Result<Device> {
    let mut transaction = app.pool.begin().await?;
    let standing = db::device::lock(&mut transaction, id).await?.ok_or_else(|| not_found(id))?;
    scope::may_change(caller, id, &standing.labels)?;
    if !etag.is_empty() && etag != standing.revision.to_string() {
        return Err(Error::refused(Reason::EtagMismatch, format!("the device {id} was changed since it was read")));
    }
    let labels = change.apply(&standing.labels);
    let mut violations = Violations::default();
    label::check(&labels, "device.labels", &mut violations);
    violations.finish(Some(()))?;
    // Nor may a device be put where the caller would not reach it again, and others would.
    scope::may_change(caller, id, &labels)?;
    if labels != standing.labels {
        db::device::set_labels(&mut transaction, id, &labels).await?;
        let event =
            about(Kind::DeviceLabeled, id).detail("before", text(&standing.labels)).detail("after", text(&labels));
        record(&mut transaction, caller, id, event).await?;
    }
    finish(app, transaction, caller, id).await
}

/// Labels as people write them.
fn text(labels: &label::Labels) -> String {
    labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}

/// Lets a device in, keeps it out or takes it out for good. Deciding the same again changes nothing.
///
/// A device that is taken out is told nothing: its credential stops working, and its open deployments are canceled.
///
/// # Errors
/// `DEVICE_NOT_FOUND`, and `DEVICE_STATE` when its state does not allow the decision.
pub async fn decide(
    app: &App,
    caller: &Caller,
    id: DeviceId,
    decision: Decision,
    now: DateTime<Utc>,
) -> Result<Device> {
    let mut transaction = app.pool.begin().await?;
    let standing = db::device::lock(&mut transaction, id).await?.ok_or_else(|| not_found(id))?;
    scope::may_change(caller, id, &standing.labels)?;
    let state = change_state(&mut transaction, caller, id, standing.state, decision, now).await?;
    let device = finish(app, transaction, caller, id).await?;
    if state == device::State::Decommissioned {
        app.fleet.reconcile_rollouts.notify_one();
    }
    Ok(device)
}

/// Lets a device in that says it is a machine which others are already: it gets the labels of the newest of these that is
/// accepted, or else of the newest, and all of them are taken out.
///
/// # Errors
/// `DEVICE_NOT_FOUND`, and `DEVICE_STATE` when the device's state does not allow it; `OUT_OF_SCOPE` when one of the others
/// lies outside the caller's scope.
pub async fn approve_replacing(app: &App, caller: &Caller, id: DeviceId, now: DateTime<Utc>) -> Result<Device> {
    let mut transaction = app.pool.begin().await?;
    let device = db::device::get(&mut transaction, id).await?.ok_or_else(|| not_found(id))?;
    scope::may_change(caller, id, &device.labels)?;
    let hardware_id = device.hardware_id;
    // Before the rows, so that two who approve at once do not wait for each other.
    let mut others = db::device::same_machine(&mut transaction, &hardware_id).await?;
    others.retain(|other| *other != id);
    let standing = db::device::lock(&mut transaction, id).await?.ok_or_else(|| not_found(id))?;
    scope::may_change(caller, id, &standing.labels)?;
    change_state(&mut transaction, caller, id, standing.state, Decision::Approve, now).await?;
    let mut heir_of: Option<db::device::Standing> = None;
    for &other in &others {
        let Some(old) = db::device::lock(&mut transaction, other).await? else { continue };
        scope::may_change(caller, other, &old.labels)?;
        change_state(&mut transaction, caller, other, old.state, Decision::Decommission, now).await?;
        let better = heir_of
            .as_ref()
            .is_none_or(|best| best.state != device::State::Accepted && old.state == device::State::Accepted);
        if better {
            heir_of = Some(old);
        }
    }
    if let Some(old) = heir_of
        && old.labels != standing.labels
    {
        db::device::set_labels(&mut transaction, id, &old.labels).await?;
        let event =
            about(Kind::DeviceLabeled, id).detail("before", text(&standing.labels)).detail("after", text(&old.labels));
        record(&mut transaction, caller, id, event).await?;
    }
    let device = finish(app, transaction, caller, id).await?;
    for other in others {
        app.fleet.forget(other);
    }
    app.fleet.reconcile_rollouts.notify_one();
    Ok(device)
}

/// Puts a device that is locked into the state that follows from the decision, and returns it.
async fn change_state(
    connection: &mut PgConnection,
    caller: &Caller,
    id: DeviceId,
    before: device::State,
    decision: Decision,
    now: DateTime<Utc>,
) -> Result<device::State> {
    let (kind, verb) = match decision {
        Decision::Approve => (Kind::DeviceApproved, "approved"),
        Decision::Reject => (Kind::DeviceRejected, "rejected"),
        Decision::Decommission => (Kind::DeviceDecommissioned, "decommissioned"),
    };
    let state = before.decide(decision).ok_or_else(|| {
        Error::refused(Reason::DeviceState, format!("the device {id} is {} and cannot be {verb}", before.as_str()))
    })?;
    if state != before {
        db::device::set_state(connection, id, state).await?;
        let event = about(kind, id).detail("before", before.as_str());
        record(connection, caller, id, event).await?;
        if state == device::State::Decommissioned {
            cancel_deployments(connection, caller, id, now).await?;
        }
    }
    Ok(state)
}

async fn cancel_deployments(
    connection: &mut PgConnection,
    caller: &Caller,
    id: DeviceId,
    now: DateTime<Utc>,
) -> Result<()> {
    let open: Vec<_> = open_deployments(connection, id).await?.into_iter().map(|deployment| deployment.id).collect();
    let states: Vec<State> = State::open().collect();
    let end = db::deployment::End {
        state: State::Canceled,
        kind: Kind::DeploymentCanceled,
        detail: Some(("reason", "the device was decommissioned".to_owned())),
        now,
    };
    db::deployment::end(connection, caller, &open, &states, end).await?;
    Ok(())
}

async fn open_deployments(connection: &mut PgConnection, id: DeviceId) -> Result<Vec<Deployment>> {
    let open = Condition {
        field: Field::State,
        negated: false,
        values: State::open().map(|state| state.as_str().to_owned()).collect(),
    };
    deployments(connection, id, Filter::from(vec![open])).await
}

/// The device's newest deployments that pass.
async fn deployments(connection: &mut PgConnection, id: DeviceId, filter: Filter<Field>) -> Result<Vec<Deployment>> {
    let query = db::deployment::Query { device: Some(id), filter, ..Default::default() };
    let page = PageRequest { size: HISTORY, after: None };
    Ok(db::deployment::list(connection, &query, &page).await?)
}

/// Forgets a device that is out of the fleet. Its events stay.
///
/// # Errors
/// `DEVICE_NOT_FOUND`, and `DEVICE_STATE` for a device that is not out.
pub async fn delete(app: &App, caller: &Caller, id: DeviceId) -> Result<()> {
    let mut transaction = app.pool.begin().await?;
    let standing = db::device::lock(&mut transaction, id).await?.ok_or_else(|| not_found(id))?;
    scope::may_change(caller, id, &standing.labels)?;
    match standing.state {
        device::State::Rejected | device::State::Decommissioned => {}
        device::State::Pending | device::State::Accepted => {
            let state = standing.state.as_str();
            return Err(Error::refused(
                Reason::DeviceState,
                format!("the device {id} is {state}; reject or decommission it first"),
            ));
        }
    }
    db::device::delete(&mut transaction, id).await?;
    let event = about(Kind::DeviceDeleted, id).detail("labels", text(&standing.labels));
    record(&mut transaction, caller, id, event).await?;
    transaction.commit().await?;
    app.fleet.forget(id);
    Ok(())
}

/// Says why a device is or is not being updated: for each package that it runs or is to run.
///
/// # Errors
/// `DEVICE_NOT_FOUND`.
pub async fn explain(app: &App, caller: &Caller, id: DeviceId, now: DateTime<Utc>) -> Result<Vec<Explanation>> {
    let mut connection = app.pool.acquire().await?;
    let device = see(&mut connection, caller, id).await?;
    // The open ones by themselves: one may be so old that it is not among the newest.
    let mut told = open_deployments(&mut connection, id).await?;
    told.extend(deployments(&mut connection, id, Filter::default()).await?);
    told.retain(|deployment| caller.scope().has_package(&deployment.package));
    Ok(explain::explain(&device, is_online(app, &device, now), &told, app.settings.check_in_interval, now))
}

/// Reads a device as the caller sees it.
async fn see(connection: &mut PgConnection, caller: &Caller, id: DeviceId) -> Result<Device> {
    let device = db::device::get(connection, id).await?.filter(|device| caller.scope().has_device(&device.labels));
    let mut device = device.ok_or_else(|| not_found(id))?;
    hide(connection, caller, std::slice::from_mut(&mut device)).await?;
    Ok(device)
}

/// Takes out what the caller does not see of devices: packages and other devices outside their scope.
async fn hide(connection: &mut PgConnection, caller: &Caller, devices: &mut [Device]) -> Result<()> {
    let scope = caller.scope();
    for device in &mut *devices {
        device.running.retain(|entry| scope.has_package(&entry.running.package));
    }
    if let Some(selector) = &scope.devices {
        let named: Vec<_> = devices.iter().flat_map(|device| device.identity_conflicts.iter().copied()).collect();
        let outside = db::device::outside(connection, &named, selector).await?;
        for device in devices {
            device.identity_conflicts.retain(|other| !outside.contains(other));
        }
    }
    Ok(())
}

fn not_found(id: DeviceId) -> Error {
    Error::refused(Reason::DeviceNotFound, format!("there is no device {id}"))
}

fn about(kind: Kind, id: DeviceId) -> NewEvent {
    NewEvent::new(kind, format!("devices/{id}")).device(id)
}

/// Records a change to a device, and tells every replica that what it keeps of the device is stale.
async fn record(connection: &mut PgConnection, caller: &Caller, id: DeviceId, event: NewEvent) -> Result<()> {
    db::event::record(connection, caller, event).await?;
    db::notify::events(connection).await?;
    db::notify::devices(connection, &[id]).await?;
    Ok(())
}

/// Commits a change and answers with the device as it left it.
async fn finish(app: &App, mut transaction: sqlx::PgTransaction<'_>, caller: &Caller, id: DeviceId) -> Result<Device> {
    let device = see(&mut transaction, caller, id).await?;
    transaction.commit().await?;
    app.fleet.forget(id);
    Ok(device)
}
