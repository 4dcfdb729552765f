//! Any repository of The Update Framework, verified document by document (TUF 5.3 to 5.6), whoever publishes it.
//!
//! Signatures, versions, lengths and hashes are checked by `sigstore_tuf`; this adds what a whole client needs: sizes are
//! checked before a byte is parsed, and the floors survive a change of root unless it rotates the keys of timestamp or
//! snapshot (TUF 5.3.11). What a device demands of our own documents beyond TUF is [`super::Repository`]'s to say.

mod content;
mod search;
mod stored;

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use sigstore_tuf::{Error as TufError, Metadata, TrustedMetadataSet};

use self::stored::Stored;
pub use self::{
    content::{Content, TargetFile},
    search::{MAX_VISITED, Search},
};
use super::{MAX_ROOT_STEPS, Rotation, TARGETS};
use crate::{
    fault::{Because as _, Fault, TrustError},
    metadata::{self, Role, file_name},
};

/// One repository, as far as it is trusted. An update that fails changes nothing. Its serde form is what a client stores;
/// reading it verifies all of it again.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(try_from = "Stored", into = "Stored")]
pub struct Chain {
    set: TrustedMetadataSet,
    timestamp: Option<Held>,
    /// The timestamp may name a newer one: then this only says below which versions nothing may go.
    snapshot: Option<Held>,
    /// By role: `targets` and what it delegates to, as the snapshot lists them.
    targets: BTreeMap<String, Held>,
    /// Targets documents that were trusted before, and that this snapshot does not list: the next one may.
    candidates: BTreeMap<String, Held>,
    floors: Floors,
    root_steps: usize,
    /// Whether a document may not change without its version. TUF allows it; nobody who signs with our code does it.
    final_versions: bool,
}

/// A document as it was signed.
#[derive(Debug, Clone)]
struct Held {
    version: u64,
    bytes: Vec<u8>,
    /// Who delegated to it; the role itself for one that nobody delegates to.
    delegator: String,
}

/// The lowest versions that are believed.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Floors {
    timestamp: u64,
    snapshot: u64,
    /// By file name.
    targets: BTreeMap<String, u64>,
}

/// Before everything: what is stored may have expired, and still says what came after what.
const NEVER: jiff::Timestamp = jiff::Timestamp::MIN;

impl Chain {
    /// Starts from a root that is trusted already: a pinned one, or a stored one. It may have expired.
    ///
    /// # Errors
    /// When it is no root, or not signed by its own keys.
    pub fn from_root(bytes: &[u8]) -> Result<Self, TrustError> {
        fits(bytes, Role::Root)?;
        Ok(Self {
            set: TrustedMetadataSet::from_root(bytes)?,
            timestamp: None,
            snapshot: None,
            targets: BTreeMap::new(),
            candidates: BTreeMap::new(),
            floors: Floors::default(),
            root_steps: 0,
            final_versions: false,
        })
    }

    /// From here on a document may not change without its version.
    #[must_use]
    pub(super) fn with_final_versions(self) -> Self {
        Self { final_versions: true, ..self }
    }

