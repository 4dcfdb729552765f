//! A whole system in memory: the operators' keys, the server's, and one device.

use chrono::{DateTime, TimeDelta, Utc};
use ota_domain::{DeviceId, Hardware, PackageName, Sha256Digest, Version, release::Installer};
use ota_trust::{
    Order, Repository, Trusted, Update,
    director::{self, Assignment},
    image::{self, Catalog, OnlineKeys},
    key::{PrivateKey, Signer},
    metadata::{Custom, Freshness, Mode, Role, Root, Target, sign},
};

pub(crate) fn noon() -> DateTime<Utc> {
    "2026-11-21T12:00:00Z".parse().unwrap()
}

pub(crate) fn hours(hours: i64) -> TimeDelta {
    TimeDelta::hours(hours)
}

pub(crate) fn package(name: &str) -> PackageName {
    name.parse().unwrap()
}

pub(crate) fn target(name: &str, version: &str, counter: i64) -> Target {
    let custom = Custom {
        package: package(name),
        version: version.parse::<Version>().unwrap(),
        release_counter: counter,
        floor: 0,
        hardware: vec!["rpi4".parse().unwrap()],
        installer: Installer::Directory,
        unpacked_size_bytes: 77,
    };
    let mut sha256 = [u8::try_from(counter & 0xff).unwrap(); 32];
    sha256[0] = name.as_bytes()[0];
    Target { length: 1_000 + counter.unsigned_abs(), sha256: Sha256Digest(sha256), custom }
}

/// The order a server gives for what it signed.
pub(crate) fn order(target: &Target) -> Order {
    let custom = target.custom.clone();
    Order {
        package: custom.package,
        version: custom.version,
        sha256: target.sha256,
        length: target.length,
        release_counter: custom.release_counter,
        hardware: custom.hardware,
        installer: custom.installer,
        unpacked_size_bytes: custom.unpacked_size_bytes,
    }
}

pub(crate) struct World {
    pub(crate) root: PrivateKey,
    pub(crate) targets: PrivateKey,
    pub(crate) snapshot: PrivateKey,
    pub(crate) timestamp: PrivateKey,
    pub(crate) director: PrivateKey,
    pub(crate) image: Repository,
    pub(crate) image_roots: Vec<Vec<u8>>,
    pub(crate) director_roots: Vec<Vec<u8>>,
    pub(crate) device: DeviceId,
    /// What the device should run.
    pub(crate) assigned: Vec<Target>,
    pub(crate) version: u64,
    pub(crate) now: DateTime<Utc>,
}

impl World {
    pub(crate) fn new() -> Self {
        let [root, targets, snapshot, timestamp, director] = [(); 5].map(|()| PrivateKey::generate().unwrap());
        let expires = noon() + Role::Root.lifetime();
        let image_root = Root::first(
            Mode::Managed,
            expires,
            &[
                (Role::Root, &[root.public_key()]),
                (Role::Targets, &[targets.public_key()]),
                (Role::Snapshot, &[snapshot.public_key()]),
                (Role::Timestamp, &[timestamp.public_key()]),
            ],
        );
        let director_root = Root::first(
            Mode::Managed,
            expires,
            &[
                (Role::Root, &[root.public_key()]),
                (Role::Targets, &[director.public_key()]),
                (Role::Snapshot, &[director.public_key()]),
                (Role::Timestamp, &[director.public_key()]),
            ],
        );
        let image_root = sign(&image_root, &[&root]).unwrap();
        let director_root = sign(&director_root, &[&root]).unwrap();
        let online = OnlineKeys { snapshot: &snapshot, timestamp: &timestamp };
        let image = image::create(&image_root, noon(), &[&targets], online).unwrap();
        Self {
            image,
            image_roots: vec![image_root],
            director_roots: vec![director_root],
            root,
            targets,
            snapshot,
            timestamp,
            director,
            device: DeviceId(uuid::Uuid::from_u128(7)),
            assigned: Vec::new(),
            version: 1,
            now: noon(),
        }
    }

    pub(crate) fn enrolled(&self) -> Trusted {
        let hardware: Hardware = "rpi4".parse().unwrap();
        Trusted::new(self.device, hardware, &self.image_roots[0], &self.director_roots[0]).unwrap()
    }

