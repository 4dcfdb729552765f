//! What a device holds, believes and may install.

mod stored;

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use ota_domain::{
    DeviceId, Hardware, PackageName, Sha256Digest, Version,
    release::{Installer, fits},
};
use serde::{Deserialize, Serialize};

use self::stored::Stored;
use crate::{
    fault::{Because as _, Fault, TrustError},
    metadata::{Custom, Role, Root, Target, read, target_path},
    verify::{Repository, Versions},
};

/// Everything a device trusts, as one value. Its serde form is what the device stores; reading it verifies all of it again.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(try_from = "Stored", into = "Stored")]
pub struct Trusted {
    device: DeviceId,
    hardware: Hardware,
    image: Repository,
    director: Repository,
    /// The lowest release counter of each package that may be installed.
    floors: BTreeMap<PackageName, i64>,
    /// The latest time that the director signed for this device. The device's own clock never sets it: a clock that was
    /// ahead once would make everything look expired for ever.
    latest_time: Option<DateTime<Utc>>,
    /// When the last update was taken that brought something newer, or proof that there is nothing newer.
    updated_at: Option<DateTime<Utc>>,
}

/// Versions of what a device holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HeldVersions {
    /// Of the image repository.
    pub image: Versions,
    /// Of the director repository.
    pub director: Versions,
}

/// What a check-in brings. What is not there is unchanged.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Update {
    /// Roots of the image repository after the one that is held, in order.
    pub image_roots: Vec<Vec<u8>>,
    /// Its timestamp.
    pub image_timestamp: Option<Vec<u8>>,
    /// Its snapshot.
    pub image_snapshot: Option<Vec<u8>>,
    /// Its targets documents, by role.
    pub image_targets: Vec<(String, Vec<u8>)>,
    /// Roots of the director repository after the one that is held, in order.
    pub director_roots: Vec<Vec<u8>>,
    /// Its timestamp.
    pub director_timestamp: Option<Vec<u8>>,
    /// Its snapshot.
    pub director_snapshot: Option<Vec<u8>>,
    /// Its targets: what this device should run.
    pub director_targets: Option<Vec<u8>>,
    /// The answer to the nonce.
    pub freshness: Option<Vec<u8>>,
}

/// What the server asks a device to install, as it says so without a signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// The package.
    pub package: PackageName,
    /// The version.
    pub version: Version,
    /// SHA-256 of the payload.
    pub sha256: Sha256Digest,
    /// Bytes of the payload.
    pub length: u64,
    /// Counter of the release.
    pub release_counter: i64,
    /// The hardware types it fits. Empty means any.
    pub hardware: Vec<Hardware>,
    /// How it is installed.
    pub installer: Installer,
    /// Size of the installed tree in bytes; 0 when not known.
    pub unpacked_size_bytes: u64,
}

/// Most targets documents in one update: the top, and a bin for each package of a device.
const MAX_TARGETS_DOCUMENTS: usize = 129;

impl Trusted {
    /// What a device trusts that has just enrolled: two roots, compared with the pin.
    ///
    /// # Errors
    /// When one is no root.
    pub fn new(
        device: DeviceId,
        hardware: Hardware,
        image_root: &[u8],
        director_root: &[u8],
    ) -> Result<Self, TrustError> {
        Ok(Self {
            device,
            hardware,
            image: Repository::from_root(image_root).map_err(|error| error.of("image"))?,
            director: Repository::from_root(director_root).map_err(|error| error.of("director"))?,
            floors: BTreeMap::new(),
            latest_time: None,
            updated_at: None,
        })
    }

    /// Reads what [`Self::to_bytes`] wrote, and verifies it again.
    ///
    /// # Errors
    /// [`Fault::Store`] when a byte is not as it was written, as far as a signature covers it. The rest is for a checksum
    /// around the bytes.
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

    /// Whose it is.
    #[must_use]
    pub fn device(&self) -> DeviceId {
        self.device
    }

    /// The device's hardware type.
    #[must_use]
    pub fn hardware(&self) -> &Hardware {
        &self.hardware
    }

    /// What is held, so that a server sends what is newer.
    #[must_use]
    pub fn versions(&self) -> HeldVersions {
        HeldVersions { image: self.image.versions(), director: self.director.versions() }
    }