    /// Reads what [`Self::to_bytes`] wrote, and verifies it again.
    ///
    /// # Errors
    /// [`Fault::Store`] when it is not as it was written, as far as a signature covers it. The rest is for a checksum around
    /// the bytes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, TrustError> {
        serde_json::from_slice(bytes).map_err(|error| Fault::Store.because(error.to_string()))
    }

    /// The value as bytes, to be stored.
    ///
    /// # Panics
    /// Never: it has no map whose keys are not text.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("every key is text")
    }

    /// Whether files are named by version (`1.snapshot.json`) and by hash.
    #[must_use]
    pub fn is_consistent(&self) -> bool {
        self.set.root().consistent_snapshot
    }

    /// Version of the trusted root.
    #[must_use]
    pub fn root_version(&self) -> u64 {
        self.set.root().version
    }

    /// The root as signed.
    #[must_use]
    pub fn root_bytes(&self) -> &[u8] {
        self.set.root_bytes()
    }

    /// A role's document as signed: `root`, `timestamp`, `snapshot`, or a role of targets that the snapshot lists.
    #[must_use]
    pub fn bytes(&self, role: &str) -> Option<&[u8]> {
        let held = match role {
            "root" => return Some(self.root_bytes()),
            "timestamp" => self.timestamp.as_ref(),
            "snapshot" => self.snapshot.as_ref(),
            targets => self.targets.get(targets),
        };
        held.map(|held| held.bytes.as_slice())
    }

    /// The newest of every role that was ever trusted and may be again: what is held, and what the snapshot has overtaken.
    pub fn documents(&self) -> impl Iterator<Item = (&str, &[u8])> {
        let online = [("timestamp", &self.timestamp), ("snapshot", &self.snapshot)];
        let online = online.into_iter().filter_map(|(role, held)| Some((role, held.as_ref()?.bytes.as_slice())));
        let targets = self.targets.iter().chain(&self.candidates);
        let targets = targets.map(|(role, held)| (role.as_str(), held.bytes.as_slice()));
        std::iter::once(("root", self.root_bytes())).chain(online).chain(targets)
    }

    /// Whether a targets document is held as the snapshot lists it.
    pub(super) fn holds(&self, role: &str) -> bool {
        self.targets.contains_key(role)
    }

    /// Whether a targets document is held, or was and may be again.
    pub(super) fn remembers(&self, role: &str) -> bool {
        self.targets.contains_key(role) || self.candidates.contains_key(role)
    }

    /// Follows one root.
    ///
    /// # Errors
    /// When it is not the next, or not signed by the keys of the one before and by its own; and after [`MAX_ROOT_STEPS`].
    pub fn update_root(&mut self, bytes: &[u8]) -> Result<Rotation, TrustError> {
        let rotation = self.follow(bytes)?;
        self.verify_again();
        Ok(rotation)
    }

    /// Follows a root and leaves it to the caller to call [`Self::verify_again`] after the last.
    pub(super) fn follow(&mut self, bytes: &[u8]) -> Result<Rotation, TrustError> {
        if self.root_steps == MAX_ROOT_STEPS {
            return Err(Fault::Endless.because(format!("more than {MAX_ROOT_STEPS} roots")));
        }
        fits(bytes, Role::Root)?;
        let keys = |set: &TrustedMetadataSet, role: Role| {
            set.root().role(role.as_str()).map(|keys| keys.keyids.clone()).unwrap_or_default()
        };
        let before = Role::ALL.map(|role| (role, keys(&self.set, role)));
        self.set.update_root(bytes)?;
        self.root_steps += 1;
        let lost = |wanted: &[Role]| {
            before.iter().filter(|(role, _)| wanted.contains(role)).any(|(role, before)| {
                let kept = keys(&self.set, *role);
                before.iter().any(|id| !kept.contains(id))
            })
        };
        let rotation = Rotation {
            lost_online_key: lost(&[Role::Timestamp, Role::Snapshot]),
            lost_targets_key: lost(&[Role::Targets]),
        };
        if rotation.lost_online_key {
            // Whoever had the lost key may have signed versions that no honest signer will ever reach.
            self.floors = Floors::default();
            self.timestamp = None;
            self.snapshot = None;
        }
        Ok(rotation)
    }

    /// Lets a repository that is kept for long follow as many roots again.
    pub fn allow_root_steps(&mut self) {
        self.root_steps = 0;
    }

    /// Takes what was trusted before the root changed, as far as the new root's keys signed it.
    pub(super) fn verify_again(&mut self) {
        self.candidates.append(&mut self.targets);
        self.timestamp.take_if(|held| self.set.update_timestamp(&held.bytes, NEVER).is_err());
        self.snapshot.take_if(|held| self.set.update_snapshot(&held.bytes, NEVER).is_err());
        self.settle_targets();
    }

    /// Takes of the candidates what the snapshot lists, the top first. The rest waits: it says nothing any more, but the
    /// next snapshot may list it.
    fn settle_targets(&mut self) {
        if let Some((role, held)) = self.candidates.remove_entry(TARGETS) {
            self.settle(role, held);
        }
        self.settle_delegated();
    }

    /// Takes of the candidates what is delegated to, delegators before those they delegate to.
    fn settle_delegated(&mut self) {
        loop {
            let targets = &self.targets;
            let mut next = std::mem::take(&mut self.candidates);
            let mut waiting = BTreeMap::new();
            next.retain(|role, held| {
                let is_next = targets.contains_key(&held.delegator) && self.listed_version(role) == Some(held.version);
                if !is_next {
                    waiting.insert(role.clone(), held.clone());
                }
                is_next
            });
            self.candidates = waiting;
            let settled = next.into_iter().map(|(role, held)| self.settle(role, held)).filter(|taken| *taken).count();
            if settled == 0 {
                return;
            }
        }
    }

    /// Takes a targets document if the snapshot lists it, and says whether it did.
    fn settle(&mut self, role: String, held: Held) -> bool {
        let taken = if self.listed_version(&role) != Some(held.version) {
            false
        } else if role == TARGETS {
            self.set.update_targets(&held.bytes, NEVER).is_ok()
        } else if self.set.targets_role(&role).is_some() {
            // It was read already; only who delegates to it may have changed.
            self.set.verify_delegated_targets(&role, &held.delegator, NEVER).is_ok()
        } else {
            self.set.update_delegated_targets(&held.bytes, &role, &held.delegator, NEVER).is_ok()
        };
        let documents = if taken { &mut self.targets } else { &mut self.candidates };
        documents.insert(role, held);
        taken
    }

    /// Takes a newer timestamp. One of the version that is held is discarded, as TUF has it: then the answer is `false`.
    ///
    /// # Errors
    /// When it is not signed as it has to be, has expired, or goes back.
    pub fn update_timestamp(&mut self, bytes: &[u8], now: DateTime<Utc>) -> Result<bool, TrustError> {
        fits(bytes, Role::Timestamp)?;
        self.set.check_root_expired(instant(now))?;
        let document = self.verified::<sigstore_tuf::Timestamp>(bytes, Role::Timestamp)?;
        let snapshot = document.snapshot_meta().ok_or_else(|| Fault::Arbitrary.because("it names no snapshot"))?;
        not_below("timestamp", document.version, self.floors.timestamp)?;
        not_below("snapshot named by the timestamp", snapshot.version, self.floors.snapshot)?;
        match self.set.update_timestamp(bytes, instant(now)) {
            Ok(()) => {}
            Err(TufError::EqualVersion { .. }) => {
                self.set.check_timestamp_expired(instant(now))?;
                return Ok(false);
            }
            Err(error) => return Err(error.into()),
        }
        self.floors.timestamp = document.version;
        self.floors.snapshot = snapshot.version;
        self.timestamp = Some(Held::new(Role::Timestamp, document.version, bytes));
        Ok(true)
    }

    /// Takes the snapshot that the timestamp names.
    ///
    /// # Errors
    /// When it is not signed as it has to be, has expired, is another than the timestamp's, or lists an older targets
    /// document than before, or lacks one.
    pub fn update_snapshot(&mut self, bytes: &[u8], now: DateTime<Utc>) -> Result<(), TrustError> {
        fits(bytes, Role::Snapshot)?;
        let named = self.snapshot_version();
        let named = named.ok_or_else(|| Fault::MixAndMatch.because("a snapshot without its timestamp"))?;
        let document = self.verified::<sigstore_tuf::Snapshot>(bytes, Role::Snapshot)?;
        let version = document.version;
        if version != named {
            not_below("snapshot", version, self.snapshot.as_ref().map_or(0, |held| held.version))?;
            let found = format!("snapshot {version} where the timestamp names {named}");
            return Err(Fault::MixAndMatch.because(found));
        }
        for (name, floor) in &self.floors.targets {
            let listed = document.meta.get(name);
            let listed = listed.ok_or_else(|| Fault::Rollback.because(format!("the snapshot lists {name} no more")))?;
            not_below(name, listed.version, *floor)?;
        }
        self.unchanged(self.snapshot.as_ref(), version, bytes)?;
        self.set.update_snapshot(bytes, instant(now))?;
        self.floors.targets = versions(&document);
        self.snapshot = Some(Held::new(Role::Snapshot, version, bytes));
        self.candidates.append(&mut self.targets);
        self.settle_targets();
        Ok(())
    }

    /// Takes the top of the targets that the snapshot lists.
    ///
    /// # Errors
    /// When it is not signed as it has to be, has expired, or is another than the snapshot's.
    pub fn update_targets(&mut self, bytes: &[u8], now: DateTime<Utc>) -> Result<(), TrustError> {
        fits(bytes, Role::Targets)?;
        let version = version_of(bytes)?;
        self.expect_listed(TARGETS, version)?;
        let held = self.targets.get(TARGETS);
        if self.final_versions && held.is_some_and(|held| held.bytes != bytes) {
            self.verified::<sigstore_tuf::Targets>(bytes, Role::Targets)?;
        }
        self.unchanged(held, version, bytes)?;
        self.set.update_targets(bytes, instant(now))?;
        // What is delegated to may have other keys.
        self.candidates.append(&mut self.targets);
        self.candidates.remove(TARGETS);
        self.targets.insert(TARGETS.to_owned(), Held::new(Role::Targets, version, bytes));
        self.settle_delegated();
        Ok(())
    }

    /// Takes a targets document that the snapshot lists and that `delegator`, which is held, delegates to.
    ///
    /// # Errors
    /// When it is not signed as the delegator says, has expired, or is another than the snapshot's.
    pub fn update_delegated(
        &mut self,
        role: &str,
        delegator: &str,
        bytes: &[u8],
        now: DateTime<Utc>,
    ) -> Result<(), TrustError> {
        fits(bytes, Role::Targets)?;
        let version = version_of(bytes)?;
        self.expect_listed(role, version)?;
        if let Err(error) = self.unchanged(self.targets.get(role), version, bytes) {
            self.set.clone().update_delegated_targets(bytes, role, delegator, instant(now))?;
            return Err(error);
        }
        self.set.update_delegated_targets(bytes, role, delegator, instant(now))?;
        let held = Held { version, bytes: bytes.to_vec(), delegator: delegator.to_owned() };
        self.candidates.remove(role);
        self.targets.insert(role.to_owned(), held);
        Ok(())
    }

    /// Version of the snapshot that the timestamp names.
    #[must_use]
    pub fn snapshot_version(&self) -> Option<u64> {
        self.set.timestamp().and_then(|timestamp| timestamp.snapshot_meta()).map(|meta| meta.version)
    }

    /// Version in which the snapshot lists a role of targets.
    #[must_use]
    pub fn listed_version(&self, role: &str) -> Option<u64> {
        let snapshot = self.set.snapshot()?;
        snapshot.meta.get(&file_name(role)).map(|meta| meta.version)
    }

    /// Whether the snapshot that the timestamp names is held and has not expired.
    #[must_use]
    pub fn has_snapshot(&self, now: DateTime<Utc>) -> bool {
        let held = self.set.snapshot().map(|snapshot| snapshot.version);
        held.is_some() && held == self.snapshot_version() && self.set.check_snapshot_expired(instant(now)).is_ok()
    }

    /// Whether the top of the targets is held as the snapshot lists it, and has not expired.
    #[must_use]
    pub fn has_targets(&self, now: DateTime<Utc>) -> bool {
        let held = self.targets.contains_key(TARGETS).then(|| self.set.targets_role(TARGETS)).flatten();
        held.is_some_and(|targets| targets.expires >= instant(now))
    }

    /// Checks that root, timestamp, snapshot and targets are all there, belong together, and have not expired.
    ///
    /// # Errors
    /// When one is missing or is not the one that another names, or has expired.
    pub fn check(&self, now: DateTime<Utc>) -> Result<(), TrustError> {
        let missing = |what: &str| Fault::MixAndMatch.because(format!("there is no valid {what}"));
        self.set.check_root_expired(instant(now))?;
        self.set.check_timestamp_expired(instant(now))?;
        self.timestamp.as_ref().ok_or_else(|| missing("timestamp"))?;
        self.set.check_snapshot_expired(instant(now))?;
        if !self.has_snapshot(now) {
            return Err(missing("snapshot that the timestamp names"));
        }
        if self.has_targets(now) { Ok(()) } else { Err(missing("targets that the snapshot names")) }
    }

    /// The snapshot lists this version of a targets document.
    fn expect_listed(&self, role: &str, version: u64) -> Result<(), TrustError> {
        match self.listed_version(role) {
            Some(listed) if version == listed => Ok(()),
            Some(listed) if version < listed => {
                Err(Fault::Rollback.because(format!("{role} {version} where the snapshot lists {listed}")))
            }
            Some(listed) => {
                Err(Fault::MixAndMatch.because(format!("{role} {version} where the snapshot lists {listed}")))
            }
            None => Err(Fault::MixAndMatch.because(format!("no snapshot lists {role}"))),
        }
    }

    /// Reads a document and checks its signatures by the keys that the root gives a role.
    fn verified<T: sigstore_tuf::Role>(&self, bytes: &[u8], role: Role) -> Result<T, TrustError> {
        let root = self.set.root();
        let keys = root.role(role.as_str()).ok_or_else(|| TufError::UnknownRole(role.to_string()))?;
        let document = Metadata::<T>::from_slice(bytes)?;
        document.verify_threshold(&root.keys, keys, role.as_str())?;
        Ok(document.into_signed())
    }

    /// Where versions are final, a document whose version is held already has to be the one that is held.
    fn unchanged(&self, held: Option<&Held>, version: u64, bytes: &[u8]) -> Result<(), TrustError> {
        match held {
            Some(held) if self.final_versions && held.version == version && held.bytes != bytes => {
                Err(Fault::MixAndMatch.because(format!("another document of version {version} is held")))
            }
            Some(_) | None => Ok(()),
        }
    }
}