    pub(crate) fn online(&self) -> OnlineKeys<'_> {
        OnlineKeys { snapshot: &self.snapshot, timestamp: &self.timestamp }
    }

    /// Operators change the list, the server takes it in.
    pub(crate) fn edit(&mut self, change: impl FnOnce(&mut Catalog)) {
        let mut catalog = Catalog::open(&self.image).unwrap();
        change(&mut catalog);
        let documents = catalog.publish(self.now, &[&self.targets]).unwrap();
        self.image = image::publish(&self.image, &documents, self.now, self.online()).unwrap();
    }

    /// A release is listed and assigned.
    pub(crate) fn release(&mut self, target: Target) -> Order {
        let order = order(&target);
        self.edit(|catalog| catalog.insert(target.clone()));
        self.assign(vec![target]);
        order
    }

    pub(crate) fn assign(&mut self, targets: Vec<Target>) {
        self.assigned = targets;
        self.version += 1;
    }

    /// Time goes on, and the server keeps its documents fresh.
    pub(crate) fn wait(&mut self, hours: i64) {
        self.now += TimeDelta::hours(hours);
        self.image = image::refresh(&self.image, self.now, self.online()).unwrap();
        self.version += 1;
    }

    /// Follows a change of the image repository's root, signed by the old root key and by `root`.
    pub(crate) fn rotate_image(&mut self, change: impl FnOnce(&mut Root)) {
        let mut root = self.image.root().next(self.now + Role::Root.lifetime());
        change(&mut root);
        let bytes = sign(&root, &[&self.root]).unwrap();
        self.image = image::follow(&self.image, &[&bytes], self.now, self.online()).unwrap();
        self.image_roots.push(bytes);
    }

    /// Replaces the director's key.
    pub(crate) fn rotate_director(&mut self) {
        let before: Root = ota_trust::metadata::read(self.director_roots.last().unwrap()).unwrap();
        let mut root = before.next(self.now + Role::Root.lifetime());
        self.director = PrivateKey::generate().unwrap();
        for role in [Role::Targets, Role::Snapshot, Role::Timestamp] {
            root.set_role(role, 1, &[self.director.public_key()]);
        }
        self.director_roots.push(sign(&root, &[&self.root]).unwrap());
    }

    pub(crate) fn freshness(&self, nonce: &[u8]) -> Vec<u8> {
        let freshness =
            Freshness { device: self.device, nonce: nonce.to_vec(), director_version: self.version, time: self.now };
        sign(&freshness, &[&self.director]).unwrap()
    }

    /// All that an honest server would send.
    pub(crate) fn update(&self, trusted: &Trusted) -> Update {
        let assignment = Assignment { device: self.device, version: self.version, targets: self.assigned.clone() };
        let director = director::sign(&assignment, self.now, director::LIFETIME, &self.director).unwrap();
        let held = trusted.versions();
        let after = |roots: &[Vec<u8>], version: u64| roots[usize::try_from(version).unwrap()..].to_vec();
        let document = |role: &str| self.image.bytes(role).map(<[u8]>::to_vec);
        let mut image_targets = vec![("targets".to_owned(), document("targets").unwrap())];
        let bins: std::collections::BTreeSet<_> =
            self.assigned.iter().filter_map(|target| self.image.bin_for(&target.path())).collect();
        image_targets.extend(bins.into_iter().map(|bin| (bin.clone(), document(&bin).unwrap())));
        Update {
            image_roots: after(&self.image_roots, held.image.root),
            image_timestamp: document("timestamp"),
            image_snapshot: document("snapshot"),
            image_targets,
            director_roots: after(&self.director_roots, held.director.root),
            director_timestamp: Some(director.timestamp),
            director_snapshot: Some(director.snapshot),
            director_targets: Some(director.targets),
            freshness: Some(self.freshness(b"nonce")),
        }
    }

    /// An honest check-in.
    pub(crate) fn check_in(&self, trusted: &Trusted) -> Trusted {
        trusted.update(&self.update(trusted), Some(b"nonce"), self.now).unwrap()
    }
}
