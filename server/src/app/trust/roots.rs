//! Roots: which keys the roles have.
//!
//! While the server holds the root keys, the repositories are *managed*: it signs each next root, and its signature makes
//! devices follow the root of operators who take the keys over. With that root its own keys are deleted.

use chrono::{DateTime, Utc};
use ota_domain::event::Kind;
use ota_trust::{
    image,
    key::{KeyId, PublicKey, Signer as _},
    metadata::{self, Mode, Role, Root},
    verify,
};
use sqlx::PgConnection;

use super::{invalid, outdated, refused, repository, rotation};
use crate::{
    app::{App, Error, Reason, Result},
    auth::Caller,
    db::{
        self,
        event::NewEvent,
        trust_metadata::{NewDocument, Repository},
    },
    keys::{KeyName, LoggedKey, SigningKeys},
};

/// The roles of the director repository that share one key.
pub(super) const DIRECTOR_ROLES: [Role; 3] = [Role::Targets, Role::Snapshot, Role::Timestamp];

/// Roots signed elsewhere.
#[derive(Debug, Clone, Default)]
pub struct NewRoots {
    /// The next root of the image repository.
    pub image: Option<Vec<u8>>,
    /// The next root of the director repository.
    pub director: Option<Vec<u8>>,
}

/// Both repositories as they stand, locked for whoever signs the next root.
pub(super) struct Standing {
    image: verify::Repository,
    director: verify::Repository,
    pub(super) keys: SigningKeys,
}

impl Standing {
    pub(super) async fn lock(app: &App, connection: &mut PgConnection) -> Result<Self> {
        db::trust_metadata::lock(&mut *connection).await?;
        let image = repository::load(&mut *connection).await?;
        let director = db::trust_metadata::newest(&mut *connection, Repository::Director, Role::Root.as_str())
            .await?
            .ok_or_else(|| Error::internal("the director repository has no root"))?;
        let director = verify::Repository::from_root(&director.document).map_err(Error::internal)?;
        Ok(Self { image, director, keys: app.keys.signing(connection).await? })
    }

    fn root(&self, repository: Repository) -> &Root {
        match repository {
            Repository::Image => self.image.root(),
            Repository::Director => self.director.root(),
        }
    }

    /// The key that signs the next root.
    pub(super) fn root_key(&self, repository: Repository) -> Result<&LoggedKey> {
        let key = match repository {
            Repository::Image => self.keys.image_root.as_ref(),
            Repository::Director => self.keys.director_root.as_ref(),
        };
        key.ok_or_else(|| {
            let message = "the operators hold the root keys: a root signed with these has to be published";
            Error::refused(Reason::RootAdopted, message)
        })
    }

    /// The next root of a repository with what `change` does to it. The server has to hold the root keys.
    pub(super) fn next(
        &self,
        repository: Repository,
        change: impl FnOnce(&mut Root),
        now: DateTime<Utc>,
    ) -> Result<Root> {
        self.root_key(repository)?;
        let mut root = self.root(repository).next(now + Role::Root.lifetime());
        change(&mut root);
        Ok(root)
    }

    /// Follows a root and stores it. The `keys` are those that the root names.
    pub(super) async fn follow(
        &self,
        connection: &mut PgConnection,
        repository: Repository,
        root: &[u8],
        keys: &SigningKeys,
        now: DateTime<Utc>,
    ) -> Result<()> {
        match repository {
            Repository::Image => {
                let after = image::follow(&self.image, &[root], now, repository::online(keys)).map_err(refused)?;
                repository::store(connection, &self.image, &after, now).await
            }
            Repository::Director => {
                let mut after = self.director.clone();
                after.update_root(root).map_err(invalid)?;
                let root = after.root();
                let director = keys.director.public_key().id();
                for role in DIRECTOR_ROLES {
                    if root.threshold(role) != 1 || !root.keys_of(role).any(|key| key.id() == director) {
                        return Err(invalid(format!("the director's key {director} alone has to suffice for {role}")));
                    }
                }
                let new = NewDocument {
                    repository,
                    role: Role::Root.as_str().to_owned(),
                    version: root.version,
                    document: after.root_bytes().to_vec(),
                    expires_at: root.expires,
                };
                Ok(db::trust_metadata::insert(connection, &new, now).await?)
            }
        }
    }
}

