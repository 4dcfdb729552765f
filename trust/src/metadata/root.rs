//! The root: which keys a repository's roles have.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::{Document, Role, check_version, sealed::Sealed};
use crate::key::{KeyId, PublicKey};

/// Who holds the root keys. A member of ours in the root, `x-ota-mode`, which other verifiers carry along.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// The server.
    Managed,
    /// The operators. What a root without the member means: nobody says that the server holds them.
    #[default]
    Adopted,
}

/// The keys of one role, and how many have to sign.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoleKeys {
    /// Signatures it takes, from 1.
    pub threshold: u32,
    /// Who may sign, each once.
    #[serde(rename = "keyids")]
    pub key_ids: Vec<KeyId>,
}

/// The root document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Root {
    /// From 1, one more with each root.
    pub version: u64,
    /// When it expires.
    #[serde(with = "super::time")]
    pub expires: DateTime<Utc>,
    /// Every key that a role names, by its id.
    pub keys: BTreeMap<KeyId, PublicKey>,
    /// The roles, all four.
    pub roles: BTreeMap<Role, RoleKeys>,
    /// Who holds the root keys.
    #[serde(rename = "x-ota-mode", default)]
    pub mode: Mode,
    /// Whether files are named by version. True in all we write; says nothing to verifiers that read no files.
    #[serde(default)]
    consistent_snapshot: bool,
}

impl Root {
    /// Version 1 of a root in which every role takes one signature, by any of its keys.
    #[must_use]
    pub fn first(mode: Mode, expires: DateTime<Utc>, roles: &[(Role, &[&PublicKey])]) -> Self {
        let mut root = Self {
            version: 1,
            expires,
            keys: BTreeMap::new(),
            roles: BTreeMap::new(),
            mode,
            consistent_snapshot: true,
        };
        for (role, keys) in roles {
            root.set_role(*role, 1, keys);
        }
        root
    }

    /// The root that comes after this one: the same keys, the next version. It needs the signatures of both.
    #[must_use]
    pub fn next(&self, expires: DateTime<Utc>) -> Self {
        Self { version: self.version + 1, expires, consistent_snapshot: true, ..self.clone() }
    }

    /// Gives a role other keys. Keys that no role names any more are dropped.
    pub fn set_role(&mut self, role: Role, threshold: u32, keys: &[&PublicKey]) {
        let ids: BTreeSet<KeyId> = keys.iter().map(|key| key.id()).collect();
        self.roles.insert(role, RoleKeys { threshold, key_ids: ids.into_iter().collect() });
        self.keys.extend(keys.iter().map(|key| (key.id(), (*key).clone())));
        let roles = &self.roles;
        self.keys.retain(|id, _| roles.values().any(|role| role.key_ids.contains(id)));
    }

    /// The keys of a role, by id.
    pub fn keys_of(&self, role: Role) -> impl Iterator<Item = &PublicKey> {
        self.roles.get(&role).into_iter().flat_map(|role| &role.key_ids).filter_map(|id| self.keys.get(id))
    }

    /// How many signatures a role takes.
    #[must_use]
    pub fn threshold(&self, role: Role) -> u32 {
        self.roles.get(&role).map_or(0, |role| role.threshold)
    }
}

impl Sealed for Root {
    fn check(&self) -> Result<(), String> {
        check_version(self.version)?;
        for (id, key) in &self.keys {
            if key.id() != *id {
                return Err(format!("key {id} has another id"));
            }
        }
        for role in Role::ALL {
            let keys = self.roles.get(&role).ok_or_else(|| format!("it has no role {role}"))?;
            keys.check(&self.keys).map_err(|reason| format!("role {role}: {reason}"))?;
        }
        Ok(())
    }
}

impl RoleKeys {
    /// Every key is there and named once, and they suffice.
    pub(super) fn check(&self, keys: &BTreeMap<KeyId, PublicKey>) -> Result<(), String> {
        let distinct: BTreeSet<&KeyId> = self.key_ids.iter().collect();
        if distinct.len() != self.key_ids.len() {
            return Err("a key is named twice".to_owned());
        }
        if let Some(id) = distinct.iter().find(|id| !keys.contains_key(**id)) {
            return Err(format!("key {id} is not there"));
        }
        if self.threshold == 0 || self.threshold as usize > distinct.len() {
            return Err(format!("{} keys cannot give {} signatures", distinct.len(), self.threshold));
        }
        Ok(())
    }
}

impl Document for Root {
    const TYPE: &'static str = "root";
    const MAX_BYTES: usize = Role::Root.max_bytes();
}
