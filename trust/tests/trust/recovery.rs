//! Changes of keys: who loses and who keeps what.

use ota_trust::{
    Fault, Trusted,
    image::{self, Catalog, PublishError},
    key::{PrivateKey, Signer as _},
    metadata::{Mode, Role, Timestamp, add_signature, sign},
};

use crate::world::{World, hours, noon, package, target};

#[test]
fn floors_survive_a_root_that_keeps_the_online_keys() {
    let mut world = World::new();
    let order = world.release(target("app", "1.0.0", 1));
    let old = world.image.clone();
    world.wait(1);
    let trusted = world.check_in(&world.enrolled());
    let user = PrivateKey::generate().unwrap();
    let before = world.targets.public_key().clone();
    world.rotate_image(|root| root.set_role(Role::Targets, 1, &[&before, user.public_key()]));
    world.version += 1;
    let mut update = world.update(&trusted);
    update.image_timestamp = old.bytes("timestamp").map(<[u8]>::to_vec);
    update.image_snapshot = old.bytes("snapshot").map(<[u8]>::to_vec);
    assert_eq!(trusted.update(&update, Some(b"nonce"), world.now).unwrap_err().fault, Fault::Rollback);
    world.check_in(&trusted).authorize(&order, world.now).unwrap();
}

#[test]
fn a_key_that_is_added_to_targets_signs_from_then_on() {
    let mut world = World::new();
    let trusted = world.check_in(&world.enrolled());
    let user = PrivateKey::generate().unwrap();
    let server = world.targets.public_key().clone();
    world.rotate_image(|root| root.set_role(Role::Targets, 1, &[&server, user.public_key()]));
    world.targets = user;
    let order = world.release(target("app", "1.0.0", 1));
    world.check_in(&trusted).authorize(&order, noon()).unwrap();
}

#[test]
fn fleets_recover_from_versions_that_a_stolen_online_key_signed() {
    let mut world = World::new();
    let order = world.release(target("app", "1.0.0", 1));
    let trusted = world.check_in(&world.enrolled());
    let mut update = world.update(&trusted);
    let stolen = Timestamp { version: 1 << 53, expires: noon() + hours(24), snapshot_version: 2 };
    update.image_timestamp = Some(sign(&stolen, &[&world.timestamp]).unwrap());
    let trusted = trusted.update(&update, Some(b"nonce"), noon()).unwrap();
    world.wait(1);
    assert_eq!(trusted.update(&world.update(&trusted), Some(b"nonce"), world.now).unwrap_err().fault, Fault::Rollback);

    let key = PrivateKey::generate().unwrap();
    world.timestamp = key;
    let timestamp = world.timestamp.public_key().clone();
    world.rotate_image(|root| root.set_role(Role::Timestamp, 1, &[&timestamp]));
    world.version += 1;
    let trusted = world.check_in(&trusted);
    assert_eq!(trusted.versions().image.timestamp, 4);
    trusted.authorize(&order, world.now).unwrap();
    Trusted::from_bytes(&trusted.to_bytes()).unwrap();
}

#[test]
fn fleets_recover_from_a_time_that_a_stolen_director_key_signed() {
    let mut world = World::new();
    let order = world.release(target("app", "1.0.0", 1));
    let honest = world.now;
    world.now = "9990-01-01T00:00:00Z".parse().unwrap();
    let ahead = world.freshness(b"nonce");
    world.now = honest;
    let trusted = world.enrolled();
    let mut update = world.update(&trusted);
    update.freshness = Some(ahead);
    // Everything honest has expired at such a time.
    assert_eq!(trusted.update(&update, Some(b"nonce"), honest).unwrap_err().fault, Fault::Freeze);
    world.rotate_director();
    world.version += 1;
    world.check_in(&trusted).authorize(&order, honest).unwrap();
}

#[test]
fn a_director_key_is_replaced_without_touching_a_device() {
    let mut world = World::new();
    let order = world.release(target("app", "1.0.0", 1));
    let trusted = world.check_in(&world.enrolled());
    let old = std::mem::replace(&mut world.director, PrivateKey::generate().unwrap());
    world.rotate_director();
    world.version += 1;
    let next = world.check_in(&trusted);
    next.authorize(&order, noon()).unwrap();
    world.director = old;
    world.version += 1;
    assert_eq!(next.update(&world.update(&next), Some(b"nonce"), noon()).unwrap_err().fault, Fault::Arbitrary);
}