/// Publishes roots that were signed elsewhere, both or none. While the server holds the root keys it adds its signatures;
/// with roots that say so, the operators take them over and the server's root and targets keys are deleted. Answers with
/// who holds the root keys from then on.
///
/// # Errors
/// `METADATA_OUTDATED` for roots that do not follow the newest; `METADATA_INVALID` for those that no device would follow,
/// or with which the server could not go on. A key that waited for one of the roots takes its place with it.
pub async fn publish_roots(app: &App, caller: &Caller, roots: &NewRoots, now: DateTime<Utc>) -> Result<Mode> {
    let given = [(Repository::Image, &roots.image), (Repository::Director, &roots.director)];
    let mut tx = app.pool.begin().await?;
    let standing = Standing::lock(app, &mut tx).await?;
    let before = standing.image.root().mode;
    let mut modes = Vec::new();
    for (repository, bytes) in given {
        let current = standing.root(repository);
        let Some(bytes) = bytes else {
            modes.push(current.mode);
            continue;
        };
        let root =
            metadata::read::<Root>(bytes).map_err(|error| invalid(format!("{}: {error}", repository.as_str())))?;
        if root.version != current.version + 1 {
            let message = format!(
                "the newest {} root is version {}: {} cannot follow",
                repository.as_str(),
                current.version,
                root.version
            );
            return Err(outdated(message));
        }
        modes.push(root.mode);
        let bytes = match standing.root_key(repository) {
            Ok(key) => metadata::add_signature(bytes, key).map_err(Error::internal)?,
            Err(_) => bytes.clone(),
        };
        check_mode(&standing, &root)?;
        let mut keys = app.keys.signing(&mut tx).await?;
        rotation::promote(app, &mut tx, caller, &mut keys, repository, &root, now).await?;
        standing.follow(&mut tx, repository, &bytes, &keys, now).await?;
        record_root(&mut tx, caller, repository, &root).await?;
    }
    let mode = match modes.as_slice() {
        [one, other] if one == other => *one,
        _ => return Err(invalid("both repositories have to change hands together")),
    };
    if before == Mode::Managed && mode == Mode::Adopted {
        for name in [KeyName::ImageRoot, KeyName::ImageTargets, KeyName::DirectorRoot] {
            db::server_key::delete(&mut tx, name.as_str()).await?;
        }
        db::event::record(&mut tx, caller, NewEvent::new(Kind::RootAdopted, "metadata/image/root")).await?;
    }
    db::notify::events(&mut tx).await?;
    tx.commit().await?;
    Ok(mode)
}

/// A root says truly who holds the keys.
fn check_mode(standing: &Standing, root: &Root) -> Result<()> {
    let ours = [&standing.keys.image_root, &standing.keys.image_targets, &standing.keys.director_root];
    let ours: Vec<KeyId> = ours.into_iter().flatten().map(|key| key.public_key().id()).collect();
    let named = ours.iter().find(|id| root.keys.contains_key(*id));
    match (root.mode, named) {
        (Mode::Adopted, Some(id)) => {
            Err(invalid(format!("a root of the operators' own cannot name the key {id}, which the server deletes")))
        }
        (Mode::Managed, None) if ours.is_empty() => {
            Err(invalid("the operators hold the root keys, and the server takes none back"))
        }
        (Mode::Adopted, None) | (Mode::Managed, _) => Ok(()),
    }
}

async fn record_root(
    connection: &mut PgConnection,
    caller: &Caller,
    repository: Repository,
    root: &Root,
) -> Result<()> {
    let keys: Vec<String> = root.keys_of(Role::Root).map(|key| key.id().to_string()).collect();
    let event = NewEvent::new(Kind::RootPublished, format!("metadata/{}/root", repository.as_str()))
        .detail("version", root.version)
        .detail("threshold", root.threshold(Role::Root))
        .detail("keys", keys.join(", "));
    Ok(db::event::record(connection, caller, event).await?)
}

/// Lets a key sign targets. Answers with its id. A key that may already changes nothing.
///
/// # Errors
/// `ROOT_ADOPTED`.
pub async fn add_targets_key(app: &App, caller: &Caller, key: &PublicKey, now: DateTime<Utc>) -> Result<KeyId> {
    let id = key.id();
    let mut tx = app.pool.begin().await?;
    let standing = Standing::lock(app, &mut tx).await?;
    let root_key = standing.root_key(Repository::Image)?;
    let current = standing.image.root();
    if current.keys_of(Role::Targets).any(|there| there.id() == id) {
        return Ok(id);
    }
    let keys: Vec<&PublicKey> = current.keys_of(Role::Targets).chain([key]).collect();
    let root = standing.next(Repository::Image, |root| root.set_role(Role::Targets, 1, &keys), now)?;
    let signed = metadata::sign(&root, &[root_key]).map_err(Error::internal)?;
    standing.follow(&mut tx, Repository::Image, &signed, &standing.keys, now).await?;
    let event =
        NewEvent::new(Kind::TargetsKeyAdded, "metadata/image/root").detail("key", &id).detail("version", root.version);
    db::event::record(&mut tx, caller, event).await?;
    db::notify::events(&mut tx).await?;
    tx.commit().await?;
    Ok(id)
}
