//! Deployments, one device's journey each, as operators see and change them.

use chrono::{DateTime, Utc};
use ota_domain::{
    DeploymentId,
    deployment::{Deployment, State},
    device,
    event::Kind,
    release,
    rollout::{self, CancelReach},
};
use sqlx::PgConnection;

use super::{App, Error, Reason, Result, scope};
use crate::{
    auth::Caller,
    db::{
        self,
        deployment::{End, Query},
        event::NewEvent,
        page::{Page, PageRequest},
    },
};

/// Reads a deployment.
///
/// # Errors
/// `DeploymentNotFound`.
pub async fn get(app: &App, caller: &Caller, id: DeploymentId) -> Result<Deployment> {
    let mut connection = app.pool.acquire().await?;
    let deployment = read(&mut connection, id).await?;
    let seen = caller.scope().has_package(&deployment.package)
        && scope::sees_device(&mut connection, caller.scope(), deployment.device).await?;
    if seen { Ok(deployment) } else { Err(not_found(id)) }
}

/// Reads a page of deployments, newest first.
///
/// # Errors
/// When the database does not answer.
pub async fn list(app: &App, query: &Query, page: &PageRequest<DeploymentId>) -> Result<Page<Deployment>> {
    let deployments = db::deployment::list(&mut *app.pool.acquire().await?, query, page).await?;
    Ok(page.cut(deployments, |deployment| deployment.id.to_string()))
}

/// Cancels a deployment whose device cannot have switched yet. Canceling again changes nothing.
///
/// # Errors
/// `DeploymentNotFound`; `RolloutState` when it has ended otherwise or the device may have switched.
pub async fn cancel(app: &App, caller: &Caller, id: DeploymentId, now: DateTime<Utc>) -> Result<Deployment> {
    let mut transaction = app.pool.begin().await?;
    let state = db::deployment::lock(&mut transaction, id).await?.ok_or_else(|| not_found(id))?;
    may_change(&mut transaction, caller, id).await?;
    if CancelReach::NotSwitched.covers(state) {
        let end = End { state: State::Canceled, kind: Kind::DeploymentCanceled, detail: None, now };
        let canceled = db::deployment::end(&mut transaction, caller, &[id], &[state], end).await?;
        db::notify::events(&mut transaction).await?;
        db::notify::devices(&mut transaction, &canceled).await?;
    } else if state.is_ended() && state != State::Canceled {
        return Err(refused(id, state, "there is nothing left to cancel"));
    } else if !state.is_ended() {
        return Err(refused(id, state, "the device may have switched already"));
    }
    let deployment = read(&mut transaction, id).await?;
    transaction.commit().await?;
    app.fleet.forget(deployment.device);
    app.fleet.reconcile_rollouts.notify_one();
    Ok(deployment)
}

/// Queues a deployment again that ended without success.
///
/// # Errors
/// `DeploymentNotFound`; `RolloutState` when it is open or has succeeded, when its rollout was canceled, or when another
/// deployment of the package is open on the device; `DeviceState`; `ReleaseYanked`.
pub async fn retry(app: &App, caller: &Caller, id: DeploymentId, now: DateTime<Utc>) -> Result<Deployment> {
    let mut transaction = app.pool.begin().await?;
    let place = db::deployment::place(&mut transaction, id).await?.ok_or_else(|| not_found(id))?;
    may_change(&mut transaction, caller, id).await?;
    let lock = db::deployment::lock_package(&mut transaction, place.package).await?;
    let rollout = db::rollout::lock(&mut transaction, place.rollout).await?.ok_or_else(|| not_found(id))?;
    let state = db::deployment::lock(&mut transaction, id).await?.ok_or_else(|| not_found(id))?;
    if !state.is_ended() {
        return Err(refused(id, state, "it has not ended yet"));
    }
    if state == State::Succeeded {
        return Err(refused(id, state, "there is nothing to try again"));
    }
    if rollout == rollout::State::Canceled {
        let message = format!("rollouts/{} was canceled; start another one", place.rollout);
        return Err(Error::refused(Reason::RolloutState, message));
    }
    if let Some(other) = db::deployment::open_of_devices(&mut transaction, &lock, &[place.device]).await?.first() {
        let message = format!("deployments/{other} is open on the device and of the same package");
        return Err(Error::refused(Reason::RolloutState, message));
    }
    let (device, release) = db::deployment::may_begin(&mut transaction, place).await?;
    if device != device::State::Accepted {
        let message = format!("devices/{} is {}", place.device, device.as_str());
        return Err(Error::refused(Reason::DeviceState, message));
    }
    if release == release::State::Yanked {
        return Err(Error::refused(Reason::ReleaseYanked, "the release was yanked and is not installed any more"));
    }
    db::deployment::queue_again(&mut transaction, &lock, id, now).await?;
    if rollout != rollout::State::Active {
        db::rollout::set_state(&mut transaction, place.rollout, rollout::State::Active, now).await?;
    }
    let event = NewEvent::new(Kind::DeploymentRetried, format!("deployments/{id}"))
        .device(place.device)
        .rollout(place.rollout)
        .detail("after", state.as_str());
    db::event::record(&mut transaction, caller, event).await?;
    db::notify::events(&mut transaction).await?;
    db::notify::devices(&mut transaction, &[place.device]).await?;
    let deployment = read(&mut transaction, id).await?;
    transaction.commit().await?;
    app.fleet.forget(deployment.device);
    Ok(deployment)
}

/// Makes sure that a deployment is of a package and of a device that the caller may act on.
async fn may_change(connection: &mut PgConnection, caller: &Caller, id: DeploymentId) -> Result<()> {
    if !caller.scope().is_limited() {
        return Ok(());
    }
    let deployment = read(connection, id).await?;
    scope::may_publish(caller, [&deployment.package])?;
    if scope::sees_device(connection, caller.scope(), deployment.device).await? {
        Ok(())
    } else {
        Err(scope::out_of_scope(format_args!("devices/{}", deployment.device)))
    }
}

async fn read(connection: &mut PgConnection, id: DeploymentId) -> Result<Deployment> {
    db::deployment::get(connection, id).await?.ok_or_else(|| not_found(id))
}

fn not_found(id: DeploymentId) -> Error {
    Error::refused(Reason::DeploymentNotFound, format!("no deployment deployments/{id}"))
}

fn refused(id: DeploymentId, state: State, why: &str) -> Error {
    Error::refused(Reason::RolloutState, format!("deployments/{id} is {}: {why}", state.as_str()))
}
