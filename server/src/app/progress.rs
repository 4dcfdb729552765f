//! What a device says of its work.
//!
//! Most reports only bring fresh figures while a download runs. These cost two statements and no transaction: the first
//! reads where the deployment stands, the second writes if it still stands there. All others decide again behind the
//! row's lock, and write the deployment, what the device runs and the event together.
//!
//! A report that does not move its deployment on changes nothing at all, not even what the device is said to run: it may be
//! a repetition that is older than what the device has said since, and nothing in it says which. A device that was told to
//! stop too late says what it runs with its next check-in.

use chrono::{DateTime, Utc};
use ota_domain::{
    DeviceId, Violations,
    deployment::{self, Effect, Report, Verdict},
    device::Running,
    event::Kind,
};
use sqlx::{Acquire, PgConnection};

use super::{App, Error, Reason, Result};
use crate::{
    auth::Caller,
    db::{self, deployment::Reported, event::NewEvent},
};

/// Takes in a device's report. Repeating one changes nothing, and an end is final.
///
/// # Errors
/// `DeploymentNotFound` also for another device's deployment; `Invalid` when the report cannot be true of its release.
pub async fn report(
    app: &App,
    caller: &Caller,
    device: DeviceId,
    report: Report,
    now: DateTime<Utc>,
) -> Result<Verdict> {
    let not_found = || {
        let message = format!("the device has no deployment {}", report.deployment);
        Error::refused(Reason::DeploymentNotFound, message)
    };
    let mut connection = app.pool.acquire().await?;
    let reported = db::deployment::reported(&mut connection, report.deployment, device).await?.ok_or_else(not_found)?;
    let mut violations = Violations::default();
    report.check(reported.payload.size_bytes, &reported.package, reported.payload.sha256, &mut violations);
    violations.finish(Some(()))?;

    let effect = decide(&reported, &report);
    let done = match effect {
        Effect::Ignore | Effect::Stop => true,
        Effect::Refresh => db::deployment::refresh(&mut connection, reported.standing, &report, now).await?,
        Effect::Enter(_) => false,
    };
    if done {
        return Ok(effect.verdict());
    }

    let mut transaction = connection.begin().await?;
    let standing =
        db::deployment::standing(&mut transaction, report.deployment, device).await?.ok_or_else(not_found)?;
    let reported = Reported { standing, ..reported };
    let effect = decide(&reported, &report);
    let mut entered_at = None;
    match effect {
        Effect::Enter(state) => {
            entered_at = db::deployment::enter(&mut transaction, state, &report, now).await?;
            db::event::record(&mut transaction, caller, event(device, &reported, &report)).await?;
            db::notify::events(&mut transaction).await?;
            if state.is_ended() {
                db::notify::devices(&mut transaction, &[device]).await?;
            }
            if report.progress.tells_running() {
                record_running(&mut transaction, caller, device, &report.running, now).await?;
            }
        }
        Effect::Refresh => {
            db::deployment::refresh(&mut transaction, standing, &report, now).await?;
        }
        Effect::Ignore | Effect::Stop => return Ok(effect.verdict()),
    }
    transaction.commit().await?;
    // Another replica's clock may have been ahead.
    if let Some(took) = entered_at.and_then(|at| (now - at).to_std().ok()) {
        app.metrics.phases.ended(standing.state, took);
    }
    if let Effect::Enter(state) = effect
        && state.is_ended()
    {
        app.metrics.updates.ended(state, report.failure.as_ref().map(|failure| failure.code));
        // This replica answers by what was just committed; the others hear of it by notification.
        app.fleet.forget(device);
        app.fleet.reconcile_rollouts.notify_one();
    }
    Ok(effect.verdict())
}

/// Makes `running` what the device runs, and records that when it is news.
///
/// # Errors
/// When the database does not answer.
pub async fn record_running(
    connection: &mut PgConnection,
    caller: &Caller,
    device: DeviceId,
    running: &[Running],
    now: DateTime<Utc>,
) -> Result<()> {
    if db::device_running::replace(connection, device, running, now).await? {
        let event = running.iter().fold(
            NewEvent::new(Kind::DeviceRunningChanged, format!("devices/{device}")).device(device),
            |event, release| event.detail(release.package.as_str(), &release.version),
        );
        db::event::record(connection, caller, event).await?;
        db::notify::events(connection).await?;
        db::notify::devices(connection, &[device]).await?;
    }
    Ok(())
}

fn decide(reported: &Reported, report: &Report) -> Effect {
    deployment::report(reported.standing, report.attempt, report.sequence, report.progress)
}

fn event(device: DeviceId, reported: &Reported, report: &Report) -> NewEvent {
    let event = NewEvent::new(report.progress.into(), format!("deployments/{}", report.deployment))
        .device(device)
        .rollout(reported.rollout)
        .detail("package", &reported.package)
        .detail("version", &reported.version)
        .detail("attempt", report.attempt);
    let event = match &report.failure {
        Some(failure) => event.detail("failure", failure.code.as_str()),
        None => event,
    };
    match report.trust_fault {
        Some(fault) => event.detail("trust_fault", fault.as_str()),
        None => event,
    }
}
