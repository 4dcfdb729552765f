//! The documents that a server signs again and again.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use ota_domain::DeviceId;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::{Document, Role, check_version, sealed::Sealed};

/// The snapshot: which versions of targets documents belong together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// From 1, rising.
    pub version: u64,
    /// When it expires.
    #[serde(with = "super::time")]
    pub expires: DateTime<Utc>,
    /// Version of each targets document by its file name, such as `targets.json`. A name that was here once stays, and its
    /// version never falls: a verifier refuses anything else.
    #[serde(with = "versions")]
    pub meta: BTreeMap<String, u64>,
}

/// The timestamp: which snapshot is the newest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timestamp {
    /// From 1, rising.
    pub version: u64,
    /// When it expires.
    #[serde(with = "super::time")]
    pub expires: DateTime<Utc>,
    /// Version of the snapshot.
    #[serde(rename = "meta", with = "snapshot_version")]
    pub snapshot_version: u64,
}

/// An answer to a nonce: proof that the director spoke after it was asked. Not TUF's; signed like it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Freshness {
    /// Who asked.
    pub device: DeviceId,
    /// What it sent.
    #[serde(with = "hexadecimal")]
    pub nonce: Vec<u8>,
    /// Version of the director's documents for this device.
    pub director_version: u64,
    /// The director's clock.
    #[serde(with = "super::time")]
    pub time: DateTime<Utc>,
}

/// Most bytes in a nonce.
const MAX_NONCE: usize = 64;

/// The file that holds a role's document.
pub(crate) fn file_name(role: &str) -> String {
    format!("{role}.json")
}

impl Sealed for Snapshot {
    fn check(&self) -> Result<(), String> {
        check_version(self.version)?;
        self.meta.values().try_for_each(|version| check_version(*version))
    }
}

impl Document for Snapshot {
    const TYPE: &'static str = "snapshot";
    const MAX_BYTES: usize = Role::Snapshot.max_bytes();
}

impl Sealed for Timestamp {
    fn check(&self) -> Result<(), String> {
        check_version(self.version)?;
        check_version(self.snapshot_version)
    }
}

impl Document for Timestamp {
    const TYPE: &'static str = "timestamp";
    const MAX_BYTES: usize = Role::Timestamp.max_bytes();
}

impl Sealed for Freshness {
    fn check(&self) -> Result<(), String> {
        check_version(self.director_version)?;
        if self.nonce.len() > MAX_NONCE { Err("the nonce is too long".to_owned()) } else { Ok(()) }
    }
}

impl Document for Freshness {
    const TYPE: &'static str = "freshness";
    const MAX_BYTES: usize = Role::Timestamp.max_bytes();
    const IS_TUF: bool = false;
}

#[derive(Serialize, Deserialize)]
struct File {
    version: u64,
}

mod versions {
    use super::{BTreeMap, Deserialize, Deserializer, File, Serializer};

    pub(super) fn serialize<S: Serializer>(meta: &BTreeMap<String, u64>, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(meta.iter().map(|(name, version)| (name, File { version: *version })))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, u64>, D::Error> {
        let files = BTreeMap::<String, File>::deserialize(deserializer)?;
        Ok(files.into_iter().map(|(name, file)| (name, file.version)).collect())
    }
}

mod snapshot_version {
    use super::{BTreeMap, Deserialize, Deserializer, File, Role, Serializer, de, file_name};

    pub(super) fn serialize<S: Serializer>(version: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map([(file_name(Role::Snapshot.as_str()), File { version: *version })])
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        let files = BTreeMap::<String, File>::deserialize(deserializer)?;
        let file = files.get(&file_name(Role::Snapshot.as_str())).filter(|_| files.len() == 1);
        file.map(|file| file.version).ok_or_else(|| de::Error::custom("it has to name snapshot.json alone"))
    }
}

mod hexadecimal {
    use super::{Deserialize, Deserializer, Serializer, de};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex::encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        hex::decode(String::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}
