//! Who the device is: the credential it made itself and the identity the server gave for it.
//!
//! The credential is on disk before the server hears of it, so an enrolment that was cut short is repeated with the same
//! credential and comes out as the same device. Nothing here ever prints the secret.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use ota_domain::secret::{BearerToken, SECRET_BYTES, Secret};
use ota_domain::{DeviceId, EnrollTokenId, Hardware, device};
use rand::Rng;
use serde::{Deserialize, Serialize};

use crate::durable;
use crate::server_url::ServerUrl;

/// Why the identity cannot be read or kept.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A file does not hold what it should.
    #[error("{path} is damaged")]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// A file cannot be written.
    #[error("cannot write {path}")]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// The secret, and the token it was or will be shown with. Readable by its owner alone.
#[derive(Serialize, Deserialize)]
struct CredentialFile {
    token: EnrollTokenId,
    secret: String,
}

/// A credential that the device made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credential {
    /// The enrolment token that it belongs to.
    pub token: EnrollTokenId,
    /// The secret.
    pub secret: Secret,
}

/// What the server made of the device. Not secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enrollment {
    /// The device's id.
    pub device: DeviceId,
    /// The server that knows it.
    pub server: ServerUrl,
    /// The hardware type it enrolled with.
    pub hardware: Hardware,
    /// Its admission, as the server last told it.
    pub state: device::State,
    /// When it enrolled.
    pub enrolled_at: DateTime<Utc>,
}

impl Credential {
    /// Returns the credential to enrol with: the one on disk if it was made for the same token, else a new one, kept.
    pub fn for_token(data: &Path, token: EnrollTokenId, rng: &mut impl Rng) -> Result<Self, Error> {
        if let Some(credential) = Self::load(data)?
            && credential.token == token
        {
            return Ok(credential);
        }
        let mut secret = [0; SECRET_BYTES];
        rng.fill_bytes(&mut secret);
        let path = credential_path(data);
        let file = CredentialFile { token, secret: bs58::encode(secret).into_string() };
        let json = serde_json::to_vec(&file).map_err(|_| Error::Damaged { path: path.clone() })?;
        durable::write(&path, &json, 0o600).map_err(|source| Error::Write { path, source })?;
        Ok(Self { token, secret: Secret(secret) })
    }

    /// Reads the credential, if there is one.
    pub fn load(data: &Path) -> Result<Option<Self>, Error> {
        let path = credential_path(data);
        let Some(file) = read_json::<CredentialFile>(&path)? else { return Ok(None) };
        let mut secret = [0; SECRET_BYTES];
        match bs58::decode(&file.secret).onto(&mut secret) {
            Ok(SECRET_BYTES) => Ok(Some(Self { token: file.token, secret: Secret(secret) })),
            Ok(_) | Err(_) => Err(Error::Damaged { path }),
        }
    }

    /// Returns what goes behind `authorization: Bearer`.
    pub fn bearer(&self, device: DeviceId) -> BearerToken {
        BearerToken::Device { device, secret: self.secret.clone() }
    }
}

impl Enrollment {
    /// Reads the enrolment, if there is one.
    pub fn load(data: &Path) -> Result<Option<Self>, Error> {
        read_json(&enrollment_path(data))
    }

    /// Keeps the enrolment.
    pub fn save(&self, data: &Path) -> Result<(), Error> {
        let path = enrollment_path(data);
        let json = serde_json::to_vec_pretty(self).map_err(|_| Error::Damaged { path: path.clone() })?;
        durable::write(&path, &json, 0o644).map_err(|source| Error::Write { path, source })
    }
}

fn credential_path(data: &Path) -> PathBuf {
    data.join("credential")
}

fn enrollment_path(data: &Path) -> PathBuf {
    data.join("enrollment.json")
}

fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<Option<T>, Error> {
    match fs::read(path) {
        Ok(bytes) => match serde_json::from_slice(&bytes) {
            Ok(value) => Ok(Some(value)),
            // Not the parser's words: they may quote the secret.
            Err(_) => Err(Error::Damaged { path: path.to_owned() }),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::Read { path: path.to_owned(), source }),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use rand::SeedableRng;
    use rand::rngs::StdRng;
    use uuid::Uuid;

    use super::*;

    const TOKEN: EnrollTokenId = EnrollTokenId(Uuid::from_u128(1));

    #[test]
    fn an_interrupted_enrolment_is_repeated_with_the_same_credential() {
        let data = tempfile::tempdir().unwrap();
        let mut rng = StdRng::seed_from_u64(1);
        let first = Credential::for_token(data.path(), TOKEN, &mut rng).unwrap();
        assert_eq!(Credential::for_token(data.path(), TOKEN, &mut rng).unwrap(), first);
        assert_eq!(Credential::load(data.path()).unwrap(), Some(first.clone()));
        let other = EnrollTokenId(Uuid::from_u128(2));
        assert_ne!(Credential::for_token(data.path(), other, &mut rng).unwrap().secret, first.secret);
    }

    #[test]
    fn the_credential_is_readable_by_its_owner_alone_and_never_shown() {
        let data = tempfile::tempdir().unwrap();
        let credential = Credential::for_token(data.path(), TOKEN, &mut StdRng::seed_from_u64(1)).unwrap();
        let mode = fs::metadata(data.path().join("credential")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(format!("{credential:?}").contains("Secret(..)"));
    }

    #[test]
    fn a_damaged_credential_is_an_error_and_not_a_new_one() {
        let data = tempfile::tempdir().unwrap();
        fs::write(data.path().join("credential"), b"{\"token\":").unwrap();
        let error = Credential::for_token(data.path(), TOKEN, &mut StdRng::seed_from_u64(1)).unwrap_err();
        assert!(matches!(error, Error::Damaged { .. }));
    }
}