    /// Drops the roots that are held from what a bundle brings: it carries them from the first on, for devices of any age.
    #[must_use]
    pub fn pass_over_held_roots(&self, update: Update) -> Update {
        let held = self.versions();
        let is_newer = |root: &Vec<u8>, held: u64| read::<Root>(root).map_or(true, |root| root.version > held);
        let Update { mut image_roots, mut director_roots, .. } = update;
        image_roots.retain(|root| is_newer(root, held.image.root));
        director_roots.retain(|root| is_newer(root, held.director.root));
        Update { image_roots, director_roots, ..update }
    }

    /// The lowest release counter of a package that may be installed, as far as it is known.
    #[must_use]
    pub fn floor(&self, package: &PackageName) -> i64 {
        self.floors.get(package).copied().unwrap_or(0)
    }

    /// The time: the device's clock, unless the director signed a later one for this device.
    #[must_use]
    pub fn now(&self, clock: DateTime<Utc>) -> DateTime<Utc> {
        self.latest_time.map_or(clock, |latest| latest.max(clock))
    }

    /// Whether the next check-in should ask for proof of freshness: half the life of what is held is gone, or nothing is
    /// held, or the clock went back.
    #[must_use]
    pub fn wants_freshness(&self, clock: DateTime<Utc>) -> bool {
        let now = self.now(clock);
        let (Some(updated), Some(director), Some(image)) =
            (self.updated_at, self.director.timestamp(), self.image.timestamp())
        else {
            return true;
        };
        now < updated || now - updated >= director.expires.min(image.expires) - now
    }

    /// Verifies what a check-in brought, on top of what is held: all of it or nothing. The answer is what to hold from then
    /// on.
    ///
    /// `nonce` is what the check-in sent, if it sent one: then it has to be answered.
    ///
    /// # Errors
    /// When a check fails, with the attack that the check guards against.
    pub fn update(&self, update: &Update, nonce: Option<&[u8]>, clock: DateTime<Utc>) -> Result<Self, TrustError> {
        let mut next = self.clone();
        next.update_director(update, nonce, clock).map_err(|error| error.of("director"))?;
        next.update_image(update, clock).map_err(|error| error.of("image"))?;
        // What is played again does not start its life anew, or an old answer could be played until it expires.
        if nonce.is_some() || next.versions() != self.versions() {
            next.updated_at = Some(next.now(clock));
        }
        Ok(next)
    }

