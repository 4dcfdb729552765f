//! A device's update, in which one document is whatever the input says: as bytes, or as a payload that the right key signed,
//! which is what a server can send that holds every key. Accepted or refused; nothing that is held ever goes back.

#![no_main]

use std::sync::LazyLock;

use chrono::{DateTime, TimeDelta, Utc};
use libfuzzer_sys::fuzz_target;
use ota_domain::DeviceId;
use ota_trust::{
    Trusted, Update,
    director::{self, Assignment},
    image::{self, Catalog, OnlineKeys},
    key::{PrivateKey, Signer as _},
    metadata::{Freshness, Mode, Role, Root, add_signature, sign},
};

struct World {
    root: PrivateKey,
    targets: PrivateKey,
    online: PrivateKey,
    director: PrivateKey,
    device: Trusted,
    honest: Update,
    now: DateTime<Utc>,
}

static WORLD: LazyLock<World> = LazyLock::new(|| {
    let now: DateTime<Utc> = "2026-11-21T12:00:00Z".parse().expect("it is a time");
    // PKCS#8 of an Ed25519 key, but for the 32 bytes: the same in every run.
    let prefix = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
    let key = |byte: u8| PrivateKey::from_pkcs8_der(&[&prefix[..], &[byte; 32]].concat()).expect("it is a key");
    let (root, targets, online, director) = (key(1), key(2), key(3), key(4));
    let expires = now + TimeDelta::days(365);
    let make = |list: &PrivateKey, rest: &PrivateKey| {
        let roles = [
            (Role::Root, &[root.public_key()][..]),
            (Role::Targets, &[list.public_key()]),
            (Role::Snapshot, &[rest.public_key()]),
            (Role::Timestamp, &[rest.public_key()]),
        ];
        sign(&Root::first(Mode::Managed, expires, &roles), &[&root]).expect("it is signed")
    };
    let (image_root, director_root) = (make(&targets, &online), make(&director, &director));
    let keys = OnlineKeys { snapshot: &online, timestamp: &online };
    let repository = image::create(&image_root, now, &[&targets], keys).expect("it is made");
    let repository = {
        let catalog = Catalog::open(&repository).expect("it has targets");
        let documents = catalog.publish_all(now, &[&targets]).expect("they are signed");
        image::publish(&repository, &documents, now, keys).expect("they are believed")
    };
    let id = DeviceId(uuid::Uuid::from_u128(7));
    let assignment = Assignment { device: id, version: 5, targets: Vec::new() };
    let documents = director::sign(&assignment, now, director::LIFETIME, &director).expect("it is signed");
    let document = |role: &str| repository.bytes(role).map(<[u8]>::to_vec);
    let freshness = Freshness { device: id, nonce: b"nonce".to_vec(), director_version: 5, time: now };
    let honest = Update {
        image_timestamp: document("timestamp"),
        image_snapshot: document("snapshot"),
        image_targets: vec![("targets".to_owned(), document("targets").expect("there are"))],
        director_timestamp: Some(documents.timestamp),
        director_snapshot: Some(documents.snapshot),
        director_targets: Some(documents.targets),
        freshness: Some(sign(&freshness, &[&director]).expect("it is signed")),
        ..Update::default()
    };
    let device = Trusted::new(id, "rpi4".parse().expect("it is a name"), &image_root, &director_root);
    let device = device.and_then(|device| device.update(&honest, Some(b"nonce"), now)).expect("it is honest");
    World { root, targets, online, director, device, honest, now }
});

fuzz_target!(|input: &[u8]| {
    let [kind, form, rest @ ..] = input else { return };
    let world = &*WORLD;
    let signer = match kind % 9 {
        0 | 1 => &world.root,
        2 | 3 => &world.online,
        4 => &world.targets,
        _ => &world.director,
    };
    let document = if form % 2 == 0 {
        rest.to_vec()
    } else {
        let envelope = [br#"{"signatures":[],"signed":"#, rest, b"}"].concat();
        let Ok(signed) = add_signature(&envelope, signer) else { return };
        signed
    };
    let mut update = world.honest.clone();
    match kind % 9 {
        0 => update.image_roots = vec![document],
        1 => update.director_roots = vec![document],
        2 => update.image_timestamp = Some(document),
        3 => update.image_snapshot = Some(document),
        4 => update.image_targets = vec![("targets".to_owned(), document)],
        5 => update.director_timestamp = Some(document),
        6 => update.director_snapshot = Some(document),
        7 => update.director_targets = Some(document),
        _ => update.freshness = Some(document),
    }
    let (before, now) = (world.device.versions(), world.now);
    if let Ok(next) = world.device.update(&update, Some(b"nonce"), now) {
        let after = next.versions();
        assert!(after.image.root >= before.image.root && after.director.root >= before.director.root);
        assert!(next.now(now) >= world.device.now(now));
        // Only a root that takes a key away lets other versions fall.
        if kind % 9 > 1 {
            assert!(after.image.timestamp >= before.image.timestamp && after.image.snapshot >= before.image.snapshot);
            assert!(after.image.targets >= before.image.targets);
            assert!(after.director.timestamp >= before.director.timestamp);
        }
        let stored = next.to_bytes();
        assert_eq!(Trusted::from_bytes(&stored).expect("it was written by us").to_bytes(), stored);
    }
});
