//! A fleet's keys in a test's hand: what an honest server would send, and all that is needed to send something else.
//!
//! The agent's own tests include this file as well.

use chrono::{DateTime, Utc};
use ota_domain::{DeviceId, release::Installer};
use ota_proto::device::v1 as wire;
use ota_trust::{
    director::{self, Assignment},
    image::{self, Catalog, OnlineKeys},
    key::{PrivateKey, Signer as _},
    metadata::{Freshness, Mode, Role, Root, Target, sign},
    verify::Repository,
};
use uuid::Uuid;

/// All private keys of a fleet.
#[derive(Debug)]
pub struct Keys {
    /// Signs both roots. Offline once it is adopted.
    pub root: PrivateKey,
    /// An operator's: signs what may be installed.
    pub targets: PrivateKey,
    /// The server's: says which versions of targets belong together.
    pub snapshot: PrivateKey,
    /// The server's: says which snapshot is the newest.
    pub timestamp: PrivateKey,
    /// The server's: says what each device should run.
    pub director: PrivateKey,
}

impl Keys {
    /// Makes fresh ones.
    ///
    /// # Panics
    /// When the system gives no random numbers.
    #[must_use]
    pub fn generate() -> Self {
        let key = || PrivateKey::generate().expect("random numbers");
        Self { root: key(), targets: key(), snapshot: key(), timestamp: key(), director: key() }
    }

    /// Returns those that sign with every publication.
    #[must_use]
    pub fn online(&self) -> OnlineKeys<'_> {
        OnlineKeys { snapshot: &self.snapshot, timestamp: &self.timestamp }
    }

    fn image_root(&self, now: DateTime<Utc>) -> Vec<u8> {
        let roles = [
            (Role::Root, &self.root),
            (Role::Targets, &self.targets),
            (Role::Snapshot, &self.snapshot),
            (Role::Timestamp, &self.timestamp),
        ];
        self.first_root(&roles, now)
    }

    fn director_root(&self, now: DateTime<Utc>) -> Vec<u8> {
        let roles = [
            (Role::Root, &self.root),
            (Role::Targets, &self.director),
            (Role::Snapshot, &self.director),
            (Role::Timestamp, &self.director),
        ];
        self.first_root(&roles, now)
    }

    fn first_root(&self, roles: &[(Role, &PrivateKey)], now: DateTime<Utc>) -> Vec<u8> {
        let roles: Vec<_> = roles.iter().map(|(role, key)| (*role, [key.public_key()])).collect();
        let roles: Vec<_> = roles.iter().map(|(role, keys)| (*role, keys.as_slice())).collect();
        sign(&Root::first(Mode::Managed, now + Role::Root.lifetime(), &roles), &[&self.root]).expect("a root")
    }
}

/// The signed state of a fleet.
#[derive(Debug)]
pub struct World {
    /// The private keys.
    pub keys: Keys,
    /// What may be installed.
    pub image: Repository,
    /// The director's root, as signed.
    pub director_root: Vec<u8>,
    /// Version of the last order to any device.
    pub order: u64,
}

impl World {
    /// Makes one in which nothing may be installed.
    ///
    /// # Panics
    /// When it cannot be signed.
    #[must_use]
    pub fn new(now: DateTime<Utc>) -> Self {
        let keys = Keys::generate();
        let root = keys.image_root(now);
        let image = image::create(&root, now, &[&keys.targets], keys.online()).expect("an empty repository");
        let director_root = keys.director_root(now);
        Self { keys, image, director_root, order: 0 }
    }

    /// Returns the image repository's root, as signed.
    #[must_use]
    pub fn image_root(&self) -> &[u8] {
        self.image.root_bytes()
    }

    /// Changes what may be installed.
    ///
    /// # Panics
    /// When it cannot be signed.
    pub fn publish(&mut self, now: DateTime<Utc>, change: impl FnOnce(&mut Catalog)) {
        let mut catalog = Catalog::open(&self.image).expect("a repository that is whole");
        change(&mut catalog);
        let documents = catalog.publish(now, &[&self.keys.targets]).expect("the list is signed");
        if documents.is_empty() {
            return;
        }
        self.image = image::publish(&self.image, &documents, now, self.keys.online()).expect("the list is published");
    }

    /// Answers a check-in as an honest server would whose device holds nothing but the roots: with orders for these
    /// releases, and with a proof of freshness when the nonce is not empty.
    ///
    /// # Panics
    /// When it cannot be signed.
    pub fn answer(
        &mut self,
        device: DeviceId,
        releases: &[Target],
        nonce: &[u8],
        now: DateTime<Utc>,
    ) -> wire::CheckInResponse {
        let half = Role::Timestamp.lifetime() / 2;
        if self.image.timestamp().is_none_or(|timestamp| timestamp.expires - now < half) {
            self.image = image::refresh(&self.image, now, self.keys.online()).expect("the newest list stays so");
        }
        self.order += 1;
        let assignment = Assignment { device, version: self.order, targets: releases.to_vec() };
        let orders = director::sign(&assignment, now, director::LIFETIME, &self.keys.director).expect("orders");
        let part = |role: Role| self.image.bytes(role.as_str()).expect("a repository that is whole").to_vec().into();
        let metadata = wire::MetadataUpdate {
            image_timestamp: part(Role::Timestamp),
            image_snapshot: part(Role::Snapshot),
            image_targets: vec![wire::TargetsDocument {
                role: Role::Targets.as_str().to_owned(),
                document: part(Role::Targets),
            }],
            director_timestamp: orders.timestamp.into(),
            director_snapshot: orders.snapshot.into(),
            director_targets: orders.targets.into(),
            freshness: self.freshness(device, nonce, now).into(),
            ..Default::default()
        };
        let deployments = releases.iter().map(deployment).collect();
        wire::CheckInResponse { deployments, metadata: Some(metadata), ..Default::default() }
    }

    /// Proves freshness; nothing for an empty nonce.
    ///
    /// # Panics
    /// When it cannot be signed.
    #[must_use]
    pub fn freshness(&self, device: DeviceId, nonce: &[u8], now: DateTime<Utc>) -> Vec<u8> {
        if nonce.is_empty() {
            return Vec::new();
        }
        let proof = Freshness { device, nonce: nonce.to_vec(), director_version: self.order, time: now };
        sign(&proof, &[&self.keys.director]).expect("a proof of freshness")
    }
}

/// Makes a new deployment of a release, as the server would offer it.
///
/// # Panics
/// When the release is larger than the wire can say.
#[must_use]
pub fn deployment(release: &Target) -> wire::Deployment {
    let Target { length, sha256, custom } = release;
    wire::Deployment {
        deployment: Uuid::now_v7().to_string(),
        attempt: 1,
        package: custom.package.to_string(),
        version: custom.version.to_string(),
        release_counter: custom.release_counter,
        installer: match custom.installer {
            Installer::Directory => wire::Installer::Directory,
            Installer::File => wire::Installer::File,
        }
        .into(),
        payload: Some(wire::Payload {
            sha256: sha256.0.to_vec().into(),
            size_bytes: i64::try_from(*length).expect("a payload's size"),
        }),
        hardware: custom.hardware.iter().map(ToString::to_string).collect(),
        unpacked_size_bytes: i64::try_from(custom.unpacked_size_bytes).expect("a tree's size"),
        ..Default::default()
    }
}
