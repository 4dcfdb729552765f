//! The server's own keys: made by the first start, sealed in the database, opened in memory.
//!
//! Nobody configures them. The first of several replicas that start on an empty database makes all keys in one
//! transaction; the others find them. A database that was sealed under another key-encryption key is refused rather than
//! filled with new keys: devices trust the old ones.

mod first;
mod kek;
mod reseal;
mod signing;

use std::{fmt, path::Path};

use chrono::{DateTime, Utc};
use ota_trust::key::{PrivateKey, SignError, Signer as _};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use sqlx::{PgConnection, PgPool};

use crate::{
    auth::session::SessionKey,
    ca::{Authority, CaError},
    db::{self, server_key::ServerKey},
};

pub use kek::{KeyFileError, SealBroken};
pub use reseal::{Resealed, replace_file, reseal};
pub use signing::{LoggedKey, SigningKeys};

use kek::KeyEncryptionKey;

/// Bytes in the key that authenticates sessions.
const SESSION_KEY_BYTES: usize = 32;

/// Why the server's keys are not to be had.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The database does not give them.
    #[error("the database does not give them")]
    Database(#[from] sqlx::Error),
    /// The file with the key-encryption key is no good.
    #[error("the key-encryption key is not to be had")]
    KeyFile(#[source] KeyFileError),
    /// The database has sealed keys, and there is no key to open them.
    #[error("the database's keys are sealed, and there is no key-encryption key")]
    KeyFileMissing,
    /// The database's keys are sealed under another key.
    #[error("the database's keys are sealed under the key-encryption key {sealed_under}, and this one is {found}")]
    OtherKey {
        /// Names the key that is needed.
        sealed_under: String,
        /// Names the key that is there.
        found: String,
    },
    /// There is nothing to seal anew.
    #[error("the database has no keys yet: no server has started on it")]
    NoKeys,
    /// A row is damaged.
    #[error("the key {name:?} in the database is damaged")]
    Damaged {
        /// Which.
        name: String,
        /// How.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The cryptographic library makes no key.
    #[error("no key can be made")]
    Generate(#[source] CaError),
    /// The first documents cannot be signed.
    #[error("the first metadata cannot be signed")]
    Sign(#[from] SignError),
}

impl OpenError {
    /// What the operator can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Database(_) | Self::Generate(_) | Self::Sign(_) => None,
            Self::NoKeys => {
                Some("name the database with --database-url, or the folder of its private one with --data-dir")
            }
            Self::KeyFile(_) => Some("name a file that this account can read and, at the first start, make"),
            Self::KeyFileMissing | Self::OtherKey { .. } => Some(
                "give the file that the first server on this database has (key-encryption-key in its data directory) with --key-file; if `rotate-key-encryption-key` was interrupted, run it again",
            ),
            Self::Damaged { .. } => Some("restore the table server_key from a backup of the database"),
        }
    }
}

/// The server's keys by the names they have in the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum KeyName {
    /// Signs the certificates of servers and devices.
    CertificateAuthority,
    /// Authenticates sessions and challenges.
    Session,
    /// Signs roots of the image repository, until the operators do.
    ImageRoot,
    /// Signs targets of the image repository, until the operators do: the first, empty ones.
    ImageTargets,
    /// Signs snapshots of the image repository.
    ImageSnapshot,
    /// Signs timestamps of the image repository.
    ImageTimestamp,
    /// Signs roots of the director repository, until the operators do.
    DirectorRoot,
    /// Signs what each device should run, and that it is fresh.
    Director,
    /// Replaces [`Self::ImageSnapshot`] with the root of the operators that names it.
    NextImageSnapshot,
    /// Replaces [`Self::ImageTimestamp`] with the root of the operators that names it.
    NextImageTimestamp,
    /// Replaces [`Self::Director`] with the root of the operators that names it.
    NextDirector,
}

impl KeyName {
    /// The name in the database, which is also bound into the seal.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CertificateAuthority => "certificate-authority",
            Self::Session => "session",
            Self::ImageRoot => "image-root",
            Self::ImageTargets => "image-targets",
            Self::ImageSnapshot => "image-snapshot",
            Self::ImageTimestamp => "image-timestamp",
            Self::DirectorRoot => "director-root",
            Self::Director => "director",
            Self::NextImageSnapshot => "next-image-snapshot",
            Self::NextImageTimestamp => "next-image-timestamp",
            Self::NextDirector => "next-director",
        }
    }
}

/// The opened keys.
pub struct Keyring {
    kek: KeyEncryptionKey,
    authority: Authority,
    session: SessionKey,
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyring").field("authority", &self.authority).finish_non_exhaustive()
    }
}

