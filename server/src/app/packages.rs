//! Packages: created, described, listed, and deleted when nothing was published under them.

use chrono::{DateTime, Utc};
use ota_domain::{PackageId, PackageName, event::Kind, package::Package};
use uuid::Uuid;

use super::{App, Error, Reason, Result, scope};
use crate::{
    auth::Caller,
    db::{
        self,
        event::NewEvent,
        page::{Page, PageRequest},
    },
};

/// Creates a package.
///
/// # Errors
/// `PACKAGE_EXISTS`.
pub async fn create(
    app: &App,
    caller: &Caller,
    name: &PackageName,
    description: &str,
    now: DateTime<Utc>,
) -> Result<Package> {
    scope::may_publish(caller, [name])?;
    let mut tx = app.pool.begin().await?;
    if !add(&mut tx, caller, name, description, now).await? {
        return Err(Error::refused(Reason::PackageExists, format!("packages/{name} exists already")));
    }
    let package = find(&mut tx, name).await?;
    db::notify::events(&mut tx).await?;
    tx.commit().await?;
    Ok(package)
}

/// Adds a package in a transaction of the caller's, who notifies; `false` when the name is taken.
pub(super) async fn add(
    connection: &mut sqlx::PgConnection,
    caller: &Caller,
    name: &PackageName,
    description: &str,
    now: DateTime<Utc>,
) -> Result<bool> {
    let id = PackageId(Uuid::now_v7());
    let added = db::package::insert(&mut *connection, id, name, description, now).await?;
    if added {
        let event = NewEvent::new(Kind::PackageCreated, format!("packages/{name}"));
        db::event::record(connection, caller, event).await?;
    }
    Ok(added)
}

/// Reads a package.
///
/// # Errors
/// `PACKAGE_NOT_FOUND`.
pub async fn get(app: &App, caller: &Caller, name: &PackageName) -> Result<Package> {
    see(&mut *app.pool.acquire().await?, caller, name).await
}

/// Reads a package that the caller sees.
pub(super) async fn see(connection: &mut sqlx::PgConnection, caller: &Caller, name: &PackageName) -> Result<Package> {
    if caller.scope().has_package(name) { find(connection, name).await } else { Err(not_found(name)) }
}

fn not_found(name: &PackageName) -> Error {
    Error::refused(Reason::PackageNotFound, format!("there is no packages/{name}"))
}

pub(super) async fn find(connection: &mut sqlx::PgConnection, name: &PackageName) -> Result<Package> {
    db::package::find(connection, name).await?.ok_or_else(|| not_found(name))
}

/// Reads a page of packages.
///
/// # Errors
/// When the database does not answer.
pub async fn list(app: &App, caller: &Caller, page: &PageRequest<PackageName>) -> Result<Page<Package>> {
    let rows = db::package::list(&mut *app.pool.acquire().await?, page, caller.scope()).await?;
    Ok(page.cut(rows, |package| package.name.to_string()))
}

/// Changes a package's description. An `etag` guards against the changes of others.
///
/// # Errors
/// `PACKAGE_NOT_FOUND`; `ETAG_MISMATCH`.
pub async fn describe(
    app: &App,
    caller: &Caller,
    name: &PackageName,
    etag: &str,
    description: &str,
) -> Result<Package> {
    scope::may_publish(caller, [name])?;
    let mut tx = app.pool.begin().await?;
    let package = find(&mut tx, name).await?;
    let stale = || Error::refused(Reason::EtagMismatch, format!("packages/{name} was changed since it was read"));
    if !etag.is_empty() && etag != package.revision.to_string() {
        return Err(stale());
    }
    if !db::package::describe(&mut tx, package.id, package.revision, description).await? {
        return Err(stale());
    }
    let event = NewEvent::new(Kind::PackageUpdated, format!("packages/{name}")).detail("description", description);
    db::event::record(&mut tx, caller, event).await?;
    let package = find(&mut tx, name).await?;
    db::notify::events(&mut tx).await?;
    tx.commit().await?;
    Ok(package)
}

/// Deletes a package without releases.
///
/// # Errors
/// `PACKAGE_NOT_FOUND`; `PACKAGE_NOT_EMPTY`.
pub async fn delete(app: &App, caller: &Caller, name: &PackageName) -> Result<()> {
    scope::may_publish(caller, [name])?;
    let mut tx = app.pool.begin().await?;
    let package = find(&mut tx, name).await?;
    match db::package::delete(&mut tx, name).await {
        Ok(_) => {}
        Err(error) if db::violates(&error, db::package::HAS_RELEASES) => {
            let count = package.release_count;
            return Err(Error::refused(
                Reason::PackageNotEmpty,
                format!("packages/{name} has releases ({count}); delete them first"),
            ));
        }
        Err(error) => return Err(error.into()),
    }
    db::event::record(&mut tx, caller, NewEvent::new(Kind::PackageDeleted, format!("packages/{name}"))).await?;
    db::notify::events(&mut tx).await?;
    tx.commit().await?;
    Ok(())
}
