//! What a bundle holds, for people and for a quick look. Not signed: nothing is decided by it.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use ota_domain::{DeviceId, Sha256Digest};
use serde::{Deserialize, Serialize};

/// Value of [`Manifest::format`].
pub const MANIFEST_FORMAT: &str = "ota-bundle";

/// Value of [`Manifest::version`] that this code writes and reads.
pub const MANIFEST_VERSION: u32 = 1;

/// The content of `bundle.json`. Members that are not known are ignored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Says that this is a bundle.
    pub format: String,
    /// Version of the bundle's form. A reader refuses others than its own.
    pub version: u32,
    /// When it was made.
    pub created: DateTime<Utc>,
    /// When its signed documents run out. The documents say so themselves; this is for people.
    pub expires: DateTime<Utc>,
    /// For which devices, and which payloads each needs.
    pub devices: BTreeMap<DeviceId, DeviceEntry>,
    /// The payloads and their sizes in bytes.
    pub payloads: BTreeMap<Sha256Digest, u64>,
}

/// What a bundle holds for one device.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceEntry {
    /// The payloads its deployments install. Empty when the bundle brings it metadata alone.
    pub payloads: Vec<Sha256Digest>,
}

impl Manifest {
    /// Makes an empty one.
    pub fn new(created: DateTime<Utc>, expires: DateTime<Utc>) -> Self {
        Self {
            format: MANIFEST_FORMAT.to_owned(),
            version: MANIFEST_VERSION,
            created,
            expires,
            devices: BTreeMap::new(),
            payloads: BTreeMap::new(),
        }
    }
}
