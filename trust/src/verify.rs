//! One repository, verified: what a client of TUF does (TUF 5), for whoever has to.
//!
//! The signatures, versions and pins are checked by `sigstore_tuf`; this adds what a whole client needs: sizes are checked
//! before a byte is parsed, the floors survive a change of root unless it rotates the keys of timestamp or snapshot (TUF
//! 5.3.11), a document cannot change without its version, and only documents of our own form are taken.

mod answers;
mod freshness;

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use sigstore_tuf::{Error as TufError, Metadata, TrustedMetadataSet};

use crate::{
    fault::{Because as _, Fault, TrustError},
    metadata::{Role, Root, Snapshot, Targets, Timestamp, file_name, read},
};

/// Most roots that are followed one after the other.
pub const MAX_ROOT_STEPS: usize = 1_024;

/// Versions of the documents that are trusted; 0 for none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Versions {
    /// Of the root.
    pub root: u64,
    /// Of the timestamp.
    pub timestamp: u64,
    /// Of the snapshot.
    pub snapshot: u64,
    /// Of the top of the targets.
    pub targets: u64,
}

/// What new roots took away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rotation {
    /// A key of the timestamp or of the snapshot: their floors are gone with it.
    pub lost_online_key: bool,
    /// A key of the targets.
    pub lost_targets_key: bool,
}

/// One repository, as far as it is trusted. An update that fails changes nothing.
#[derive(Debug, Clone)]
pub struct Repository {
    set: TrustedMetadataSet,
    root: Root,
    timestamp: Option<Held<Timestamp>>,
    snapshot: Option<Held<Snapshot>>,
    /// By role: `targets` and the bins.
    targets: BTreeMap<String, Held<Targets>>,
    /// Targets documents that were trusted before the snapshot went; they may fit the next one.
    candidates: BTreeMap<String, Held<Targets>>,
    floors: Floors,
    root_steps: usize,
}

/// A document beside the bytes that were signed.
#[derive(Debug, Clone)]
struct Held<T> {
    document: T,
    bytes: Vec<u8>,
}

/// The lowest versions that are believed.
#[derive(Debug, Clone, Default)]
struct Floors {
    timestamp: u64,
    snapshot: u64,
    /// By file name.
    targets: BTreeMap<String, u64>,
}

const TARGETS: &str = Role::Targets.as_str();

impl Repository {
    /// Starts from a root that is trusted already: a pinned one, or a stored one. It may have expired.
    ///
    /// # Errors
    /// When it is no root, or not signed by its own keys.
    pub fn from_root(bytes: &[u8]) -> Result<Self, TrustError> {
        let root = read::<Root>(bytes)?;
        Ok(Self {
            set: TrustedMetadataSet::from_root(bytes)?,
            root,
            timestamp: None,
            snapshot: None,
            targets: BTreeMap::new(),
            candidates: BTreeMap::new(),
            floors: Floors::default(),
            root_steps: 0,
        })
    }

