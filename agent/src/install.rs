//! Makes the tree of a release from its payload. Changes nothing that runs.
//!
//! The tree grows under a temporary name, is synced as a whole and takes its name in one step, so a tree under its name
//! is complete. The payload is hashed once more while it is read: the bytes that are unpacked are the bytes that were
//! checked, also when a crash lies between.

mod directory;
mod file;
#[cfg(test)]
mod tests;

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use chrono::{DateTime, Utc};
use ota_domain::Sha256Digest;
use ota_domain::release::{Installer, Payload};
use sha2::{Digest, Sha256};

use crate::archive::{self, Limits};
use crate::durable;
use crate::failure::{Failure, FailureCode, from_error, is_disk_full};
use crate::release::Release;
use crate::releases::{Record, Releases};
use crate::tree::Tree;
pub use directory::Directory;
pub use file::SingleFile;

/// Why a tree was not made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The payload on disk is gone or is not the one that was checked.
    #[error("the downloaded payload is gone or damaged")]
    PayloadLost,
    /// The payload is an archive that breaks a rule.
    #[error("the payload cannot be unpacked")]
    Archive(#[source] archive::Error),
    /// The disk refused.
    #[error("cannot write the release to disk")]
    Disk(#[source] io::Error),
}

impl Error {
    /// Returns what the server is told; `None` when the payload has to be fetched again.
    pub fn failure(&self) -> Option<Failure> {
        let code = match self {
            Self::PayloadLost => return None,
            Self::Archive(error) if error.is_disk_full() => FailureCode::NoSpace,
            Self::Archive(_) => FailureCode::Archive,
            Self::Disk(error) if is_disk_full(error) => FailureCode::NoSpace,
            Self::Disk(_) => FailureCode::Install,
        };
        Some(from_error(code, self))
    }
}

/// One way to make a tree from a payload.
pub trait Unpack {
    /// Reads `payload` to its end and fills the empty folder `into`. Syncs nothing.
    fn unpack(&self, payload: &mut dyn Read, into: &Path) -> Result<Tree, Error>;
}

/// Makes the tree of `release` from its downloaded payload and deletes the download. May be run again at any point.
pub fn install(releases: &Releases, release: &Release, unpack: &dyn Unpack, now: DateTime<Utc>) -> Result<(), Error> {
    let payload = release.payload.sha256;
    if releases.is_whole(payload).map_err(Error::Disk)? {
        return releases.remove_download(payload).map_err(Error::Disk);
    }
    let made = make(releases, release, unpack, now);
    if made.is_err() {
        // Frees the space that may have been the reason; the next try begins with the same removal.
        durable::remove_tree(&releases.unfinished_tree(payload)).map_err(Error::Disk)?;
    }
    made?;
    releases.remove_download(payload).map_err(Error::Disk)
}

fn make(releases: &Releases, release: &Release, unpack: &dyn Unpack, now: DateTime<Utc>) -> Result<(), Error> {
    let payload = release.payload.sha256;
    let part = match File::open(releases.part(payload)) {
        Ok(part) => part,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Error::PayloadLost),
        Err(error) => return Err(Error::Disk(error)),
    };
    releases.remove(payload).map_err(Error::Disk)?;
    let into = releases.unfinished_tree(payload);
    durable::remove_tree(&into).map_err(Error::Disk)?;
    fs::create_dir(&into).map_err(Error::Disk)?;

    let mut reader = HashingReader { inner: part, hash: Sha256::new(), count: 0 };
    let unpacked = unpack.unpack(&mut reader, &into);
    // A payload that turns out damaged explains whatever else went wrong while reading it.
    let is_same = reader.finish().map_err(Error::Disk)? == release.payload;
    let tree = match (unpacked, is_same) {
        (Ok(tree), true) => tree,
        (Err(Error::Disk(error)), _) => return Err(Error::Disk(error)),
        (_, false) => return Err(Error::PayloadLost),
        (Err(error), true) => return Err(error),
    };
    // One call for the whole tree: a sync for each of thousands of files would take minutes on an SD card.
    let folder = File::open(&into).map_err(Error::Disk)?;
    rustix::fs::syncfs(&folder).map_err(|error| Error::Disk(error.into()))?;
    let record = Record { release: release.clone(), tree_sha256: tree.sha256(), installed_at: now };
    releases.add(&record).map_err(Error::Disk)
}

/// Returns the installer for a release.
pub fn installer(kind: Installer, limits: Limits, single_file: SingleFile) -> Box<dyn Unpack + Send> {
    match kind {
        Installer::Directory => Box::new(Directory { limits }),
        Installer::File => Box::new(single_file),
    }
}

/// Returns how many bytes must be free to download the rest of a payload and to unpack it, with `reserve` to spare.
pub fn space_needed(payload: Payload, unpacked_size_bytes: u64, part_bytes: u64, reserve: u64) -> u64 {
    // An archive of plain files unpacks to about its own size.
    let unpacked = if unpacked_size_bytes == 0 { payload.size_bytes } else { unpacked_size_bytes };
    payload.size_bytes.saturating_sub(part_bytes).saturating_add(unpacked).saturating_add(reserve)
}

/// Returns how many bytes this user can still write to the file system of a folder.
pub fn space_free(folder: &Path) -> io::Result<u64> {
    let stat = rustix::fs::statvfs(folder)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Hashes what passes through it.
struct HashingReader {
    inner: File,
    hash: Sha256,
    count: u64,
}

impl HashingReader {
    /// Reads what is left and returns what all of it was.
    fn finish(mut self) -> io::Result<Payload> {
        io::copy(&mut self, &mut io::sink())?;
        Ok(Payload { sha256: Sha256Digest(self.hash.finalize().into()), size_bytes: self.count })
    }
}

impl Read for HashingReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hash.update(&buffer[..count]);
        self.count += count as u64;
        Ok(count)
    }
}
