//! The server's own keys: made by the first start, sealed in the database, opened in memory.
//!
//! Nobody configures them. The first of several replicas that start on an empty database makes all keys in one
//! transaction; the others find them. A database that was sealed under another key-encryption key is refused rather than
//! filled with new keys: devices trust the old ones.

mod kek;

use std::{fmt, path::Path};

use chrono::{DateTime, Utc};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData as _};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use sqlx::{PgConnection, PgPool};

use crate::{
    auth::session::SessionKey,
    ca::{self, Authority, CaError},
    db::{self, server_key::ServerKey},
};

pub use kek::{KeyFileError, SealBroken};

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
    /// A row is damaged.
    #[error("the key {name:?} in the database is damaged")]
    Damaged {
        /// Which.
        name: &'static str,
        /// How.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The cryptographic library makes no key.
    #[error("no key can be made")]
    Generate(#[source] CaError),
}

impl OpenError {
    /// What the operator can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Database(_) | Self::Generate(_) => None,
            Self::KeyFile(_) => Some("name a file that this account can read and, at the first start, make"),
            Self::KeyFileMissing | Self::OtherKey { .. } => Some(
                "give the file that the first server on this database has (key-encryption-key in its data directory) with --key-file",
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
}

impl KeyName {
    /// The name in the database, which is also bound into the seal.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CertificateAuthority => "certificate-authority",
            Self::Session => "session",
        }
    }
}

/// The opened keys.
pub struct Keyring {
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
        let mut keys = db::server_key::all_locked(&mut transaction).await?;
        let kek = if keys.is_empty() {
            let kek = KeyEncryptionKey::read_or_create(key_file).map_err(OpenError::KeyFile)?;
            generate(&mut transaction, &kek, now).await?;
            keys = db::server_key::all_locked(&mut transaction).await?;
            kek
        } else {
            KeyEncryptionKey::read(key_file).map_err(OpenError::KeyFile)?.ok_or(OpenError::KeyFileMissing)?
        };
        let ring = Self::unseal(&kek, &keys)?;
        transaction.commit().await?;
        Ok(ring)
    }

    fn unseal(kek: &KeyEncryptionKey, keys: &[ServerKey]) -> Result<Self, OpenError> {
        let (row, private_key) = unseal(kek, keys, KeyName::CertificateAuthority)?;
        let certificate = CertificateDer::from(row.certificate.clone().unwrap_or_default());
        let authority = Authority::open(certificate, &PrivatePkcs8KeyDer::from(private_key))
            .map_err(|error| damaged(KeyName::CertificateAuthority, error))?;
        let (_, session) = unseal(kek, keys, KeyName::Session)?;
        let session = <&[u8; SESSION_KEY_BYTES]>::try_from(session.as_slice())
            .map_err(|error| damaged(KeyName::Session, error))?;
        Ok(Self { authority, session: SessionKey::new(session) })
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
    OpenError::Damaged { name: name.as_str(), source: source.into() }
}

/// Makes every key and stores it.
async fn generate(connection: &mut PgConnection, kek: &KeyEncryptionKey, now: DateTime<Utc>) -> Result<(), OpenError> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(|error| OpenError::Generate(error.into()))?;
    let certificate = ca::authority_certificate(&key, rand::random(), now).map_err(OpenError::Generate)?;
    let authority = ServerKey {
        certificate: Some(certificate.to_vec()),
        ..seal(kek, KeyName::CertificateAuthority, key.subject_public_key_info(), key.serialized_der())
    };
    let session = seal(kek, KeyName::Session, Vec::new(), &rand::random::<[u8; SESSION_KEY_BYTES]>());
    for key in [authority, session] {
        db::server_key::insert(&mut *connection, &key, now).await?;
    }
    Ok(())
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
