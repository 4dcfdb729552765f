//! The image repository: operators edit and sign its list, the server takes it in.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use ota_domain::PackageName;

use crate::{
    fault::{Because as _, Fault, TrustError},
    key::{KeyId, PublicKey, SignError, Signer},
    metadata::{self, Bins, Role, Snapshot, Target, Targets, Timestamp, file_name, read},
    verify::{Repository, Versions},
};

/// Most entries in one flat list; above, it is cut into bins.
pub const MAX_FLAT: usize = 500;
/// Most entries in 64 bins; above, there are 1,024.
pub const MAX_SMALL: usize = 50_000;

const TARGETS: &str = Role::Targets.as_str();

/// The list of all releases, to be changed and signed.
#[derive(Debug, Clone)]
pub struct Catalog {
    entries: BTreeMap<String, Target>,
    /// What is published, by role.
    published: BTreeMap<String, Targets>,
    /// Versions that the snapshot lists, also of bins that are no more.
    versions: BTreeMap<String, u64>,
    keys: BTreeMap<KeyId, PublicKey>,
    threshold: u32,
}

impl Catalog {
    /// Starts from the list as it is published.
    ///
    /// # Errors
    /// When the repository has no targets, or a bin is missing (see [`Repository::missing`]).
    pub fn open(repository: &Repository) -> Result<Self, TrustError> {
        let snapshot = repository.snapshot().ok_or_else(|| Fault::MixAndMatch.because("there is no snapshot"))?;
        if repository.targets(TARGETS).is_none() {
            return Err(Fault::MixAndMatch.because("there are no targets"));
        }
        if let Some(bin) = repository.missing().first() {
            return Err(Fault::MixAndMatch.because(format!("there is no {bin}")));
        }
        let published: BTreeMap<_, _> =
            repository.targets_roles().map(|(role, document)| (role.to_owned(), document.clone())).collect();
        let entries = published.values().flat_map(|document| document.targets.clone()).collect();
        let root = repository.root();
        Ok(Self {
            entries,
            published,
            versions: snapshot.meta.clone(),
            keys: root.keys_of(Role::Targets).map(|key| (key.id(), key.clone())).collect(),
            threshold: root.threshold(Role::Targets),
        })
    }

    /// Every entry, by path.
    #[must_use]
    pub fn entries(&self) -> &BTreeMap<String, Target> {
        &self.entries
    }

    /// Lists a release, in place of one with the same path. See [`Self::insert_all`].
    pub fn insert(&mut self, target: Target) {
        self.insert_all([target]);
    }

    /// Lists releases, each in place of one with the same path. Afterwards all entries of a package have the highest floor
    /// that one of them has.
    pub fn insert_all(&mut self, targets: impl IntoIterator<Item = Target>) {
        let mut touched = BTreeMap::new();
        for target in targets {
            let replaced = self.entries.get(&target.path()).map_or(0, |old| old.custom.floor);
            let floor: &mut i64 = touched.entry(target.custom.package.clone()).or_default();
            *floor = replaced.max(*floor);
            self.entries.insert(target.path(), target);
        }
        for target in self.entries.values() {
            if let Some(floor) = touched.get_mut(&target.custom.package) {
                *floor = target.custom.floor.max(*floor);
            }
        }
        for target in self.entries.values_mut() {
            if let Some(floor) = touched.get(&target.custom.package) {
                target.custom.floor = *floor;
            }
        }
    }

    /// Lists a release no more. Says whether it was listed. The floor of a package goes with its last entry.
    pub fn remove(&mut self, path: &str) -> bool {
        self.entries.remove(path).is_some()
    }

    /// The lowest counter of a package that may be installed.
    #[must_use]
    pub fn floor(&self, package: &PackageName) -> i64 {
        let of = self.entries.values().filter(|target| target.custom.package == *package);
        of.map(|target| target.custom.floor).max().unwrap_or(0)
    }

    /// Forbids releases of a package below a counter. A floor never falls.
    pub fn raise_floor(&mut self, package: &PackageName, floor: i64) {
        for target in self.entries.values_mut().filter(|target| target.custom.package == *package) {
            target.custom.floor = target.custom.floor.max(floor);
        }
    }

    /// Signs what has to be published: documents that changed, whose keys are others, or that have lived half their life.
    /// By role, the top first. None when nothing has to.
    ///
    /// # Errors
    /// When a signer does not sign.
    pub fn publish(&self, now: DateTime<Utc>, signers: &[&dyn Signer]) -> Result<Vec<(String, Vec<u8>)>, SignError> {
        self.sign(now, signers, is_due)
    }

    /// Signs every document again, changed or not: before a key is taken away that signed one.
    ///
    /// # Errors
    /// When a signer does not sign.
    pub fn publish_all(
        &self,
        now: DateTime<Utc>,
        signers: &[&dyn Signer],
    ) -> Result<Vec<(String, Vec<u8>)>, SignError> {
        self.sign(now, signers, |_, _, _| true)
    }

