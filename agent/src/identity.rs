//! Who the device is: the key it made itself, and what the server gave for it.
//!
//! The key is on disk before the server hears of it, so an enrolment that was cut short is repeated with the same key
//! and comes out as the same device. The enrolment is written last: a device that has one has everything. Nothing here
//! ever prints the key.

mod certificate;
mod key;
mod renewal;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use ota_domain::{DeviceId, Hardware, device};
use ota_tls::CertificateDer;
use serde::{Deserialize, Serialize};

use crate::durable;
use crate::server_url::ServerUrl;
pub use certificate::{Certificate, CertificateError};
pub use key::{DeviceKey, KeyError};
pub use renewal::{renewal_at, renewal_fraction};

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
    /// No key can be made.
    #[error("cannot make a key")]
    Key(#[source] KeyError),
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
    /// Certificates of the authorities that sign the server's, when the pinned one does not.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
}

impl Enrollment {
    /// Reads the enrolment, if there is one.
    pub fn load(data: &Path) -> Result<Option<Self>, Error> {
        let path = enrollment_path(data);
        let Some(bytes) = read(&path)? else { return Ok(None) };
        serde_json::from_slice(&bytes).map(Some).map_err(|_| Error::Damaged { path })
    }

    /// Keeps the enrolment.
    pub fn save(&self, data: &Path) -> Result<(), Error> {
        let path = enrollment_path(data);
        let json = serde_json::to_vec_pretty(self).map_err(|_| Error::Damaged { path: path.clone() })?;
        durable::write(&path, &json, 0o644).map_err(|source| Error::Write { path, source })
    }
}

/// Reads the certificate of the authority that the server was pinned by, if it is known.
pub fn load_authority(data: &Path) -> Result<Option<CertificateDer<'static>>, Error> {
    let path = authority_path(data);
    let Some(text) = read(&path)? else { return Ok(None) };
    let certificates = ota_tls::parse_certificates(&text).ok();
    certificates.and_then(|found| found.into_iter().next()).map(Some).ok_or(Error::Damaged { path })
}

/// Keeps the certificate of the authority.
pub fn save_authority(data: &Path, certificate: &CertificateDer<'_>) -> Result<(), Error> {
    keep(authority_path(data), ota_tls::write_certificate(certificate).as_bytes(), 0o644)
}

fn enrollment_path(data: &Path) -> PathBuf {
    data.join("enrollment.json")
}

fn authority_path(data: &Path) -> PathBuf {
    folder(data).join("authority.pem")
}

fn folder(data: &Path) -> PathBuf {
    data.join("identity")
}

/// Writes a file of the identity's folder.
fn keep(path: PathBuf, content: &[u8], mode: u32) -> Result<(), Error> {
    let folder = path.parent().unwrap_or(Path::new("."));
    durable::create_folder(folder)
        .and_then(|()| durable::write(&path, content, mode))
        .map_err(|source| Error::Write { path, source })
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::Read { path: path.to_owned(), source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_damaged_is_an_error_and_not_absent() {
        let data = tempfile::tempdir().unwrap();
        assert!(Enrollment::load(data.path()).unwrap().is_none());
        assert!(load_authority(data.path()).unwrap().is_none());
        fs::create_dir(data.path().join("identity")).unwrap();
        fs::write(data.path().join("enrollment.json"), b"{\"device\":").unwrap();
        fs::write(data.path().join("identity/authority.pem"), b"-----BEGIN").unwrap();
        assert!(matches!(Enrollment::load(data.path()), Err(Error::Damaged { .. })));
        assert!(matches!(load_authority(data.path()), Err(Error::Damaged { .. })));
    }
}
