//! What a device should run.
//!
//! The answer comes from memory: nothing new means no query. What a device reports to run, and a deployment it is told of
//! for the first time, go through Postgres.

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};
use ota_domain::{
    DeviceId, Sha256Digest, TrustFault,
    deployment::State,
    device::{self, Running},
    event::Kind,
    schedule,
};

use sqlx::PgConnection;

use super::{
    App, Error, Reason, Result, progress, scope,
    trust::{self, Asked, Export, Update},
};
use crate::{
    auth::Caller,
    db::{self, desired::Work, event::NewEvent},
    fleet::Record,
};

/// What a device says when it checks in.
#[derive(Debug, Clone)]
pub struct CheckIn {
    /// What it runs, by package, each once.
    pub running: Vec<Running>,
    /// Its agent's version.
    pub agent_version: String,
    /// Checksum of its inventory, when it has one.
    pub inventory: Option<Sha256Digest>,
    /// What it holds of the signed metadata.
    pub trust: Asked,
    /// Why it did not believe what the last check-in brought.
    pub trust_fault: Option<TrustFault>,
}

/// What the device should do.
#[derive(Debug)]
pub struct Orders {
    /// When to check in again.
    pub next_check_in: Duration,
    /// The device as it stands, with its work.
    pub record: Arc<Record>,
    /// The server lacks the inventory.
    pub inventory_wanted: bool,
    /// Signed metadata that the device lacks.
    pub metadata: Option<Update>,
}

impl Orders {
    /// The open deployments the device was told of.
    pub fn work(&self) -> impl Iterator<Item = &Work> {
        told(&self.record)
    }
}

fn told(record: &Record) -> impl Iterator<Item = &Work> {
    record.work.iter().filter(|work| work.state != State::Queued)
}

/// Takes in what the device says and tells it what to do. `chance` is uniform in 0 to 1.
///
/// # Errors
/// When something is new and the database does not answer.
pub async fn check_in(
    app: &App,
    caller: &Caller,
    mut record: Arc<Record>,
    told: CheckIn,
    now: DateTime<Utc>,
    chance: f64,
) -> Result<Orders> {
    app.fleet.seen(&record, &told.agent_version, now);
    if told.running != record.running || told.trust_fault != record.trust_fault {
        let mut transaction = app.pool.begin().await?;
        if told.trust_fault != record.trust_fault {
            record_trust_fault(&mut transaction, caller, record.id, told.trust_fault).await?;
        }
        if told.running != record.running {
            progress::record_running(&mut transaction, caller, record.id, &told.running, now).await?;
        }
        transaction.commit().await?;
        record = read_again(app, record.id).await?;
    }
    record = granted(app, caller, record, now).await?;
    let work: Vec<&Work> = self::told(&record).collect();
    Ok(Orders {
        metadata: trust::update(app, &record, &work, &told.trust, now).await?,
        next_check_in: schedule::next_check_in(app.settings.check_in_interval, chance),
        inventory_wanted: told.inventory.is_some_and(|told| record.inventory != Some(told)),
        record,
    })
}

/// What a check-in would bring, signed for the road: for a device that cannot check in itself. Its queued deployments are
/// granted, as it will be told of them.
///
/// # Errors
/// `DEVICE_NOT_FOUND`; `DEVICE_STATE` for a device that is not accepted; `OUT_OF_SCOPE` when it is to run packages that the
/// caller may not assign.
pub async fn export(
    app: &App,
    caller: &Caller,
    id: DeviceId,
    lifetime: TimeDelta,
    now: DateTime<Utc>,
) -> Result<Export> {
    app.fleet.forget(id);
    let not_found = || Error::refused(Reason::DeviceNotFound, format!("no device devices/{id}"));
    if !scope::sees_device(&mut *app.pool.acquire().await?, caller.scope(), id).await? {
        return Err(not_found());
    }
    let record = app.fleet.device(id).await?.ok_or_else(not_found)?;
    if record.state != device::State::Accepted {
        let message = format!("devices/{id} is {}; only accepted devices are told what to run", record.state.as_str());
        return Err(Error::refused(Reason::DeviceState, message));
    }
    scope::may_publish(caller, record.work.iter().map(|work| &work.package))?;
    let record = granted(app, caller, record, now).await?;
    let work = told(&record).cloned().collect();
    trust::export(app, caller, id, work, lifetime, now).await
}

/// Notes why the device does not believe the server, or that it does again, and records that when it is news.
async fn record_trust_fault(
    connection: &mut PgConnection,
    caller: &Caller,
    device: DeviceId,
    fault: Option<TrustFault>,
) -> Result<()> {
    if db::device::set_trust_fault(connection, device, fault).await? {
        let subject = format!("devices/{device}");
        let event = match fault {
            Some(fault) => NewEvent::new(Kind::DeviceTrustFault, subject).detail("fault", fault.as_str()),
            None => NewEvent::new(Kind::DeviceTrustRestored, subject),
        };
        db::event::record(connection, caller, event.device(device)).await?;
        db::notify::events(connection).await?;
        db::notify::devices(connection, &[device]).await?;
    }
    Ok(())
}

/// The record once nothing in it is queued any more.
async fn granted(app: &App, caller: &Caller, record: Arc<Record>, now: DateTime<Utc>) -> Result<Arc<Record>> {
    if record.work.iter().all(|work| work.state != State::Queued) {
        return Ok(record);
    }
    grant(app, caller, record.id, now).await?;
    read_again(app, record.id).await
}

/// Grants the device's queued deployments. Another replica may have been faster: then there is nothing to grant.
async fn grant(app: &App, caller: &Caller, device: DeviceId, now: DateTime<Utc>) -> Result<()> {
    let mut transaction = app.pool.begin().await?;
    for granted in db::desired::grant(&mut transaction, device, now).await? {
        let event = NewEvent::new(Kind::DeploymentGranted, format!("deployments/{}", granted.id))
            .device(device)
            .rollout(granted.rollout)
            .detail("attempt", granted.attempt);
        db::event::record(&mut transaction, caller, event).await?;
    }
    db::notify::events(&mut transaction).await?;
    transaction.commit().await?;
    Ok(())
}

async fn read_again(app: &App, device: DeviceId) -> Result<Arc<Record>> {
    app.fleet.forget(device);
    app.fleet.device(device).await?.ok_or_else(|| Error::internal("a device vanished while it checked in"))
}