    fn sign(
        &self,
        now: DateTime<Utc>,
        signers: &[&dyn Signer],
        is_due: impl Fn(&Targets, &Targets, DateTime<Utc>) -> bool,
    ) -> Result<Vec<(String, Vec<u8>)>, SignError> {
        let old_bins = self.published.get(TARGETS).and_then(|targets| targets.delegations.as_ref());
        let bins =
            self.bin_count(old_bins).map(|count| Bins { count, keys: self.keys.clone(), threshold: self.threshold });
        let mut lists: BTreeMap<String, BTreeMap<String, Target>> = BTreeMap::new();
        lists.extend(bins.iter().flat_map(Bins::roles).map(|role| (role, BTreeMap::new())));
        for (path, target) in &self.entries {
            let role = bins.as_ref().map_or_else(|| TARGETS.to_owned(), |bins| bins.role_of(path));
            lists.entry(role).or_default().insert(path.clone(), target.clone());
        }
        let top = lists.remove(TARGETS).unwrap_or_default();
        let rekeyed = bins.is_some() && bins.as_ref() != old_bins;
        let documents = std::iter::once((TARGETS.to_owned(), top, bins))
            .chain(lists.into_iter().map(|(role, list)| (role, list, None)));
        let mut signed = Vec::new();
        for (role, targets, delegations) in documents {
            let version = self.versions.get(&file_name(&role)).map_or(1, |version| version + 1);
            let expires = now + Role::Targets.lifetime();
            let document = Targets { version, expires, targets, delegations, device: None };
            if rekeyed || self.published.get(&role).is_none_or(|old| is_due(old, &document, now)) {
                let bytes = metadata::sign(&document, signers)?;
                signed.push((role, bytes));
            }
        }
        Ok(signed)
    }

    /// Bins never become fewer: what was listed once in the snapshot stays there anyway, and a list around the limit does
    /// not flap.
    fn bin_count(&self, old: Option<&Bins>) -> Option<u32> {
        let [small, large] = Bins::COUNTS;
        let wanted = match self.entries.len() {
            ..=MAX_FLAT => None,
            length if length <= MAX_SMALL => Some(small),
            _ => Some(large),
        };
        wanted.max(old.map(|bins| bins.count))
    }
}

fn is_due(old: &Targets, new: &Targets, now: DateTime<Utc>) -> bool {
    old.targets != new.targets || old.delegations != new.delegations || old.expires - now < Role::Targets.lifetime() / 2
}

/// The keys with which a server keeps the repository up to date.
#[derive(Clone, Copy)]
pub struct OnlineKeys<'a> {
    /// Signs the snapshot.
    pub snapshot: &'a dyn Signer,
    /// Signs the timestamp.
    pub timestamp: &'a dyn Signer,
}