impl Keyring {
    /// Opens the keys of the database, and makes them first when it has none. The key-encryption key is in `key_file`; it
    /// too is made when neither has been.
    ///
    /// # Errors
    /// When the database or the file does not give what is needed, or they do not belong together.
    pub async fn open(pool: &PgPool, key_file: &Path, now: DateTime<Utc>) -> Result<Self, OpenError> {
        let mut transaction = pool.begin().await?;
        db::server_key::lock(&mut transaction).await?;
        let mut keys = db::server_key::all(&mut transaction).await?;
        let kek = if keys.is_empty() {
            let kek = KeyEncryptionKey::read_or_create(key_file).map_err(OpenError::KeyFile)?;
            first::generate(&mut transaction, &kek, now).await?;
            keys = db::server_key::all(&mut transaction).await?;
            kek
        } else {
            KeyEncryptionKey::read(key_file).map_err(OpenError::KeyFile)?.ok_or(OpenError::KeyFileMissing)?
        };
        let ring = Self::unseal(kek, &keys)?;
        transaction.commit().await?;
        Ok(ring)
    }

    fn unseal(kek: KeyEncryptionKey, keys: &[ServerKey]) -> Result<Self, OpenError> {
        let (row, private_key) = unseal(&kek, keys, KeyName::CertificateAuthority)?;
        let certificate = CertificateDer::from(row.certificate.clone().unwrap_or_default());
        let authority = Authority::open(certificate, &PrivatePkcs8KeyDer::from(private_key))
            .map_err(|error| damaged(KeyName::CertificateAuthority, error))?;
        let (_, session) = unseal(&kek, keys, KeyName::Session)?;
        let session = <&[u8; SESSION_KEY_BYTES]>::try_from(session.as_slice())
            .map_err(|error| damaged(KeyName::Session, error))?;
        // What cannot be opened has to be known at the start, not when it is needed.
        SigningKeys::unseal(&kek, keys)?;
        Ok(Self { kek, authority, session: SessionKey::new(session) })
    }

    /// Reads the keys that sign metadata. They are not kept here, because an operator may replace them on any replica.
    ///
    /// # Errors
    /// When the database does not give them or they do not open.
    pub async fn signing(&self, connection: &mut PgConnection) -> Result<SigningKeys, OpenError> {
        SigningKeys::unseal(&self.kek, &db::server_key::all(connection).await?)
    }

    /// Stores a key that signs metadata in the place of the one with its name.
    ///
    /// # Errors
    /// When the database does not take it.
    pub async fn replace(
        &self,
        connection: &mut PgConnection,
        name: KeyName,
        key: &PrivateKey,
        now: DateTime<Utc>,
    ) -> sqlx::Result<()> {
        db::server_key::put(connection, &seal_private(&self.kek, name, key), now).await
    }

    /// Signs the certificates of servers and devices.
    #[must_use]
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// Authenticates sessions and challenges.
    #[must_use]
    pub fn session(&self) -> &SessionKey {
        &self.session
    }
}

/// Reads the certificate of the authority, which is no secret: no key-encryption key is needed.
///
/// # Errors
/// When the database does not give it, or has no keys yet.
pub async fn authority_certificate(pool: &PgPool) -> Result<Vec<u8>, OpenError> {
    let keys = match db::server_key::all(&mut *pool.acquire().await?).await {
        // Nobody has made the tables either.
        Err(error) if db::is_undefined_table(&error) => return Err(OpenError::NoKeys),
        keys => keys?,
    };
    let authority = keys.into_iter().find(|key| key.name == KeyName::CertificateAuthority.as_str());
    authority.and_then(|key| key.certificate).ok_or(OpenError::NoKeys)
}

/// Finds a key and opens its seal.
fn unseal<'a>(
    kek: &KeyEncryptionKey,
    keys: &'a [ServerKey],
    name: KeyName,
) -> Result<(&'a ServerKey, Vec<u8>), OpenError> {
    let key = keys.iter().find(|key| key.name == name.as_str());
    let key = key.ok_or_else(|| damaged(name, "there is no such row"))?;
    if key.kek_id != kek.id() {
        return Err(OpenError::OtherKey { sealed_under: key.kek_id.clone(), found: kek.id().to_owned() });
    }
    let opened = kek.open(name.as_str(), &key.sealed).map_err(|error| damaged(name, error))?;
    Ok((key, opened))
}

fn damaged(name: KeyName, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> OpenError {
    OpenError::Damaged { name: name.as_str().to_owned(), source: source.into() }
}

fn seal(kek: &KeyEncryptionKey, name: KeyName, public_key: Vec<u8>, private_key: &[u8]) -> ServerKey {
    ServerKey {
        name: name.as_str().to_owned(),
        public_key,
        sealed: kek.seal(name.as_str(), private_key),
        kek_id: kek.id().to_owned(),
        certificate: None,
    }
}

fn seal_private(kek: &KeyEncryptionKey, name: KeyName, key: &PrivateKey) -> ServerKey {
    seal(kek, name, key.public_key().to_spki_der(), &key.to_pkcs8_der())
}
