//! Targets: what may be installed, and the hash bins a long list is cut into.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use ota_domain::{DeviceId, Hardware, PackageName, Sha256Digest, Version, release::Installer};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::{Document, Role, RoleKeys, check_version, sealed::Sealed, target_path};
use crate::key::{KeyId, PublicKey};

/// A targets document: the top of a repository's list, or one of its hash bins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Targets {
    /// From 1, rising.
    pub version: u64,
    /// When it expires.
    #[serde(with = "super::time")]
    pub expires: DateTime<Utc>,
    /// What is listed here, by path (see [`target_path`]).
    pub targets: BTreeMap<String, Target>,
    /// The bins that list the rest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delegations: Option<Bins>,
    /// In the director repository: whose document it is.
    #[serde(rename = "x-ota-device", default, skip_serializing_if = "Option::is_none")]
    pub device: Option<DeviceId>,
}

/// One release: exact bytes, and what has to be known of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "TargetFile", into = "TargetFile")]
pub struct Target {
    /// Number of bytes.
    pub length: u64,
    /// Their SHA-256.
    pub sha256: Sha256Digest,
    /// What it is.
    pub custom: Custom,
}

/// What is signed of a release besides its bytes. Unknown members are ignored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Custom {
    /// What it is a release of.
    pub package: PackageName,
    /// Its version.
    pub version: Version,
    /// Rises with every release of the package.
    pub release_counter: i64,
    /// The lowest counter of the package that may be installed, the same in all its entries; 0 forbids none.
    pub floor: i64,
    /// The hardware types it fits. Empty means any.
    pub hardware: Vec<Hardware>,
    /// How it is installed.
    pub installer: Installer,
    /// Size of the installed tree in bytes; 0 when not known.
    pub unpacked_size_bytes: u64,
}

impl Target {
    /// What the release is called.
    #[must_use]
    pub fn path(&self) -> String {
        target_path(&self.custom.package, &self.custom.version)
    }
}

#[derive(Serialize, Deserialize)]
struct TargetFile {
    length: u64,
    hashes: Hashes,
    custom: Custom,
}

#[derive(Serialize, Deserialize)]
struct Hashes {
    sha256: Sha256Digest,
}

impl From<TargetFile> for Target {
    fn from(file: TargetFile) -> Self {
        Self { length: file.length, sha256: file.hashes.sha256, custom: file.custom }
    }
}

impl From<Target> for TargetFile {
    fn from(target: Target) -> Self {
        Self { length: target.length, hashes: Hashes { sha256: target.sha256 }, custom: target.custom }
    }
}

impl Sealed for Targets {
    fn check(&self) -> Result<(), String> {
        check_version(self.version)?;
        self.targets.iter().try_for_each(|(path, target)| {
            if target.path() == *path { Ok(()) } else { Err(format!("the entry {path} is of {}", target.path())) }
        })
    }
}

impl Document for Targets {
    const TYPE: &'static str = "targets";
    const MAX_BYTES: usize = Role::Targets.max_bytes();
}

/// Delegations to hash bins: every path is in the bin whose prefixes its SHA-256 starts with. All bins have the same keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bins {
    /// How many: 64 or 1,024.
    pub count: u32,
    /// Who may sign them.
    pub keys: BTreeMap<KeyId, PublicKey>,
    /// Signatures each takes, from 1.
    pub threshold: u32,
}

impl Bins {
    /// Numbers of bins there can be.
    pub const COUNTS: [u32; 2] = [64, 1_024];

    /// The bin that lists a path if any does.
    #[must_use]
    pub fn role_of(&self, path: &str) -> String {
        let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, path.as_bytes());
        let top = hash.as_ref().iter().take(4).fold(0u32, |bits, byte| bits << 8 | u32::from(*byte));
        self.role(top >> (32 - self.count.ilog2()))
    }

    /// The names of all bins, in order.
    pub fn roles(&self) -> impl Iterator<Item = String> {
        (0..self.count).map(|index| self.role(index))
    }

    fn digits(&self) -> usize {
        // A hexadecimal digit has four bits.
        self.count.ilog2().div_ceil(4) as usize
    }

    fn role(&self, index: u32) -> String {
        format!("bin-{index:0digits$x}", digits = self.digits())
    }

    fn delegations(&self) -> Delegations {
        let digits = self.digits();
        let prefixes = 16u32.pow(u32::try_from(digits).unwrap_or(8)) / self.count;
        let role = |index| DelegatedRole {
            name: self.role(index),
            threshold: self.threshold,
            keyids: self.keys.keys().cloned().collect(),
            terminating: true,
            path_hash_prefixes: (index * prefixes..(index + 1) * prefixes)
                .map(|prefix| format!("{prefix:0digits$x}"))
                .collect(),
        };
        Delegations { keys: self.keys.clone(), roles: (0..self.count).map(role).collect() }
    }
}

#[derive(PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Delegations {
    keys: BTreeMap<KeyId, PublicKey>,
    roles: Vec<DelegatedRole>,
}

#[derive(PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct DelegatedRole {
    name: String,
    threshold: u32,
    keyids: Vec<KeyId>,
    terminating: bool,
    path_hash_prefixes: Vec<String>,
}

impl Serialize for Bins {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.delegations().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Bins {
    /// Accepts exactly what `serialize` writes: delegations of another kind are none of ours.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let delegations = Delegations::deserialize(deserializer)?;
        let count = u32::try_from(delegations.roles.len()).ok().filter(|count| Self::COUNTS.contains(count));
        let count = count.ok_or_else(|| de::Error::custom("there must be 64 or 1,024 bins"))?;
        let threshold = delegations.roles.first().map_or(0, |role| role.threshold);
        let bins = Self { count, keys: delegations.keys, threshold };
        for (id, key) in &bins.keys {
            if key.id() != *id {
                return Err(de::Error::custom(format!("key {id} has another id")));
            }
        }
        let keys = RoleKeys { threshold, key_ids: bins.keys.keys().cloned().collect() };
        keys.check(&bins.keys).map_err(de::Error::custom)?;
        if bins.delegations().roles == delegations.roles {
            Ok(bins)
        } else {
            Err(de::Error::custom("the bins are cut otherwise"))
        }
    }
}