/// Nothing was published.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// A key did not sign.
    #[error("cannot sign")]
    Sign(#[source] SignError),
    /// A device would not believe it.
    #[error("no device would believe it")]
    Verify(#[source] TrustError),
}

/// The repository with an empty list, each document in version 1.
///
/// # Errors
/// When a key does not sign, or is not one that the root names.
pub fn create(
    root: &[u8],
    now: DateTime<Utc>,
    targets: &[&dyn Signer],
    online: OnlineKeys<'_>,
) -> Result<Repository, PublishError> {
    let repository = Repository::from_root(root).map_err(PublishError::Verify)?;
    let expires = now + Role::Targets.lifetime();
    let list = Targets { version: 1, expires, targets: BTreeMap::new(), delegations: None, device: None };
    let list = metadata::sign(&list, targets).map_err(PublishError::Sign)?;
    publish(&repository, &[(TARGETS.to_owned(), list)], now, online)
}

/// Takes targets documents in: signs the snapshot and the timestamp that list them, and verifies all of it as a device
/// would. The signed documents are in the answer (see [`Repository::bytes`]).
///
/// # Errors
/// When a key does not sign; when a document is not signed as it has to be, not newer than the one it replaces, or too many
/// or too few are given.
pub fn publish(
    repository: &Repository,
    documents: &[(String, Vec<u8>)],
    now: DateTime<Utc>,
    online: OnlineKeys<'_>,
) -> Result<Repository, PublishError> {
    let none: [&[u8]; 0] = [];
    renew(repository, &none, documents, now, online)
}

/// Follows new roots and takes targets documents in, in one step: when both have expired, neither can go first.
///
/// # Errors
/// Those of [`follow`] and [`publish`].
pub fn renew(
    repository: &Repository,
    roots: &[impl AsRef<[u8]>],
    documents: &[(String, Vec<u8>)],
    now: DateTime<Utc>,
    online: OnlineKeys<'_>,
) -> Result<Repository, PublishError> {
    let mut meta = repository.snapshot().map(|snapshot| snapshot.meta.clone()).unwrap_or_default();
    let mut seen = BTreeSet::new();
    for (role, bytes) in documents {
        let refuse = |reason: &str| PublishError::Verify(Fault::MixAndMatch.because(format!("{role}: {reason}")));
        if !seen.insert(role) {
            return Err(refuse("it is there twice"));
        }
        let version = read::<Targets>(bytes).map_err(|error| PublishError::Verify(error.into()))?.version;
        let before = meta.insert(file_name(role), version).unwrap_or(0);
        if version != before + 1 {
            return Err(refuse(&format!("version {version} cannot follow {before}")));
        }
    }
    let mut next = repository.clone();
    next.update_roots(roots).map_err(PublishError::Verify)?;
    sign_next(&mut next, repository.versions(), meta, now, now, online)?;
    let documents = documents.iter().map(|(role, bytes)| (role.as_str(), bytes.as_slice()));
    next.update_all_targets(documents, now).map_err(PublishError::Verify)?;
    verify_whole(&next, now)?;
    Ok(next)
}

/// Follows new roots: signs the next snapshot and timestamp by the keys that they name, and verifies all of it as a device
/// would, but for one thing: targets that have expired do not keep a root from being renewed, which has to come first. The
/// versions go on from where they were.
///
/// # Errors
/// When a root does not follow, when a key does not sign or is not one that the last root names, or when the targets are not
/// signed as the last root says: then lists signed so have to be published first.
pub fn follow(
    repository: &Repository,
    roots: &[impl AsRef<[u8]>],
    now: DateTime<Utc>,
    online: OnlineKeys<'_>,
) -> Result<Repository, PublishError> {
    let before = repository.versions();
    let meta = repository.snapshot().map(|snapshot| snapshot.meta.clone()).unwrap_or_default();
    let mut next = repository.clone();
    next.update_roots(roots).map_err(PublishError::Verify)?;
    sign_next(&mut next, before, meta, now, now, online)?;
    verify_whole(&next, WHENEVER)?;
    Ok(next)
}

/// Keeps the repository fresh: signs a timestamp, and a snapshot when half the life of the one there is has gone. Goes on
/// when root or targets have expired: whoever has their keys needs a fresh timestamp to see what they sign again.
///
/// # Errors
/// When a key does not sign, or is not one that the root names, or when the repository has no targets that it could list.
pub fn refresh(
    repository: &Repository,
    now: DateTime<Utc>,
    online: OnlineKeys<'_>,
) -> Result<Repository, PublishError> {
    let snapshot = repository.snapshot().ok_or_else(|| Fault::MixAndMatch.because("there is no snapshot"));
    let snapshot = snapshot.map_err(PublishError::Verify)?;
    let versions = repository.versions();
    let mut next = repository.clone();
    if snapshot.expires - now >= Role::Snapshot.lifetime() / 2 {
        stamp(&mut next, versions, snapshot.version, now, WHENEVER, online)?;
    } else {
        sign_next(&mut next, versions, snapshot.meta.clone(), now, WHENEVER, online)?;
    }
    next.check(WHENEVER).map_err(PublishError::Verify)?;
    Ok(next)
}

/// A time at which nothing has expired.
const WHENEVER: DateTime<Utc> = DateTime::<Utc>::MIN_UTC;

/// Signs the snapshot that comes after `before`, and the timestamp that names it, and verifies both as of `seen`.
fn sign_next(
    repository: &mut Repository,
    before: Versions,
    meta: BTreeMap<String, u64>,
    now: DateTime<Utc>,
    seen: DateTime<Utc>,
    online: OnlineKeys<'_>,
) -> Result<(), PublishError> {
    let version = before.snapshot + 1;
    let snapshot = Snapshot { version, expires: now + Role::Snapshot.lifetime(), meta };
    let snapshot = metadata::sign(&snapshot, &[online.snapshot]).map_err(PublishError::Sign)?;
    stamp(repository, before, version, now, seen, online)?;
    repository.update_snapshot(&snapshot, seen).map_err(PublishError::Verify)
}

/// Signs the timestamp that comes after `before`, and verifies it as of `seen`.
fn stamp(
    repository: &mut Repository,
    before: Versions,
    snapshot_version: u64,
    now: DateTime<Utc>,
    seen: DateTime<Utc>,
    online: OnlineKeys<'_>,
) -> Result<(), PublishError> {
    let version = before.timestamp + 1;
    let timestamp = Timestamp { version, expires: now + Role::Timestamp.lifetime(), snapshot_version };
    let timestamp = metadata::sign(&timestamp, &[online.timestamp]).map_err(PublishError::Sign)?;
    repository.update_timestamp(&timestamp, seen).map_err(PublishError::Verify)
}

/// Everything that a device might ask for is there and is believed.
fn verify_whole(repository: &Repository, now: DateTime<Utc>) -> Result<(), PublishError> {
    repository.check(now).map_err(PublishError::Verify)?;
    match repository.missing().first() {
        Some(bin) => Err(PublishError::Verify(Fault::MixAndMatch.because(format!("there is no {bin}")))),
        None => Ok(()),
    }
}
