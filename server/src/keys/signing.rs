//! The keys that sign metadata.

use ota_trust::key::{PrivateKey, PublicKey, SignError, Signer};

use super::{KeyName, OpenError, damaged, kek::KeyEncryptionKey, unseal};
use crate::db::server_key::ServerKey;

/// A key that signs metadata and says so in the log, at the level `trace`: what a call costs in signatures is counted there.
#[derive(Debug)]
pub struct LoggedKey(PrivateKey);

impl LoggedKey {
    fn generate() -> Result<Self, OpenError> {
        Ok(Self(PrivateKey::generate()?))
    }

    /// The key itself, to be sealed.
    #[must_use]
    pub fn private(&self) -> &PrivateKey {
        &self.0
    }
}

impl Signer for LoggedKey {
    fn public_key(&self) -> &PublicKey {
        self.0.public_key()
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError> {
        tracing::trace!("signing");
        self.0.sign(message)
    }
}

/// The keys that sign metadata, opened. What the operators have taken over is not there, nor what waits for nothing.
#[derive(Debug)]
pub struct SigningKeys {
    /// Signs roots of the image repository.
    pub image_root: Option<LoggedKey>,
    /// Signs targets of the image repository.
    pub image_targets: Option<LoggedKey>,
    /// Signs snapshots of the image repository.
    pub image_snapshot: LoggedKey,
    /// Signs timestamps of the image repository.
    pub image_timestamp: LoggedKey,
    /// Signs roots of the director repository.
    pub director_root: Option<LoggedKey>,
    /// Signs everything else of the director repository.
    pub director: LoggedKey,
    /// Waits for a root that names it for snapshots of the image repository.
    pub next_image_snapshot: Option<LoggedKey>,
    /// Waits for a root that names it for timestamps of the image repository.
    pub next_image_timestamp: Option<LoggedKey>,
    /// Waits for a root that names it for the director repository.
    pub next_director: Option<LoggedKey>,
}

impl SigningKeys {
    /// Makes all of them.
    pub(super) fn generate() -> Result<Self, OpenError> {
        Ok(Self {
            image_root: Some(LoggedKey::generate()?),
            image_targets: Some(LoggedKey::generate()?),
            image_snapshot: LoggedKey::generate()?,
            image_timestamp: LoggedKey::generate()?,
            director_root: Some(LoggedKey::generate()?),
            director: LoggedKey::generate()?,
            next_image_snapshot: None,
            next_image_timestamp: None,
            next_director: None,
        })
    }

    pub(super) fn unseal(kek: &KeyEncryptionKey, keys: &[ServerKey]) -> Result<Self, OpenError> {
        let key = |name| {
            let (_, private_key) = unseal(kek, keys, name)?;
            PrivateKey::from_pkcs8_der(&private_key).map(LoggedKey).map_err(|error| damaged(name, error))
        };
        let if_there = |name: KeyName| match keys.iter().any(|key| key.name == name.as_str()) {
            true => key(name).map(Some),
            false => Ok(None),
        };
        Ok(Self {
            image_root: if_there(KeyName::ImageRoot)?,
            image_targets: if_there(KeyName::ImageTargets)?,
            image_snapshot: key(KeyName::ImageSnapshot)?,
            image_timestamp: key(KeyName::ImageTimestamp)?,
            director_root: if_there(KeyName::DirectorRoot)?,
            director: key(KeyName::Director)?,
            next_image_snapshot: if_there(KeyName::NextImageSnapshot)?,
            next_image_timestamp: if_there(KeyName::NextImageTimestamp)?,
            next_director: if_there(KeyName::NextDirector)?,
        })
    }

    /// Those that are there, by name.
    pub fn iter(&self) -> impl Iterator<Item = (KeyName, &LoggedKey)> {
        [
            (KeyName::ImageRoot, self.image_root.as_ref()),
            (KeyName::ImageTargets, self.image_targets.as_ref()),
            (KeyName::ImageSnapshot, Some(&self.image_snapshot)),
            (KeyName::ImageTimestamp, Some(&self.image_timestamp)),
            (KeyName::DirectorRoot, self.director_root.as_ref()),
            (KeyName::Director, Some(&self.director)),
            (KeyName::NextImageSnapshot, self.next_image_snapshot.as_ref()),
            (KeyName::NextImageTimestamp, self.next_image_timestamp.as_ref()),
            (KeyName::NextDirector, self.next_director.as_ref()),
        ]
        .into_iter()
        .filter_map(|(name, key)| Some((name, key?)))
    }
}
