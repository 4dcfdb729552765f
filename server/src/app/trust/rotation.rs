//! Replaces keys that the server holds.
//!
//! While it holds the root keys too, it makes a key and signs the root that names it in one transaction. Once the operators
//! hold them, it makes the key and keeps it beside the one in use, until a root that they sign names it: so a ceremony may
//! end anywhere and be begun again, and what devices believe changes in one moment.

use chrono::{DateTime, Utc};
use ota_domain::event::Kind;
use ota_trust::{
    key::{PrivateKey, PublicKey, Signer},
    metadata::{self, Role, Root},
};
use sqlx::PgConnection;

use super::roots::{DIRECTOR_ROLES, Standing};
use crate::{
    app::{App, Error, Result},
    auth::Caller,
    db::{self, event::NewEvent, trust_metadata::Repository},
    keys::{KeyName, LoggedKey, SigningKeys},
};

/// A key of the server's that can be replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RotatedKey {
    /// Signs roots of the image repository.
    ImageRoot,
    /// Signs snapshots of the image repository.
    ImageSnapshot,
    /// Signs timestamps of the image repository.
    ImageTimestamp,
    /// Signs roots of the director repository.
    DirectorRoot,
    /// Signs everything else of the director repository.
    Director,
}

/// What a rotation made.
#[derive(Debug, Clone)]
pub struct Rotated {
    /// The new key.
    pub key: PublicKey,
    /// Whether it waits for a root of the operators that names it.
    pub awaits_root: bool,
}

/// Where a key is, and where the one that is to come after it waits.
struct Places<'a> {
    waiting_name: KeyName,
    waiting: &'a mut Option<LoggedKey>,
    used: &'a mut LoggedKey,
}

impl RotatedKey {
    const ALL: [Self; 5] =
        [Self::ImageRoot, Self::ImageSnapshot, Self::ImageTimestamp, Self::DirectorRoot, Self::Director];

    /// The key that signs a role of a repository, if the server may replace it.
    #[must_use]
    pub fn of(repository: Repository, role: &str) -> Option<Self> {
        match (repository, role) {
            (Repository::Image, "root") => Some(Self::ImageRoot),
            (Repository::Image, "snapshot") => Some(Self::ImageSnapshot),
            (Repository::Image, "timestamp") => Some(Self::ImageTimestamp),
            (Repository::Director, "root") => Some(Self::DirectorRoot),
            (Repository::Director, "targets") => Some(Self::Director),
            (Repository::Image | Repository::Director, _) => None,
        }
    }

    fn name(self) -> KeyName {
        match self {
            Self::ImageRoot => KeyName::ImageRoot,
            Self::ImageSnapshot => KeyName::ImageSnapshot,
            Self::ImageTimestamp => KeyName::ImageTimestamp,
            Self::DirectorRoot => KeyName::DirectorRoot,
            Self::Director => KeyName::Director,
        }
    }

    fn repository(self) -> Repository {
        match self {
            Self::ImageRoot | Self::ImageSnapshot | Self::ImageTimestamp => Repository::Image,
            Self::DirectorRoot | Self::Director => Repository::Director,
        }
    }

    fn roles(self) -> &'static [Role] {
        match self {
            Self::ImageRoot | Self::DirectorRoot => &[Role::Root],
            Self::ImageSnapshot => &[Role::Snapshot],
            Self::ImageTimestamp => &[Role::Timestamp],
            Self::Director => &DIRECTOR_ROLES,
        }
    }

    /// None for root keys: the operators make their own.
    fn places(self, keys: &mut SigningKeys) -> Option<Places<'_>> {
        let (waiting_name, waiting, used) = match self {
            Self::ImageRoot | Self::DirectorRoot => return None,
            Self::ImageSnapshot => {
                (KeyName::NextImageSnapshot, &mut keys.next_image_snapshot, &mut keys.image_snapshot)
            }
            Self::ImageTimestamp => {
                (KeyName::NextImageTimestamp, &mut keys.next_image_timestamp, &mut keys.image_timestamp)
            }
            Self::Director => (KeyName::NextDirector, &mut keys.next_director, &mut keys.director),
        };
        Some(Places { waiting_name, waiting, used })
    }

    /// Whether a root names a key for all that this one signs.
    fn is_named(self, root: &Root, key: &PublicKey) -> bool {
        self.roles().iter().all(|role| root.keys_of(*role).any(|named| named == key))
    }
}

