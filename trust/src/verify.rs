//! One repository of ours, verified: what a client of TUF does (TUF 5), for whoever has to.
//!
//! [`chain`] verifies a repository of anybody's. This is the stricter layer above it: only documents of our own form are
//! taken, and none of them changes without its version.

mod answers;
pub mod chain;
mod freshness;

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

pub use self::chain::Chain;
use crate::{
    fault::{Because as _, Fault, TrustError},
    metadata::{Role, Root, Snapshot, Targets, Timestamp, read},
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
    chain: Chain,
    root: Root,
    timestamp: Option<Timestamp>,
    snapshot: Option<Snapshot>,
    /// By role: `targets` and the bins. Those that the chain does not hold wait with it for a snapshot that lists them.
    targets: BTreeMap<String, Targets>,
}

const TARGETS: &str = Role::Targets.as_str();

impl Repository {
    /// Starts from a root that is trusted already: a pinned one, or a stored one. It may have expired.
    ///
    /// # Errors
    /// When it is no root, or not signed by its own keys.
    pub fn from_root(bytes: &[u8]) -> Result<Self, TrustError> {
        let root = read::<Root>(bytes)?;
        let chain = Chain::from_root(bytes)?.with_final_versions();
        Ok(Self { chain, root, timestamp: None, snapshot: None, targets: BTreeMap::new() })
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
        self.chain.root_bytes()
    }

    /// The trusted timestamp. It may have expired; see [`Self::check`].
    #[must_use]
    pub fn timestamp(&self) -> Option<&Timestamp> {
        self.timestamp.as_ref()
    }

    /// The trusted snapshot. It may have expired, and a newer timestamp may name another; see [`Self::check`].
    #[must_use]
    pub fn snapshot(&self) -> Option<&Snapshot> {
        self.snapshot.as_ref()
    }

    /// A targets document that the snapshot lists: `targets` or a bin. It may have expired; see [`Self::check`].
    #[must_use]
    pub fn targets(&self, role: &str) -> Option<&Targets> {
        self.chain.holds(role).then(|| self.targets.get(role)).flatten()
    }

    /// A role's document as signed: `root`, `timestamp`, `snapshot`, `targets` or a bin.
    #[must_use]
    pub fn bytes(&self, role: &str) -> Option<&[u8]> {
        self.chain.bytes(role)
    }

    /// The targets documents that are held, by role.
    pub fn targets_roles(&self) -> impl Iterator<Item = (&str, &Targets)> {
        let held = self.targets.iter().filter(|(role, _)| self.chain.holds(role));
        held.map(|(role, document)| (role.as_str(), document))
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
        let followed = roots.iter().try_for_each(|bytes| {
            let root = read::<Root>(bytes.as_ref())?;
            let lost = self.chain.follow(bytes.as_ref())?;
            rotation.lost_online_key |= lost.lost_online_key;
            rotation.lost_targets_key |= lost.lost_targets_key;
            self.root = root;
            Ok(())
        });
        if !roots.is_empty() {
            self.chain.verify_again();
            self.forget();
        }
        followed.map(|()| rotation)
    }

    /// Drops what the chain has dropped.
    fn forget(&mut self) {
        self.timestamp.take_if(|_| self.chain.bytes(Role::Timestamp.as_str()).is_none());
        self.snapshot.take_if(|_| self.chain.bytes(Role::Snapshot.as_str()).is_none());
        self.targets.retain(|role, _| self.chain.remembers(role));
    }

    /// Lets a repository that is kept for long follow as many roots again.
    pub(crate) fn allow_root_steps(&mut self) {
        self.chain.allow_root_steps();
    }

    /// Takes a newer timestamp. One of the version that is held is discarded, as TUF has it.
    ///
    /// # Errors
    /// When it is not signed as it has to be, has expired, or goes back.
    pub fn update_timestamp(&mut self, bytes: &[u8], now: DateTime<Utc>) -> Result<(), TrustError> {
        let document = read::<Timestamp>(bytes)?;
        if self.chain.update_timestamp(bytes, now)? {
            self.timestamp = Some(document);
        }
        Ok(())
    }

    /// Takes the snapshot that the timestamp names.
    ///
    /// # Errors
    /// When it is not signed as it has to be, has expired, is another than the timestamp's, or lists an older targets
    /// document than before, or lacks one.
    pub fn update_snapshot(&mut self, bytes: &[u8], now: DateTime<Utc>) -> Result<(), TrustError> {
        let document = read::<Snapshot>(bytes)?;
        self.chain.update_snapshot(bytes, now)?;
        self.snapshot = Some(document);
        Ok(())
    }

    /// Takes the top of the targets that the snapshot lists.
    ///
    /// # Errors
    /// When it is not signed as it has to be, has expired, or is another than the snapshot's.
    pub fn update_targets(&mut self, bytes: &[u8], now: DateTime<Utc>) -> Result<(), TrustError> {
        let document = read::<Targets>(bytes)?;
        self.chain.update_targets(bytes, now)?;
        self.targets.insert(TARGETS.to_owned(), document);
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
        self.chain.update_delegated(role, TARGETS, bytes, now)?;
        self.targets.insert(role.to_owned(), document);
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
}
