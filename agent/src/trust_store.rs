//! Keeps what the device trusts: the roots it was enrolled with, the newest metadata it verified, its floors.
//!
//! Two copies, `trust/a` and `trust/b`, each whole or not there; [`copies`] says how they survive. A device that is
//! enrolled and has neither trusts nothing: it keeps what it runs and never begins afresh, because that would be a
//! way to take it back to what it had left behind.

mod copies;

use std::io;
use std::path::{Path, PathBuf};

use ota_domain::{DeviceId, Hardware};
use ota_trust::TrustError;
use ota_trust::device::Trusted;

use crate::durable;
use crate::durable::disk::SystemDisk;
pub(crate) use copies::Copies;

/// Why the store is of no use.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Neither copy is whole.
    #[error("the record of what this device trusts is damaged or gone: {path}")]
    Lost {
        /// The folder.
        path: PathBuf,
    },
    /// The disk does not give or take it.
    #[error("cannot use the record of what this device trusts: {path}")]
    Disk {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The roots that came with the enrolment are no roots.
    #[error("the server's roots of trust are not in order")]
    Roots(#[source] TrustError),
}

/// The store of one data directory.
#[derive(Debug)]
pub struct TrustStore {
    folder: PathBuf,
    copies: Copies<SystemDisk>,
}

/// Begins the trust of a device that enrols, with roots that the pin has vouched for. Safe to repeat: what the same
/// device has learned from the same server since is kept. To be called before the enrolment is kept, so that no enrolled
/// device is without it.
pub fn begin(
    data: &Path,
    device: DeviceId,
    hardware: &Hardware,
    image_root: &[u8],
    director_root: &[u8],
) -> Result<(), Error> {
    let begun = Trusted::new(device, hardware.clone(), image_root, director_root).map_err(Error::Roots)?;
    let folder = folder(data);
    let disk = |source| Error::Disk { path: folder.clone(), source };
    durable::create_folder(&folder).map_err(disk)?;
    let (copies, kept) = Copies::open(SystemDisk, &folder).map_err(disk)?;
    let kept: Option<Trusted> = kept.and_then(|bytes| Trusted::from_bytes(&bytes).ok());
    if kept.is_some_and(|kept| kept.device() == device && kept.hardware() == hardware) {
        return Ok(());
    }
    TrustStore { folder: folder.clone(), copies }.accept(&begun)
}

/// Returns what a store holds, for whoever only looks. Nothing is repaired.
pub fn peek(data: &Path) -> Option<Trusted> {
    copies::peek(&SystemDisk, &folder(data)).and_then(|bytes| Trusted::from_bytes(&bytes).ok())
}

impl TrustStore {
    /// Reads what the device trusts, and repairs a copy that is not whole.
    pub fn open(data: &Path) -> Result<(Self, Trusted), Error> {
        let folder = folder(data);
        let disk = |source| Error::Disk { path: folder.clone(), source };
        let (copies, kept) = Copies::open(SystemDisk, &folder).map_err(disk)?;
        // A whole copy that this program cannot read was written by another one: as good as none.
        let kept = kept.and_then(|bytes| Trusted::from_bytes(&bytes).ok());
        let trusted = kept.ok_or_else(|| Error::Lost { path: folder.clone() })?;
        Ok((Self { folder, copies }, trusted))
    }

    /// Keeps what was verified. Until this has returned without an error it does not count; after an error the store has
    /// to be opened again.
    pub fn accept(&mut self, trusted: &Trusted) -> Result<(), Error> {
        self.copies.replace(&trusted.to_bytes()).map_err(|source| Error::Disk { path: self.folder.clone(), source })
    }
}

/// Returns where a data directory keeps its trust.
pub(crate) fn folder(data: &Path) -> PathBuf {
    data.join("trust")
}
