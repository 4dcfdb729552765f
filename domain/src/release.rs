//! What a release is made of.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::{Hardware, PackageName, ReleaseId, Sha256Digest, Version};

/// Most hardware types a release names.
pub const MAX_HARDWARE: usize = 64;
/// Most bytes in a release's notes.
pub const MAX_NOTES_BYTES: usize = 16 * 1024;

/// How a payload is installed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "sqlx", derive(sqlx::Type), sqlx(type_name = "installer", rename_all = "snake_case"))]
#[serde(rename_all = "snake_case")]
pub enum Installer {
    /// A tar archive unpacked to a tree of its own, switched by one symlink.
    Directory,
    /// One file, switched by one symlink.
    File,
}

impl Installer {
    /// The name the database and the command line use.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Directory => "directory",
            Self::File => "file",
        }
    }
}

/// Whether a release may be installed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "sqlx", derive(sqlx::Type), sqlx(type_name = "release_state", rename_all = "snake_case"))]
pub enum State {
    /// May be installed.
    Published,
    /// Taken out of use.
    Yanked,
}

/// The exact bytes to install.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Payload {
    /// Their SHA-256.
    pub sha256: Sha256Digest,
    /// Their number.
    pub size_bytes: u64,
}

/// One immutable version of a package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    /// Its id.
    pub id: ReleaseId,
    /// What it is a version of.
    pub package: PackageName,
    /// Its version.
    pub version: Version,
    /// Rises with every release of the package, whatever its version says.
    pub counter: i64,
    /// The hardware types it fits. Empty means any.
    pub hardware: Vec<Hardware>,
    /// How it is installed.
    pub installer: Installer,
    /// What is installed.
    pub payload: Payload,
    /// Size of the installed tree; 0 when not known.
    pub unpacked_size_bytes: u64,
    /// What is new.
    pub notes: String,
    /// Whether it may be installed.
    pub state: State,
    /// When it was published.
    pub created_at: DateTime<Utc>,
    /// Who published it.
    pub creator: String,
    /// Counts its changes.
    pub revision: i64,
    /// Whether a signed targets document lists it. Only then can it be assigned.
    pub is_signed: bool,
}

/// A release to publish, once every field by itself has been found right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    /// What it is a version of.
    pub package: PackageName,
    /// Its version.
    pub version: Version,
    /// The hardware types it fits. Empty means any.
    pub hardware: Vec<Hardware>,
    /// How it is installed.
    pub installer: Installer,
    /// What is installed.
    pub payload: Sha256Digest,
    /// Size of the installed tree; 0 when not known.
    pub unpacked_size_bytes: u64,
    /// What is new.
    pub notes: String,
}

/// Whether a release for `hardware` fits a device of type `device`. No hardware named means any.
#[must_use]
pub fn fits(hardware: &[Hardware], device: &Hardware) -> bool {
    hardware.is_empty() || hardware.contains(device)
}
