//! Releases: published once and never changed but for their notes, yanked, and deleted when nothing needs them.

use chrono::{DateTime, Utc};
use ota_domain::{
    PackageName, ReleaseId, Sha256Digest, Version, deployment,
    event::Kind,
    release::{Draft, Release},
};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{App, Error, Reason, Result, packages, payloads, scope};
use crate::{
    auth::Caller,
    db::{
        self,
        deployment::End,
        event::NewEvent,
        page::{Page, PageRequest},
    },
};

/// How to publish.
#[derive(Debug, Clone, Copy)]
pub struct Publishing {
    /// Create the package when there is none.
    pub create_package: bool,
    /// Check everything and store nothing.
    pub validate_only: bool,
}

/// Publishes a release.
///
/// # Errors
/// `PACKAGE_NOT_FOUND`, `PAYLOAD_NOT_FOUND`, `RELEASE_EXISTS`, `OUT_OF_SCOPE`.
pub async fn create(
    app: &App,
    caller: &Caller,
    draft: &Draft,
    publishing: Publishing,
    now: DateTime<Utc>,
) -> Result<Release> {
    scope::may_publish(caller, [&draft.package])?;
    // Dropping the transaction undoes all of it, which is also what a caller gets who only wants to know.
    let mut tx = app.pool.begin().await?;
    let subject = subject(&draft.package, &draft.version);
    if publishing.create_package {
        packages::add(&mut tx, caller, &draft.package, "", now).await?;
    }
    let package = packages::find(&mut tx, &draft.package).await?;
    if db::payload::hold(&mut tx, draft.payload).await?.is_none() {
        return Err(payloads::not_found(draft.payload));
    }
    let id = ReleaseId(Uuid::now_v7());
    let creator = caller.principal.to_string();
    match db::release::insert(&mut tx, id, package.id, draft, &creator, now).await {
        Ok(()) => {}
        Err(error) if db::violates(&error, db::release::VERSION_TAKEN) => {
            return Err(Error::refused(
                Reason::ReleaseExists,
                format!("{subject} exists already, and a release never changes; publish another version"),
            ));
        }
        Err(error) => return Err(error.into()),
    }
    let release = find(&mut tx, &draft.package, &draft.version).await?;
    if publishing.validate_only {
        return Ok(release);
    }
    let event = NewEvent::new(Kind::ReleasePublished, subject)
        .detail("payload", format!("payloads/{}", draft.payload))
        .detail("release_counter", release.counter)
        .detail("installer", draft.installer.as_str());
    db::event::record(&mut tx, caller, event).await?;
    db::notify::events(&mut tx).await?;
    tx.commit().await?;
    Ok(release)
}

/// Reads a release.
///
/// # Errors
/// `RELEASE_NOT_FOUND`.
pub async fn get(app: &App, caller: &Caller, package: &PackageName, version: &Version) -> Result<Release> {
    if !caller.scope().has_package(package) {
        return Err(not_found(package, version));
    }
    find(&mut *app.pool.acquire().await?, package, version).await
}

async fn find(connection: &mut PgConnection, package: &PackageName, version: &Version) -> Result<Release> {
    db::release::find(connection, package, version).await?.ok_or_else(|| not_found(package, version))
}

fn not_found(package: &PackageName, version: &Version) -> Error {
    Error::refused(Reason::ReleaseNotFound, format!("there is no {}", subject(package, version)))
}

fn subject(package: &PackageName, version: &Version) -> String {
    format!("packages/{package}/releases/{version}")
}

/// Reads a page of the releases of a package, or of all packages.
///
/// # Errors
/// `PACKAGE_NOT_FOUND`.
pub async fn list(
    app: &App,
    caller: &Caller,
    package: Option<&PackageName>,
    page: &PageRequest<ReleaseId>,
) -> Result<Page<Release>> {
    let mut connection = app.pool.acquire().await?;
    let package = match package {
        Some(name) => Some(packages::see(&mut connection, caller, name).await?.id),
        None => None,
    };
    let rows = db::release::list(&mut connection, package, page, caller.scope()).await?;
    Ok(page.cut(rows, |release| release.id.to_string()))
}

