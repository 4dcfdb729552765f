//! Rollouts: the only way a device is ever told to change.
//!
//! A rollout is one phase of all its devices at once: creating it queues a deployment for each of them, in one transaction.

use chrono::{DateTime, Utc};
use ota_domain::{
    DeviceId, RolloutId, Scope, deployment,
    event::Kind,
    release,
    rollout::{CancelReach, Draft, Preview, Rollout, Selection, SelectionError, State, Target, select},
};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{App, Error, Reason, Result, scope};
use crate::{
    auth::Caller,
    db::{
        self,
        deployment::End,
        event::NewEvent,
        page::{Page, PageRequest},
        rollout::{Hold, Key, Wanted},
    },
};

/// Most devices a preview names.
const SAMPLES: usize = 20;
/// Most devices an error names. More would not fit into the headers that carry it.
const MOST_TOLD: usize = 20;

/// Starts a rollout. With an `id` that exists and the same draft, answers with the rollout that is there.
///
/// # Errors
/// `ReleaseNotFound`, `ReleaseYanked`, `ReleaseNotSigned`; `DeviceNotFound`, `DeviceState`, `HardwareMismatch` with all the named devices at
/// fault; `SelectionEmpty`; `Invalid` for an `id` that was used for another draft.
pub async fn create(
    app: &App,
    caller: &Caller,
    id: Option<RolloutId>,
    draft: &Draft,
    now: DateTime<Utc>,
) -> Result<Rollout> {
    scope::may_publish(caller, [&draft.package])?;
    let draft = &narrowed(caller, draft)?;
    let mut transaction = app.pool.begin().await?;
    scope::may_target(&mut transaction, caller, &draft.target).await?;
    let wanted = wanted(&mut transaction, draft).await?;
    let lock = db::deployment::lock_package(&mut transaction, wanted.package).await?;
    let id = match id {
        Some(id) => match db::rollout::get(&mut transaction, id, &Scope::default()).await? {
            Some(there) if there.draft == *draft => return Ok(there),
            Some(_) => return Err(id_taken(id)),
            None => id,
        },
        None => RolloutId(Uuid::now_v7()),
    };
    refuse_unusable(draft, &wanted)?;
    let Selection { chosen, unfit } = choose(&mut transaction, caller, draft, &wanted, Hold::AsTheyAre).await?;
    if chosen.is_empty() {
        return Err(nobody(draft, unfit));
    }
    let creator = caller.principal.to_string();
    db::rollout::insert(&mut transaction, id, wanted.release, &draft.target, &creator, now).await.map_err(|error| {
        // Somebody else used it just now for a release of another package, else the lock would have shown the rollout.
        if db::violates(&error, "rollout_pkey") { id_taken(id) } else { error.into() }
    })?;
    let older = db::deployment::open_of_devices(&mut transaction, &lock, &chosen).await?;
    let open: Vec<_> = deployment::State::open().collect();
    let by = ("by", format!("rollouts/{id}"));
    let end = End { state: deployment::State::Superseded, kind: Kind::DeploymentSuperseded, detail: Some(by), now };
    let superseded = db::deployment::end(&mut transaction, caller, &older, &open, end).await?;
    db::deployment::queue(&mut transaction, &lock, id, wanted.release, &chosen, now).await?;
    let event = NewEvent::new(Kind::RolloutCreated, format!("rollouts/{id}"))
        .rollout(id)
        .detail("package", &draft.package)
        .detail("version", &draft.version)
        .detail("devices", chosen.len())
        .detail("superseded", superseded.len());
    db::event::record(&mut transaction, caller, event).await?;
    db::notify::events(&mut transaction).await?;
    db::notify::devices(&mut transaction, &chosen).await?;
    let rollout = read(&mut transaction, caller, id).await?;
    transaction.commit().await?;
    forget(app, &chosen);
    if !superseded.is_empty() {
        app.fleet.reconcile_rollouts.notify_one();
    }
    Ok(rollout)
}

/// Says what [`create`] would do. That nobody would be updated is an answer here.
///
/// # Errors
/// Those of [`create`], but for `SelectionEmpty`.
pub async fn preview(app: &App, caller: &Caller, draft: &Draft) -> Result<Preview> {
    let draft = &narrowed(caller, draft)?;
    if !caller.scope().has_package(&draft.package) {
        return Err(no_release(draft));
    }
    let mut transaction = app.pool.begin().await?;
    let wanted = wanted(&mut transaction, draft).await?;
    refuse_unusable(draft, &wanted)?;
    let Selection { chosen, unfit } = choose(&mut transaction, caller, draft, &wanted, Hold::Free).await?;
    let payload = wanted.payload.sha256;
    let current = db::rollout::count_running(&mut transaction, &chosen, &draft.package, payload).await?;
    Ok(Preview {
        devices: chosen.len() as u64,
        unfit,
        current,
        samples: chosen.iter().copied().take(SAMPLES).collect(),
        download_bytes: wanted.payload.size_bytes * chosen.len() as u64,
    })
}