impl Held {
    fn new(role: Role, version: u64, bytes: &[u8]) -> Self {
        Self { version, bytes: bytes.to_vec(), delegator: role.to_string() }
    }
}

/// A document is no larger than its role may have it.
fn fits(bytes: &[u8], role: Role) -> Result<(), TrustError> {
    Ok(metadata::fits(bytes, role.as_str(), role.max_bytes())?)
}

/// The version that a document says it has. Of a member that comes twice the last counts, as it does where signatures are
/// verified.
fn version_of(bytes: &[u8]) -> Result<u64, TrustError> {
    #[derive(Deserialize)]
    struct Document {
        signed: serde_json::Map<String, serde_json::Value>,
    }
    let document: Document =
        serde_json::from_slice(bytes).map_err(|error| Fault::Arbitrary.because(error.to_string()))?;
    let version = document.signed.get("version").and_then(serde_json::Value::as_u64);
    version.ok_or_else(|| Fault::Arbitrary.because("its version is no whole number"))
}

fn versions(snapshot: &sigstore_tuf::Snapshot) -> BTreeMap<String, u64> {
    snapshot.meta.iter().map(|(name, meta)| (name.clone(), meta.version)).collect()
}

fn not_below(what: &str, version: u64, floor: u64) -> Result<(), TrustError> {
    if version >= floor { Ok(()) } else { Err(Fault::Rollback.because(format!("{what}: {version} after {floor}"))) }
}

/// A moment as `sigstore_tuf` takes it. It lets a document live at its very expiry, TUF (5.3.10) does not: hence the
/// nanosecond.
fn instant(now: DateTime<Utc>) -> jiff::Timestamp {
    let now = now.checked_add_signed(TimeDelta::nanoseconds(1)).unwrap_or(now);
    let nanoseconds = i32::try_from(now.timestamp_subsec_nanos().min(999_999_999)).unwrap_or(0);
    let far = if now.timestamp() < 0 { jiff::Timestamp::MIN } else { jiff::Timestamp::MAX };
    jiff::Timestamp::new(now.timestamp(), nanoseconds).unwrap_or(far)
}