#[test]
fn a_floor_that_a_stolen_targets_key_raised_falls_with_the_key() {
    let mut world = World::new();
    let order = world.release(target("app", "1.0.0", 5));
    world.edit(|catalog| catalog.raise_floor(&package("app"), 3));
    let honest = world.image.clone();
    world.edit(|catalog| catalog.raise_floor(&package("app"), i64::MAX));
    let trusted = world.check_in(&world.enrolled());
    assert_eq!(trusted.authorize(&order, noon()).unwrap_err().fault, Fault::Rollback);

    // The operators sign the honest list again, by another key, in a version above the stolen one.
    let key = PrivateKey::generate().unwrap();
    let stolen = std::mem::replace(&mut world.targets, key);
    let server = stolen.public_key().clone();
    let operators = world.targets.public_key().clone();
    world.rotate_image(|root| root.set_role(Role::Targets, 1, &[&server, &operators]));
    let mut catalog = Catalog::open(&world.image).unwrap();
    for target in Catalog::open(&honest).unwrap().entries().values() {
        catalog.remove(&target.path());
        catalog.insert(target.clone());
    }
    let list = catalog.publish_all(noon(), &[&world.targets]).unwrap();
    world.image = image::publish(&world.image, &list, noon(), world.online()).unwrap();
    world.rotate_image(|root| root.set_role(Role::Targets, 1, &[&operators]));
    world.version += 1;
    let trusted = world.check_in(&trusted);
    trusted.authorize(&order, noon()).unwrap();
    assert_eq!(trusted.floor(&package("app")), 3);
}

#[test]
fn a_server_does_not_follow_roots_that_orphan_its_list() {
    let mut world = World::new();
    world.release(target("app", "1.0.0", 1));
    let user = PrivateKey::generate().unwrap();
    let mut root = world.image.root().next(noon() + hours(24));
    root.set_role(Role::Targets, 1, &[user.public_key()]);
    let bytes = sign(&root, &[&world.root]).unwrap();
    let error = image::follow(&world.image, &[&bytes], noon(), world.online()).unwrap_err();
    assert!(matches!(error, PublishError::Verify(error) if error.fault == Fault::MixAndMatch));
}

#[test]
fn operators_take_the_roots_over_and_cannot_be_taken_back() {
    let mut world = World::new();
    let order = world.release(target("app", "1.0.0", 1));
    let trusted = world.check_in(&world.enrolled());
    let user = PrivateKey::generate().unwrap();
    let server = world.targets.public_key().clone();
    world.rotate_image(|root| root.set_role(Role::Targets, 1, &[&server, user.public_key()]));
    let list = Catalog::open(&world.image).unwrap().publish_all(noon(), &[&user]).unwrap();
    world.image = image::publish(&world.image, &list, noon(), world.online()).unwrap();

    let offline = [(); 3].map(|()| PrivateKey::generate().unwrap());
    let keys = [offline[0].public_key(), offline[1].public_key(), offline[2].public_key()];
    let mut root = world.image.root().next(noon() + Role::Root.lifetime());
    root.mode = Mode::Adopted;
    root.set_role(Role::Root, 2, &keys);
    root.set_role(Role::Targets, 1, &[user.public_key()]);
    let bytes = sign(&root, &[&offline[0], &offline[2]]).unwrap();
    assert!(image::follow(&world.image, &[&bytes], noon(), world.online()).is_err());
    let bytes = add_signature(&bytes, &world.root).unwrap();
    world.image = image::follow(&world.image, &[&bytes], noon(), world.online()).unwrap();
    world.image_roots.push(bytes);
    world.version += 1;
    let trusted = world.check_in(&trusted);
    trusted.authorize(&order, noon()).unwrap();

    for signers in [vec![&world.root], vec![&world.root, &offline[0]]] {
        let signers: Vec<&dyn ota_trust::key::Signer> = signers.into_iter().map(|key| key as _).collect();
        let bytes = sign(&root.next(noon() + hours(24)), &signers).unwrap();
        let mut update = world.update(&trusted);
        update.image_roots = vec![bytes];
        assert_eq!(trusted.update(&update, Some(b"nonce"), noon()).unwrap_err().fault, Fault::Arbitrary);
    }
    let next = sign(&root.next(noon() + hours(24)), &[&offline[1], &offline[2]]).unwrap();
    let mut update = world.update(&trusted);
    update.image_roots = vec![next];
    trusted.update(&update, Some(b"nonce"), noon()).unwrap();
}