    /// Reads back what was trusted, whatever has expired since. All of it is verified again.
    ///
    /// # Errors
    /// When a document is not the one that the others name, or not signed as it has to be.
    pub fn restore<'a>(
        root: &[u8],
        timestamp: Option<&[u8]>,
        snapshot: Option<&[u8]>,
        targets: impl IntoIterator<Item = (&'a str, &'a [u8])>,
    ) -> Result<Self, TrustError> {
        let whenever = DateTime::<Utc>::MIN_UTC;
        let mut repository = Self::from_root(root)?;
        timestamp.map_or(Ok(()), |bytes| repository.update_timestamp(bytes, whenever))?;
        snapshot.map_or(Ok(()), |bytes| repository.update_snapshot(bytes, whenever))?;
        repository.update_all_targets(targets, whenever)?;
        Ok(repository)
    }

    /// The trusted root.
    #[must_use]
    pub fn root(&self) -> &Root {
        &self.root
    }

    /// The trusted root as signed.
    #[must_use]
    pub fn root_bytes(&self) -> &[u8] {
        self.set.root_bytes()
    }

    /// The trusted timestamp. It may have expired; see [`Self::check`].
    #[must_use]
    pub fn timestamp(&self) -> Option<&Timestamp> {
        self.timestamp.as_ref().map(|held| &held.document)
    }

    /// The trusted snapshot. It may have expired, and a newer timestamp may name another; see [`Self::check`].
    #[must_use]
    pub fn snapshot(&self) -> Option<&Snapshot> {
        self.snapshot.as_ref().map(|held| &held.document)
    }

    /// A targets document that the snapshot lists: `targets` or a bin. It may have expired; see [`Self::check`].
    #[must_use]
    pub fn targets(&self, role: &str) -> Option<&Targets> {
        self.targets.get(role).map(|held| &held.document)
    }

    /// A role's document as signed: `root`, `timestamp`, `snapshot`, `targets` or a bin.
    #[must_use]
    pub fn bytes(&self, role: &str) -> Option<&[u8]> {
        match role {
            "root" => Some(self.root_bytes()),
            "timestamp" => self.timestamp.as_ref().map(|held| held.bytes.as_slice()),
            "snapshot" => self.snapshot.as_ref().map(|held| held.bytes.as_slice()),
            targets => self.targets.get(targets).map(|held| held.bytes.as_slice()),
        }
    }

    /// The targets documents that are held, by role.
    pub fn targets_roles(&self) -> impl Iterator<Item = (&str, &Targets)> {
        self.targets.iter().map(|(role, held)| (role.as_str(), &held.document))
    }

    /// What is trusted.
    #[must_use]
    pub fn versions(&self) -> Versions {
        Versions {
            root: self.root.version,
            timestamp: self.timestamp().map_or(0, |timestamp| timestamp.version),
            snapshot: self.snapshot().map_or(0, |snapshot| snapshot.version),
            targets: self.targets(TARGETS).map_or(0, |targets| targets.version),
        }
    }

    /// Follows one root.
    ///
    /// # Errors
    /// When it is not the next, or not signed by the keys of the one before and by its own.
    pub fn update_root(&mut self, bytes: &[u8]) -> Result<Rotation, TrustError> {
        self.update_roots(&[bytes])
    }

    /// Follows roots, in order. Those before the one that fails are trusted, as TUF has it: each stands by itself.
    ///
    /// # Errors
    /// Those of [`Self::update_root`], and when more than [`MAX_ROOT_STEPS`] are followed.
    pub fn update_roots(&mut self, roots: &[impl AsRef<[u8]>]) -> Result<Rotation, TrustError> {
        let mut rotation = Rotation::default();
        let followed = roots.iter().try_for_each(|bytes| self.follow(bytes.as_ref(), &mut rotation));
        if !roots.is_empty() {
            self.verify_again();
        }
        followed.map(|()| rotation)
    }

    fn follow(&mut self, bytes: &[u8], rotation: &mut Rotation) -> Result<(), TrustError> {
        if self.root_steps == MAX_ROOT_STEPS {
            return Err(Fault::Endless.because(format!("more than {MAX_ROOT_STEPS} roots")));
        }
        let root = read::<Root>(bytes)?;
        self.set.update_root(bytes)?;
        self.root_steps += 1;
        let lost = |role: Role| {
            let keys = |root: &Root| root.roles.get(&role).map(|keys| keys.key_ids.clone()).unwrap_or_default();
            let kept = keys(&root);
            keys(&self.root).iter().any(|id| !kept.contains(id))
        };
        rotation.lost_targets_key |= lost(Role::Targets);
        if lost(Role::Timestamp) || lost(Role::Snapshot) {
            rotation.lost_online_key = true;
            // Whoever had the lost key may have signed versions that no honest signer will ever reach.
            self.floors = Floors::default();
            self.timestamp = None;
            self.snapshot = None;
        }
        self.root = root;
        Ok(())
    }

    /// Lets a repository that is kept for long follow as many roots again.
    pub(crate) fn allow_root_steps(&mut self) {
        self.root_steps = 0;
    }

    /// Takes what was trusted before the root changed, as far as the new root's keys signed it.
    fn verify_again(&mut self) {
        self.candidates.append(&mut self.targets);
        self.timestamp.take_if(|held| self.set.update_timestamp(&held.bytes, jiff::Timestamp::MIN).is_err());
        self.snapshot.take_if(|held| self.set.update_snapshot(&held.bytes, jiff::Timestamp::MIN).is_err());
        if self.snapshot.is_some() {
            self.settle_targets();
        }
    }

    /// Takes of the candidates what the snapshot lists.
    fn settle_targets(&mut self) {
        let Some(snapshot) = &self.snapshot else { return };
        let mut candidates = std::mem::take(&mut self.candidates);
        candidates.retain(|role, held| snapshot.document.meta.get(&file_name(role)) == Some(&held.document.version));
        let top = candidates.remove_entry(TARGETS);
        for (role, held) in top.into_iter().chain(candidates) {
            let never = jiff::Timestamp::MIN;
            let taken = if role == TARGETS {
                self.set.update_targets(&held.bytes, never).is_ok()
            } else {
                self.set.update_delegated_targets(&held.bytes, &role, TARGETS, never).is_ok()
            };
            if taken {
                self.targets.insert(role, held);
            }
        }
    }

    /// Takes a newer timestamp. One of the version that is held is discarded, as TUF has it.
    ///
    /// # Errors
    /// When it is not signed as it has to be, has expired, or goes back.
    pub fn update_timestamp(&mut self, bytes: &[u8], now: DateTime<Utc>) -> Result<(), TrustError> {
        let document = read::<Timestamp>(bytes)?;
        self.set.check_root_expired(instant(now))?;
        self.verified::<sigstore_tuf::Timestamp>(bytes, Role::Timestamp)?;
        not_below("timestamp", document.version, self.floors.timestamp)?;
        not_below("snapshot named by the timestamp", document.snapshot_version, self.floors.snapshot)?;
        match self.set.update_timestamp(bytes, instant(now)) {
            Ok(()) => {}
            Err(TufError::EqualVersion { .. }) => return Ok(self.set.check_timestamp_expired(instant(now))?),
            Err(error) => return Err(error.into()),
        }
        self.floors.timestamp = document.version;
        self.floors.snapshot = document.snapshot_version;
        self.timestamp = Some(Held { document, bytes: bytes.to_vec() });
        Ok(())
    }

    /// Takes the snapshot that the timestamp names.
    ///
    /// # Errors
    /// When it is not signed as it has to be, has expired, is another than the timestamp's, or lists an older targets
    /// document than before, or lacks one.
    pub fn update_snapshot(&mut self, bytes: &[u8], now: DateTime<Utc>) -> Result<(), TrustError> {
        let document = read::<Snapshot>(bytes)?;
        let named = self.timestamp().map(|timestamp| timestamp.snapshot_version);
        let named = named.ok_or_else(|| Fault::MixAndMatch.because("a snapshot without its timestamp"))?;
        self.verified::<sigstore_tuf::Snapshot>(bytes, Role::Snapshot)?;
        if document.version != named {
            not_below("snapshot", document.version, self.versions().snapshot)?;
            let found = format!("snapshot {} where the timestamp names {named}", document.version);
            return Err(Fault::MixAndMatch.because(found));
        }
        for (name, floor) in &self.floors.targets {
            let version = document.meta.get(name);
            let version =
                version.ok_or_else(|| Fault::Rollback.because(format!("the snapshot lists {name} no more")))?;
            not_below(name, *version, *floor)?;
        }
        unchanged(self.snapshot.as_ref(), document.version, |held| held.version, bytes)?;
        self.set.update_snapshot(bytes, instant(now))?;
        self.floors.targets.clone_from(&document.meta);
        self.snapshot = Some(Held { document, bytes: bytes.to_vec() });
        self.candidates.append(&mut self.targets);
        self.settle_targets();
        Ok(())
    }

    /// Takes the top of the targets that the snapshot lists.
    ///
    /// # Errors
    /// When it is not signed as it has to be, has expired, or is another than the snapshot's.
    pub fn update_targets(&mut self, bytes: &[u8], now: DateTime<Utc>) -> Result<(), TrustError> {
        let document = read::<Targets>(bytes)?;
        self.expect_listed(TARGETS, document.version)?;
        let held = self.targets.get(TARGETS);
        if held.is_some_and(|held| held.bytes != bytes) {
            self.verified::<sigstore_tuf::Targets>(bytes, Role::Targets)?;
        }
        unchanged(held, document.version, |held| held.version, bytes)?;
        self.set.update_targets(bytes, instant(now))?;
        self.targets.insert(TARGETS.to_owned(), Held { document, bytes: bytes.to_vec() });
        // The keys of the bins may be others.
        let set = &self.set;
        self.targets.retain(|role, _| {
            role == TARGETS || set.verify_delegated_targets(role, TARGETS, jiff::Timestamp::MIN).is_ok()
        });
        Ok(())
    }

    /// Takes a bin that the snapshot lists.
    ///
    /// # Errors
    /// When it is not signed as the targets say, has expired, is another than the snapshot's, or lists what belongs into
    /// another bin.
    pub fn update_bin(&mut self, role: &str, bytes: &[u8], now: DateTime<Utc>) -> Result<(), TrustError> {
        let document = read::<Targets>(bytes)?;
        let bins = self.targets(TARGETS).and_then(|targets| targets.delegations.as_ref());
        let bins = bins.ok_or_else(|| Fault::MixAndMatch.because(format!("{role} without targets that name it")))?;
        if let Some(path) = document.targets.keys().find(|path| bins.role_of(path) != role) {
            return Err(Fault::Arbitrary.because(format!("{path} is not {role}'s to list")));
        }
        if document.delegations.is_some() {
            return Err(Fault::Arbitrary.because(format!("{role} delegates")));
        }
        self.expect_listed(role, document.version)?;
        if let Err(error) = unchanged(self.targets.get(role), document.version, |held| held.version, bytes) {
            self.set.clone().update_delegated_targets(bytes, role, TARGETS, instant(now))?;
            return Err(error);
        }
        self.set.update_delegated_targets(bytes, role, TARGETS, instant(now))?;
        self.targets.insert(role.to_owned(), Held { document, bytes: bytes.to_vec() });
        Ok(())
    }

    /// Takes targets documents by role, the top before the bins.
    ///
    /// # Errors
    /// Those of [`Self::update_targets`] and [`Self::update_bin`]; what came before the one that fails is trusted.
    pub fn update_all_targets<'a>(
        &mut self,
        documents: impl IntoIterator<Item = (&'a str, &'a [u8])>,
        now: DateTime<Utc>,
    ) -> Result<(), TrustError> {
        let (top, bins): (Vec<_>, Vec<_>) = documents.into_iter().partition(|(role, _)| *role == TARGETS);
        top.into_iter().try_for_each(|(_, bytes)| self.update_targets(bytes, now))?;
        bins.into_iter().try_for_each(|(role, bytes)| self.update_bin(role, bytes, now))
    }

    /// The snapshot lists this version of a targets document.
    fn expect_listed(&self, role: &str, version: u64) -> Result<(), TrustError> {
        let listed = self.snapshot().and_then(|snapshot| snapshot.meta.get(&file_name(role)).copied());
        match listed {
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

    /// Checks the signatures by the keys that the root gives a role.
    fn verified<T: sigstore_tuf::Role>(&self, bytes: &[u8], role: Role) -> Result<(), TrustError> {
        let root = self.set.root();
        let keys = root.role(role.as_str()).ok_or_else(|| TufError::UnknownRole(role.to_string()))?;
        Ok(Metadata::<T>::from_slice(bytes)?.verify_threshold(&root.keys, keys, role.as_str())?)
    }
}

/// A document whose version is held already has to be the one that is held.
fn unchanged<T>(held: Option<&Held<T>>, version: u64, of: impl Fn(&T) -> u64, bytes: &[u8]) -> Result<(), TrustError> {
    match held {
        Some(held) if of(&held.document) == version && held.bytes != bytes => {
            Err(Fault::MixAndMatch.because(format!("another document of version {version} is held")))
        }
        Some(_) | None => Ok(()),
    }
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