/// Reads a rollout with its counts.
///
/// # Errors
/// `RolloutNotFound`.
pub async fn get(app: &App, caller: &Caller, id: RolloutId) -> Result<Rollout> {
    read(&mut *app.pool.acquire().await?, caller, id).await
}

/// Reads a page of rollouts, newest first; without the devices that were named.
///
/// # Errors
/// When the database does not answer.
pub async fn list(app: &App, caller: &Caller, page: &PageRequest<Key>) -> Result<Page<Rollout>> {
    let rollouts = db::rollout::list(&mut *app.pool.acquire().await?, page, caller.scope()).await?;
    Ok(page.cut(rollouts, |rollout| Key::of(rollout).to_string()))
}

/// Ends a rollout and those of its deployments that `reach` covers. The others run to their own end. Canceling again
/// changes nothing, unless the reach is longer.
///
/// # Errors
/// `RolloutNotFound`; `RolloutState` when it is completed.
pub async fn cancel(
    app: &App,
    caller: &Caller,
    id: RolloutId,
    reach: CancelReach,
    now: DateTime<Utc>,
) -> Result<Rollout> {
    let mut transaction = app.pool.begin().await?;
    let package = db::rollout::package(&mut transaction, id).await?.ok_or_else(|| not_found(id))?;
    let lock = db::deployment::lock_package(&mut transaction, package).await?;
    let state = db::rollout::lock(&mut transaction, id).await?.ok_or_else(|| not_found(id))?;
    may_cancel(&mut transaction, caller, id).await?;
    if state == State::Completed {
        return Err(Error::refused(
            Reason::RolloutState,
            format!("rollouts/{id} is completed: there is nothing left to cancel"),
        ));
    }
    let covered: Vec<_> = deployment::State::ALL.into_iter().filter(|&state| reach.covers(state)).collect();
    let deployments = db::deployment::of_rollout(&mut transaction, &lock, id, &covered).await?;
    let end = End { state: deployment::State::Canceled, kind: Kind::DeploymentCanceled, detail: None, now };
    let canceled = db::deployment::end(&mut transaction, caller, &deployments, &covered, end).await?;
    if state == State::Active {
        db::rollout::set_state(&mut transaction, id, State::Canceled, now).await?;
        let event = NewEvent::new(Kind::RolloutCanceled, format!("rollouts/{id}"))
            .rollout(id)
            .detail("canceled", canceled.len());
        db::event::record(&mut transaction, caller, event).await?;
    }
    db::notify::events(&mut transaction).await?;
    db::notify::devices(&mut transaction, &canceled).await?;
    let rollout = read(&mut transaction, caller, id).await?;
    transaction.commit().await?;
    forget(app, &canceled);
    Ok(rollout)
}

/// Completes every rollout of which no deployment is open any more.
///
/// # Errors
/// When the database does not answer.
pub async fn complete(app: &App, caller: &Caller, now: DateTime<Utc>) -> Result<()> {
    let mut transaction = app.pool.begin().await?;
    let completed = db::rollout::complete(&mut transaction, now).await?;
    for &id in &completed {
        let event = NewEvent::new(Kind::RolloutCompleted, format!("rollouts/{id}")).rollout(id);
        db::event::record(&mut transaction, caller, event).await?;
    }
    if !completed.is_empty() {
        db::notify::events(&mut transaction).await?;
    }
    transaction.commit().await?;
    Ok(())
}

/// Lets this replica answer by what was just committed. The others hear of it by notification.
fn forget(app: &App, devices: &[DeviceId]) {
    for &device in devices {
        app.fleet.forget(device);
    }
}

/// Makes sure that a rollout is of a package and of devices that the caller may act on, all of them.
async fn may_cancel(connection: &mut PgConnection, caller: &Caller, id: RolloutId) -> Result<()> {
    if !caller.scope().is_limited() {
        return Ok(());
    }
    let everything = Scope::default();
    let rollout = db::rollout::get(connection, id, &everything).await?.ok_or_else(|| not_found(id))?;
    scope::may_publish(caller, [&rollout.draft.package])?;
    if let Some(selector) = &caller.scope().devices
        && let Some(device) = db::rollout::device_outside(connection, id, selector).await?
    {
        return Err(scope::out_of_scope(format_args!("devices/{device}, which is part of the rollout,")));
    }
    Ok(())
}