/// Changes a release's notes. An `etag` guards against the changes of others.
///
/// # Errors
/// `RELEASE_NOT_FOUND`; `ETAG_MISMATCH`.
pub async fn annotate(
    app: &App,
    caller: &Caller,
    (package, version): (&PackageName, &Version),
    etag: &str,
    notes: &str,
) -> Result<Release> {
    scope::may_publish(caller, [package])?;
    let mut tx = app.pool.begin().await?;
    let release = find(&mut tx, package, version).await?;
    let subject = subject(package, version);
    let stale = || Error::refused(Reason::EtagMismatch, format!("{subject} was changed since it was read"));
    if !etag.is_empty() && etag != release.revision.to_string() {
        return Err(stale());
    }
    if !db::release::annotate(&mut tx, release.id, release.revision, notes).await? {
        return Err(stale());
    }
    db::event::record(&mut tx, caller, NewEvent::new(Kind::ReleaseUpdated, subject.as_str())).await?;
    let release = find(&mut tx, package, version).await?;
    db::notify::events(&mut tx).await?;
    tx.commit().await?;
    Ok(release)
}

/// Takes a release out of use: nothing new installs it, and who was not told of it yet never is. Yanking twice changes
/// nothing.
///
/// # Errors
/// `RELEASE_NOT_FOUND`.
pub async fn yank(
    app: &App,
    caller: &Caller,
    (package, version): (&PackageName, &Version),
    reason: &str,
    now: DateTime<Utc>,
) -> Result<Release> {
    scope::may_publish(caller, [package])?;
    let mut tx = app.pool.begin().await?;
    let release = find(&mut tx, package, version).await?;
    // The release's row before the package's lock, in the order in which a rollout takes them.
    let Some(package_id) = db::release::yank(&mut tx, release.id).await? else {
        return find(&mut tx, package, version).await;
    };
    let event = NewEvent::new(Kind::ReleaseYanked, subject(package, version)).detail("reason", reason);
    db::event::record(&mut tx, caller, event).await?;
    db::deployment::lock_package(&mut tx, package_id).await?;
    let queued = db::release::queued_deployments(&mut tx, release.id).await?;
    if let Some(selector) = &caller.scope().devices
        && let Some(device) = db::deployment::device_outside(&mut tx, &queued, selector).await?
    {
        return Err(scope::out_of_scope(format_args!("devices/{device}, which waits for the release,")));
    }
    let end = End {
        state: deployment::State::Canceled,
        kind: Kind::DeploymentCanceled,
        detail: Some(("reason", "the release was yanked".to_owned())),
        now,
    };
    let devices = db::deployment::end(&mut tx, caller, &queued, &[deployment::State::Queued], end).await?;
    let release = find(&mut tx, package, version).await?;
    db::notify::devices(&mut tx, &devices).await?;
    db::notify::events(&mut tx).await?;
    tx.commit().await?;
    Ok(release)
}

/// Deletes a release that nothing needs, and its payload if no other release has it.
///
/// # Errors
/// `RELEASE_NOT_FOUND`; `RELEASE_IN_USE`.
pub async fn delete(app: &App, caller: &Caller, package: &PackageName, version: &Version) -> Result<()> {
    scope::may_publish(caller, [package])?;
    let mut tx = app.pool.begin().await?;
    let release = find(&mut tx, package, version).await?;
    let subject = subject(package, version);
    let in_use = |why| Error::refused(Reason::ReleaseInUse, format!("{subject} cannot be deleted: {why}; yank it"));
    if db::release::is_running(&mut tx, package, version).await? {
        return Err(in_use("a device runs it"));
    }
    match db::release::delete(&mut tx, release.id).await {
        Ok(_) => {}
        Err(error) if db::violates(&error, db::release::NEEDED_BY_ROLLOUT) => {
            return Err(in_use("the history of a rollout refers to it"));
        }
        Err(error) => return Err(error.into()),
    }
    db::event::record(&mut tx, caller, NewEvent::new(Kind::ReleaseDeleted, subject.as_str())).await?;
    let dropped = drop_payload(&mut tx, caller, release.payload.sha256).await?;
    db::notify::events(&mut tx).await?;
    tx.commit().await?;
    if dropped {
        payloads::collect_now(app, release.payload.sha256).await;
    }
    Ok(())
}

/// Deletes the payload unless another release has it.
async fn drop_payload(connection: &mut PgConnection, caller: &Caller, sha256: Sha256Digest) -> Result<bool> {
    // Locks the payload against a release that is published with it right now: who comes second sees what the first did.
    let free = db::payload::lock_row(&mut *connection, sha256).await?
        && !db::release::any_installs(&mut *connection, sha256).await?;
    if free {
        payloads::remove(connection, caller, sha256).await?;
    }
    Ok(free)
}