/// Makes a key in the place of one that the server holds.
///
/// # Errors
/// `ROOT_ADOPTED` for a root key that the operators have taken over.
pub async fn rotate(app: &App, caller: &Caller, rotated: RotatedKey, now: DateTime<Utc>) -> Result<Rotated> {
    let repository = rotated.repository();
    let mut tx = app.pool.begin().await?;
    let mut standing = Standing::lock(app, &mut tx).await?;
    if let Err(adopted) = standing.root_key(repository) {
        let Some(places) = rotated.places(&mut standing.keys) else { return Err(adopted) };
        let key = match places.waiting {
            Some(key) => key.public_key().clone(),
            None => prepare(app, tx, caller, rotated, places.waiting_name, now).await?,
        };
        return Ok(Rotated { key, awaits_root: true });
    }
    let root_key = standing.root_key(repository)?;
    let key = PrivateKey::generate().map_err(Error::internal)?;
    let change = |root: &mut Root| {
        for role in rotated.roles() {
            root.set_role(*role, 1, &[key.public_key()]);
        }
    };
    let root = standing.next(repository, change, now)?;
    let both: [&dyn Signer; 2] = [root_key, &key];
    let signers = match rotated {
        RotatedKey::ImageRoot | RotatedKey::DirectorRoot => &both[..],
        RotatedKey::ImageSnapshot | RotatedKey::ImageTimestamp | RotatedKey::Director => &both[..1],
    };
    let signed = metadata::sign(&root, signers).map_err(Error::internal)?;
    app.keys.replace(&mut tx, rotated.name(), &key, now).await?;
    let keys = app.keys.signing(&mut tx).await?;
    standing.follow(&mut tx, repository, &signed, &keys, now).await?;
    record(&mut tx, caller, Kind::ServerKeyRotated, rotated, key.public_key()).await?;
    tx.commit().await?;
    Ok(Rotated { key: key.public_key().clone(), awaits_root: false })
}

/// Makes a key that waits for its root.
async fn prepare(
    app: &App,
    mut tx: sqlx::Transaction<'_, sqlx::Postgres>,
    caller: &Caller,
    rotated: RotatedKey,
    name: KeyName,
    now: DateTime<Utc>,
) -> Result<PublicKey> {
    let key = PrivateKey::generate().map_err(Error::internal)?;
    app.keys.replace(&mut tx, name, &key, now).await?;
    record(&mut tx, caller, Kind::ServerKeyPrepared, rotated, key.public_key()).await?;
    tx.commit().await?;
    Ok(key.public_key().clone())
}

/// Puts the keys that a root was waited for, and that it names, in the place of those before them.
pub(super) async fn promote(
    app: &App,
    connection: &mut PgConnection,
    caller: &Caller,
    keys: &mut SigningKeys,
    repository: Repository,
    root: &Root,
    now: DateTime<Utc>,
) -> Result<()> {
    for rotated in RotatedKey::ALL.into_iter().filter(|rotated| rotated.repository() == repository) {
        let Some(places) = rotated.places(keys) else { continue };
        let Some(key) = places.waiting.take_if(|key| rotated.is_named(root, key.public_key())) else { continue };
        app.keys.replace(&mut *connection, rotated.name(), key.private(), now).await?;
        db::server_key::delete(&mut *connection, places.waiting_name.as_str()).await?;
        record(connection, caller, Kind::ServerKeyRotated, rotated, key.public_key()).await?;
        *places.used = key;
    }
    Ok(())
}

async fn record(
    connection: &mut PgConnection,
    caller: &Caller,
    kind: Kind,
    rotated: RotatedKey,
    key: &PublicKey,
) -> Result<()> {
    let event = NewEvent::new(kind, format!("metadata/{}/root", rotated.repository().as_str()))
        .detail("name", rotated.name().as_str())
        .detail("key", key.id());
    db::event::record(&mut *connection, caller, event).await?;
    Ok(db::notify::events(connection).await?)
}