/// The draft as far as the caller may go: whoever says all means all they see.
fn narrowed(caller: &Caller, draft: &Draft) -> Result<Draft> {
    let target = caller.scope().narrow(draft.target.clone());
    let target = target.map_err(|error| Error::invalid("rollout.target.selector", error))?;
    Ok(Draft { target, ..draft.clone() })
}

async fn read(connection: &mut PgConnection, caller: &Caller, id: RolloutId) -> Result<Rollout> {
    db::rollout::get(connection, id, caller.scope()).await?.ok_or_else(|| not_found(id))
}

async fn wanted(connection: &mut PgConnection, draft: &Draft) -> Result<Wanted> {
    let wanted = db::rollout::wanted(connection, &draft.package, &draft.version).await?;
    wanted.ok_or_else(|| no_release(draft))
}

fn no_release(draft: &Draft) -> Error {
    let message = format!("no release packages/{}/releases/{}", draft.package, draft.version);
    Error::refused(Reason::ReleaseNotFound, message)
}

/// Refuses a release that no device would install.
fn refuse_unusable(draft: &Draft, wanted: &Wanted) -> Result<()> {
    match wanted.state {
        release::State::Published if wanted.is_signed => Ok(()),
        release::State::Published => Err(Error::refused(
            Reason::ReleaseNotSigned,
            format!("{} {} is in no signed list yet, and no device would install it", draft.package, draft.version),
        )),
        release::State::Yanked => Err(Error::refused(
            Reason::ReleaseYanked,
            format!("{} {} was yanked and is not installed any more", draft.package, draft.version),
        )),
    }
}

async fn choose(
    connection: &mut PgConnection,
    caller: &Caller,
    draft: &Draft,
    wanted: &Wanted,
    hold: Hold,
) -> Result<Selection> {
    let candidates = db::rollout::candidates(connection, &draft.target, caller.scope(), hold).await?;
    select(&draft.target, candidates, &wanted.hardware).map_err(|error| match error {
        SelectionError::Unknown(devices) => {
            Error::refused(Reason::DeviceNotFound, format!("no such devices: {}", told(&devices, DeviceId::to_string)))
        }
        SelectionError::NotAccepted(devices) => Error::refused(
            Reason::DeviceState,
            format!(
                "only accepted devices take part; these are not: {}",
                told(&devices, |(device, state)| format!("{device} ({})", state.as_str()))
            ),
        ),
        SelectionError::Unfit(devices) => Error::refused(
            Reason::HardwareMismatch,
            format!(
                "{} {} does not fit these devices: {}",
                draft.package,
                draft.version,
                told(&devices, |(device, hardware)| format!("{device} ({hardware})"))
            ),
        ),
    })
}

/// Names devices, the first of them when they are many.
fn told<T>(devices: &[T], name: impl Fn(&T) -> String) -> String {
    let named: Vec<String> = devices.iter().take(MOST_TOLD).map(name).collect();
    match devices.len().saturating_sub(MOST_TOLD) {
        0 => named.join(", "),
        more => format!("{} and {more} more", named.join(", ")),
    }
}

fn nobody(draft: &Draft, unfit: u64) -> Error {
    let whom = match &draft.target {
        Target::Selector(selector) => format!("{selector:?} chooses", selector = selector.to_string()),
        Target::All | Target::Devices(_) => "there is".to_owned(),
    };
    let message = match unfit {
        0 => format!("{whom} no accepted device"),
        unfit => format!("{whom} no accepted device that the release fits; {unfit} are of other hardware"),
    };
    Error::refused(Reason::SelectionEmpty, message)
}

fn not_found(id: RolloutId) -> Error {
    Error::refused(Reason::RolloutNotFound, format!("no rollout rollouts/{id}"))
}

fn id_taken(id: RolloutId) -> Error {
    Error::invalid("rollout_id", format!("{id} is the id of a rollout of another release or to other devices"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_some_devices_and_counts_the_others() {
        let name = |number: &usize| number.to_string();
        assert_eq!(told(&[1, 2], name), "1, 2");
        let many: Vec<usize> = (0..MOST_TOLD + 3).collect();
        assert!(told(&many, name).ends_with("18, 19 and 3 more"));
    }
}
