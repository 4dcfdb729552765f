//! The image repository as the database has it, for whoever signs the next documents.

use chrono::{DateTime, Utc};
use ota_trust::{
    image::OnlineKeys,
    metadata::{Role, Targets, read},
    verify,
};
use sqlx::PgConnection;

use crate::{
    app::{Error, Result},
    db::{
        self,
        trust_metadata::{NewDocument, Repository, Stored},
    },
    keys::SigningKeys,
};

const TARGETS: &str = Role::Targets.as_str();

/// Reads it, and verifies all of it.
pub(super) async fn load(connection: &mut PgConnection) -> Result<verify::Repository> {
    let stored = db::trust_metadata::all_newest(connection, Repository::Image).await?;
    let of = |role: Role| newest(&stored, role.as_str()).map(|stored| stored.document.as_slice());
    let root = of(Role::Root).ok_or_else(|| Error::internal("the image repository has no root"))?;
    let lists = lists(&stored)?;
    let lists = lists.iter().map(|stored| (stored.role.as_str(), stored.document.as_slice()));
    verify::Repository::restore(root, of(Role::Timestamp), of(Role::Snapshot), lists).map_err(Error::internal)
}

/// The targets documents in use: the top and, when there are bins, these. Bins that were cut otherwise are left behind.
pub(super) fn lists(stored: &[Stored]) -> Result<Vec<&Stored>> {
    let top = newest(stored, TARGETS).ok_or_else(|| Error::internal("the image repository has no targets"))?;
    let bins = read::<Targets>(&top.document).map_err(Error::internal)?.delegations;
    let bins = bins.iter().flat_map(|bins| bins.roles()).filter_map(|role| newest(stored, &role));
    Ok(std::iter::once(top).chain(bins).collect())
}

fn newest<'a>(stored: &'a [Stored], role: &str) -> Option<&'a Stored> {
    stored.iter().find(|stored| stored.role == role)
}

/// Stores what `after` has and `before` had not.
pub(super) async fn store(
    connection: &mut PgConnection,
    before: &verify::Repository,
    after: &verify::Repository,
    now: DateTime<Utc>,
) -> Result<()> {
    let old = before.versions();
    let root = after.root();
    let mut changed = Vec::new();
    if root.version != old.root {
        changed.push((Role::Root.as_str(), root.version, root.expires));
    }
    let lists = after.targets_roles().filter(|(role, list)| before.targets(role) != Some(list));
    changed.extend(lists.map(|(role, list)| (role, list.version, list.expires)));
    if let Some(snapshot) = after.snapshot().filter(|snapshot| snapshot.version != old.snapshot) {
        changed.push((Role::Snapshot.as_str(), snapshot.version, snapshot.expires));
    }
    if let Some(timestamp) = after.timestamp().filter(|timestamp| timestamp.version != old.timestamp) {
        changed.push((Role::Timestamp.as_str(), timestamp.version, timestamp.expires));
    }
    for (role, version, expires_at) in changed {
        let document = after.bytes(role).unwrap_or_default().to_vec();
        let new = NewDocument { repository: Repository::Image, role: role.to_owned(), version, document, expires_at };
        db::trust_metadata::insert(&mut *connection, &new, now).await?;
    }
    Ok(())
}

/// The keys with which the server keeps the repository up to date.
pub(super) fn online(keys: &SigningKeys) -> OnlineKeys<'_> {
    OnlineKeys { snapshot: &keys.image_snapshot, timestamp: &keys.image_timestamp }
}
