//! One file that carries what devices should run, and everything they need to believe it, to where no network is.
//!
//! A tar (POSIX.1-1988 ustar with GNU sizes) of plain files, uncompressed:
//!
//! | path | content |
//! |---|---|
//! | `payloads/<sha256>` | a payload's bytes; the name is 64 lower-case hexadecimal digits |
//! | `devices/<uuid>/check-in` | a serialised `ota.device.v1.CheckInResponse` with all metadata from the first root on |
//! | `bundle.json` | the [`Manifest`]; always the last, so that a file cut short is told from a whole one |
//!
//! The file as such is not signed: a device verifies the metadata in its answer as if the server had sent it, and a
//! payload against that metadata. So nothing here is trusted either: a reader refuses what it does not expect, reads no
//! more into memory than it allows, and never creates a file.

mod bundle;
mod manifest;
mod writer;

pub use bundle::{Bundle, Limits, ReadError};
pub use manifest::{DeviceEntry, MANIFEST_FORMAT, MANIFEST_VERSION, Manifest};
pub use writer::{EntryWriter, WriteError, Writer};

use ota_domain::{DeviceId, Sha256Digest};

/// Name of the manifest's entry.
const MANIFEST_PATH: &str = "bundle.json";

/// Bytes that every header has, and that content is padded to a multiple of.
pub const BLOCK_BYTES: u64 = 512;

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Entry {
    /// A payload's bytes.
    Payload(Sha256Digest),
    /// What the server would answer to a device's check-in.
    CheckIn(DeviceId),
    /// The manifest.
    Manifest,
}

impl Entry {
    /// Returns the path in the archive.
    pub fn path(self) -> String {
        match self {
            Self::Payload(sha256) => format!("payloads/{sha256}"),
            Self::CheckIn(device) => format!("devices/{device}/check-in"),
            Self::Manifest => MANIFEST_PATH.to_owned(),
        }
    }

    /// Tells what the entry with this path is. `None` when no bundle has such a path: a path has one spelling.
    pub fn from_path(path: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(path).ok()?;
        let entry = if text == MANIFEST_PATH {
            Self::Manifest
        } else if let Some(digits) = text.strip_prefix("payloads/") {
            Self::Payload(digits.parse().ok()?)
        } else {
            let device = text.strip_prefix("devices/")?.strip_suffix("/check-in")?;
            Self::CheckIn(device.parse().ok()?)
        };
        (entry.path() == text).then_some(entry)
    }
}

#[cfg(test)]
mod tests;