    fn update_director(
        &mut self,
        update: &Update,
        nonce: Option<&[u8]>,
        clock: DateTime<Utc>,
    ) -> Result<(), TrustError> {
        // Roots first: one of them may bring the key that signs the freshness.
        self.director.allow_root_steps();
        if self.director.update_roots(&update.director_roots)?.lost_online_key {
            // Whoever had the lost key may have signed a time far ahead.
            self.latest_time = None;
        }
        let fresh_version = nonce.map(|nonce| self.take_freshness(update, nonce)).transpose()?;
        let now = self.now(clock);
        take(&update.director_timestamp, |bytes| self.director.update_timestamp(bytes, now))?;
        take(&update.director_snapshot, |bytes| self.director.update_snapshot(bytes, now))?;
        take(&update.director_targets, |bytes| self.director.update_targets(bytes, now))?;
        self.director.check(now)?;
        self.check_assignment()?;
        let version = self.director.versions().timestamp;
        match fresh_version {
            Some(fresh) if fresh > version => {
                Err(Fault::Freeze.because(format!("version {version} where {fresh} is the newest")))
            }
            Some(fresh) if fresh < version => {
                Err(Fault::Rollback.because(format!("version {fresh} is said to be the newest after {version}")))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Takes the answer to the nonce: the director's version and its clock.
    fn take_freshness(&mut self, update: &Update, nonce: &[u8]) -> Result<u64, TrustError> {
        let bytes = update.freshness.as_ref().ok_or_else(|| Fault::Freeze.because("the nonce is not answered"))?;
        let freshness = self.director.freshness(bytes)?;
        if freshness.device != self.device {
            return Err(Fault::OtherDevice.because(format!("the answer to the nonce is for {}", freshness.device)));
        }
        if freshness.nonce != nonce {
            return Err(Fault::Freeze.because("the answer is to another nonce"));
        }
        if self.latest_time.is_some_and(|latest| freshness.time < latest) {
            return Err(Fault::Rollback.because(format!("the director's clock went back to {}", freshness.time)));
        }
        self.latest_time = Some(freshness.time);
        Ok(freshness.director_version)
    }

    /// The director speaks to this device, and speaks itself.
    fn check_assignment(&self) -> Result<(), TrustError> {
        let Some(targets) = self.director.targets(Role::Targets.as_str()) else { return Ok(()) };
        if targets.delegations.is_some() {
            return Err(Fault::Arbitrary.because("the targets delegate"));
        }
        if targets.device != Some(self.device) {
            return Err(Fault::OtherDevice.because("the targets are not for this device"));
        }
        Ok(())
    }

    fn update_image(&mut self, update: &Update, clock: DateTime<Utc>) -> Result<(), TrustError> {
        let now = self.now(clock);
        if update.image_targets.len() > MAX_TARGETS_DOCUMENTS {
            return Err(Fault::Endless.because(format!("{} targets documents", update.image_targets.len())));
        }
        self.image.allow_root_steps();
        if self.image.update_roots(&update.image_roots)?.lost_targets_key {
            // Whoever had the lost key may have raised floors beyond every release. The lists that the keys left sign say
            // the floors again.
            self.floors.clear();
        }
        take(&update.image_timestamp, |bytes| self.image.update_timestamp(bytes, now))?;
        take(&update.image_snapshot, |bytes| self.image.update_snapshot(bytes, now))?;
        let documents = update.image_targets.iter().map(|(role, bytes)| (role.as_str(), bytes.as_slice()));
        self.image.update_all_targets(documents, now)?;
        self.image.check(now)?;
        self.raise_floors();
        Ok(())
    }

    fn raise_floors(&mut self) {
        for target in self.image.targets_roles().flat_map(|(_, document)| document.targets.values()) {
            if target.custom.floor > self.floor(&target.custom.package) {
                self.floors.insert(target.custom.package.clone(), target.custom.floor);
            }
        }
    }

    /// Whether a release may be installed: both repositories list it, and list the same; it is what was ordered; it fits
    /// the hardware; it is not below the floor; and nothing that says so has expired.
    ///
    /// # Errors
    /// When a check fails, with the attack that the check guards against.
    pub fn authorize(&self, order: &Order, clock: DateTime<Utc>) -> Result<(), TrustError> {
        let now = self.now(clock);
        let path = target_path(&order.package, &order.version);
        self.check_assignment()?;
        let assigned = find(&self.director, &path, now).map_err(|error| error.of("director"))?;
        let listed = find(&self.image, &path, now).map_err(|error| error.of("image"))?;
        if !is_same(assigned, listed) {
            return Err(Fault::Disagreement.because(format!("the repositories do not say the same of {path}")));
        }
        if !order.is_for(listed) {
            return Err(Fault::Disagreement.because(format!("the order of {path} is not what is signed")));
        }
        if !fits(&listed.custom.hardware, &self.hardware) {
            return Err(Fault::Hardware.because(format!("{path} is not for {}", self.hardware)));
        }
        let floor = self.floor(&order.package).max(listed.custom.floor);
        if listed.custom.release_counter < floor {
            let counter = listed.custom.release_counter;
            return Err(Fault::Rollback.because(format!("{path} has counter {counter}, below the floor {floor}")));
        }
        Ok(())
    }
}

impl Order {
    fn is_for(&self, target: &Target) -> bool {
        let Custom { package, version, release_counter, floor: _, hardware, installer, unpacked_size_bytes } =
            &target.custom;
        (self.sha256, self.length) == (target.sha256, target.length)
            && (&self.package, &self.version, &self.hardware) == (package, version, hardware)
            && (self.release_counter, self.installer) == (*release_counter, *installer)
            && self.unpacked_size_bytes == *unpacked_size_bytes
    }
}

fn take(document: &Option<Vec<u8>>, update: impl FnOnce(&[u8]) -> Result<(), TrustError>) -> Result<(), TrustError> {
    document.as_deref().map_or(Ok(()), update)
}

fn find<'a>(repository: &'a Repository, path: &str, now: DateTime<Utc>) -> Result<&'a Target, TrustError> {
    repository.check_path(path, now)?;
    repository.target(path)?.ok_or_else(|| Fault::Disagreement.because(format!("{path} is not listed")))
}

/// Whether both repositories say the same of a release. The floor is the image repository's alone to say: the director may
/// have signed before it was raised.
fn is_same(assigned: &Target, listed: &Target) -> bool {
    let floor = listed.custom.floor;
    let assigned = Target { custom: Custom { floor, ..assigned.custom.clone() }, ..assigned.clone() };
    assigned == *listed
}
