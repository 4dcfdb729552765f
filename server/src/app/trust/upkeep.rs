//! Keeps what the server signs from running out.

use chrono::{DateTime, Utc};
use ota_domain::event::Kind;
use ota_trust::{
    image,
    metadata::{self, Role, Root, Targets},
    verify,
};
use sqlx::PgConnection;

use super::repository;
use crate::{
    app::{App, Error, Result},
    auth::Caller,
    db::{
        self,
        event::NewEvent,
        trust_metadata::{NewDocument, Repository},
    },
    keys::{KeyName, SigningKeys},
};

/// Signs again what has lived half its life: timestamps and snapshots; while the server holds their keys roots, and the
/// list of releases for as long as it lists none: what people signed is theirs to sign again, and before that nobody else
/// would. Several replicas may do it at once: one does.
///
/// # Errors
/// When the database does not answer, or a document cannot be signed.
pub async fn keep_fresh(app: &App, now: DateTime<Utc>) -> Result<()> {
    // Looked at without the lock first: there is nothing to do nearly always.
    if due(&mut *app.pool.acquire().await?, now).await?.is_empty() {
        return Ok(());
    }
    let mut tx = app.pool.begin().await?;
    db::trust_metadata::lock(&mut tx).await?;
    let due = due(&mut tx, now).await?;
    if due.is_empty() {
        return Ok(());
    }
    let keys = app.keys.signing(&mut tx).await?;
    let before = repository::load(&mut tx).await?;
    let online = repository::online(&keys);
    let signed_again = |error: image::PublishError| Error::internal(error);
    let is_due = |role| due.contains(&(Repository::Image, role));
    let root = keys.image_root.as_ref().filter(|_| is_due(Role::Root)).map(|key| {
        let root = before.root().next(now + Role::Root.lifetime());
        metadata::sign(&root, &[key])
    });
    let list = keys.image_targets.as_ref().filter(|_| is_due(Role::Targets)).map(|key| {
        let (version, expires) = (before.versions().targets + 1, now + Role::Targets.lifetime());
        metadata::sign(&Targets { version, expires, targets: [].into(), delegations: None, device: None }, &[key])
    });
    let root = root.transpose().map_err(Error::internal)?;
    let list = list.transpose().map_err(Error::internal)?.map(|list| (Role::Targets.as_str().to_owned(), list));
    let after = match (root, list) {
        (root, Some(list)) => image::renew(&before, root.as_slice(), &[list], now, online),
        (Some(root), None) => image::follow(&before, &[root], now, online),
        (None, None) => image::refresh(&before, now, online),
    }
    .map_err(signed_again)?;
    repository::store(&mut tx, &before, &after, now).await?;
    if due.contains(&(Repository::Director, Role::Root)) {
        renew_director_root(&mut tx, &keys, now).await?;
    }
    for (repository, role) in &due {
        let kind = match role {
            Role::Root => Kind::RootPublished,
            Role::Targets => Kind::TargetsPublished,
            Role::Snapshot | Role::Timestamp => continue,
        };
        let subject = format!("metadata/{}/{role}", repository.as_str());
        db::event::record(&mut tx, &Caller::server(), NewEvent::new(kind, subject)).await?;
        db::notify::events(&mut tx).await?;
    }
    tx.commit().await?;
    Ok(())
}

/// What the server has to sign again.
async fn due(connection: &mut PgConnection, now: DateTime<Utc>) -> Result<Vec<(Repository, Role)>> {
    let expiries = db::trust_metadata::expiries(&mut *connection).await?;
    let held = db::server_key::names(&mut *connection).await?;
    let holds = |name: KeyName| held.iter().any(|held| held == name.as_str());
    let signs = |repository, role| match (repository, role) {
        (Repository::Image, Role::Timestamp | Role::Snapshot) => true,
        (Repository::Image, Role::Root) => holds(KeyName::ImageRoot),
        (Repository::Image, Role::Targets) => holds(KeyName::ImageTargets),
        (Repository::Director, Role::Root) => holds(KeyName::DirectorRoot),
        (Repository::Director, Role::Targets | Role::Snapshot | Role::Timestamp) => false,
    };
    let half_gone = |role: Role, expires_at: DateTime<Utc>| expires_at - now < role.lifetime() / 2;
    let due = expiries.iter().filter_map(|one| {
        let role = Role::ALL.into_iter().find(|role| role.as_str() == one.role)?;
        (signs(one.repository, role) && half_gone(role, one.expires_at)).then_some((one.repository, role))
    });
    let mut due: Vec<_> = due.collect();
    let list = (Repository::Image, Role::Targets);
    if due.contains(&list) && !lists_nothing(connection).await? {
        due.retain(|one| *one != list);
    }
    Ok(due)
}

/// Whether the image repository's list is empty, as the server signs it first.
async fn lists_nothing(connection: &mut PgConnection) -> Result<bool> {
    let newest = db::trust_metadata::newest(connection, Repository::Image, Role::Targets.as_str()).await?;
    let newest = newest.ok_or_else(|| Error::internal("the image repository has no targets"))?;
    let list = metadata::read::<Targets>(&newest.document).map_err(Error::internal)?;
    Ok(list.targets.is_empty() && list.delegations.is_none())
}

async fn renew_director_root(connection: &mut PgConnection, keys: &SigningKeys, now: DateTime<Utc>) -> Result<()> {
    let Some(key) = &keys.director_root else { return Ok(()) };
    let newest = db::trust_metadata::newest(&mut *connection, Repository::Director, Role::Root.as_str()).await?;
    let newest = newest.ok_or_else(|| Error::internal("the director repository has no root"))?;
    let mut repository = verify::Repository::from_root(&newest.document).map_err(Error::internal)?;
    let root: Root = repository.root().next(now + Role::Root.lifetime());
    let signed = metadata::sign(&root, &[key]).map_err(Error::internal)?;
    repository.update_root(&signed).map_err(Error::internal)?;
    let new = NewDocument {
        repository: Repository::Director,
        role: Role::Root.as_str().to_owned(),
        version: root.version,
        document: signed,
        expires_at: root.expires,
    };
    Ok(db::trust_metadata::insert(connection, &new, now).await?)
}
