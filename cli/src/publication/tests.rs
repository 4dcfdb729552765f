use chrono::{DateTime, Utc};
use ota_trust::{
    image::{OnlineKeys, create, publish as take_in},
    key::PrivateKey,
    metadata::sign as sign_document,
};

use super::*;

fn now() -> DateTime<Utc> {
    "2026-11-21T12:00:00Z".parse().unwrap()
}

fn catalog(key: &PrivateKey) -> (ota_trust::Repository, Catalog) {
    let public = [key.public_key()];
    let roles = Role::ALL.map(|role| (role, public.as_slice()));
    let root = sign_document(&Root::first(Mode::Managed, now() + Role::Root.lifetime(), &roles), &[key]).unwrap();
    let repository = create(&root, now(), &[key], OnlineKeys { snapshot: key, timestamp: key }).unwrap();
    let catalog = Catalog::open(&repository).unwrap();
    (repository, catalog)
}

fn name(text: &str) -> ReleaseRef {
    text.parse().unwrap()
}

fn release(counter: i64, payload: char) -> Release {
    Release {
        release_counter: counter,
        hardware: vec!["rpi5".to_owned(), "rpi4".to_owned()],
        installer: WireInstaller::Directory.into(),
        payload: format!("payloads/{}", payload.to_string().repeat(64)),
        payload_size_bytes: 10,
        unpacked_size_bytes: 20,
        ..Release::default()
    }
}

#[test]
fn what_is_signed_is_what_was_uploaded() {
    let key = PrivateKey::generate().unwrap();
    let (repository, mut catalog) = catalog(&key);
    list(&mut catalog, &target(&name("app@1.0.0"), &release(1, 'a')).unwrap()).unwrap();
    let documents = catalog.publish(now(), &[&key]).unwrap();
    let after = take_in(&repository, &documents, now(), OnlineKeys { snapshot: &key, timestamp: &key }).unwrap();
    let listed = after.target("app/1.0.0").unwrap().unwrap();
    assert_eq!((listed.length, listed.sha256.to_string()), (10, "a".repeat(64)));
    assert_eq!((listed.custom.release_counter, listed.custom.unpacked_size_bytes), (1, 20));
    assert_eq!(listed.custom.hardware.iter().map(ToString::to_string).collect::<Vec<_>>(), ["rpi5", "rpi4"]);
}

#[test]
fn a_release_that_is_listed_as_it_is_needs_no_signature() {
    let key = PrivateKey::generate().unwrap();
    let (repository, mut catalog) = catalog(&key);
    let target = target(&name("app@1.0.0"), &release(1, 'a')).unwrap();
    list(&mut catalog, &target).unwrap();
    let documents = catalog.publish(now(), &[&key]).unwrap();
    let after = take_in(&repository, &documents, now(), OnlineKeys { snapshot: &key, timestamp: &key }).unwrap();
    let mut again = Catalog::open(&after).unwrap();
    again.raise_floor(&"app".parse().unwrap(), 1);
    list(&mut again, &target).unwrap();
    let mut same = Catalog::open(&after).unwrap();
    list(&mut same, &target).unwrap();
    assert!(same.publish(now(), &[&key]).unwrap().is_empty());
}

#[test]
fn a_signed_release_never_becomes_another() {
    let key = PrivateKey::generate().unwrap();
    let (_, mut catalog) = catalog(&key);
    list(&mut catalog, &target(&name("app@1.0.0"), &release(1, 'a')).unwrap()).unwrap();
    let failure = list(&mut catalog, &target(&name("app@1.0.0"), &release(1, 'b')).unwrap()).unwrap_err();
    assert!(failure.to_string().contains("another app/1.0.0 is signed already"), "{failure}");
    let failure = list(&mut catalog, &target(&name("app@2.0.0"), &release(1, 'b')).unwrap()).unwrap_err();
    assert!(failure.to_string().contains("counter 1, which app/1.0.0 has already"), "{failure}");
}

#[test]
fn nothing_below_the_floor_is_signed() {
    let key = PrivateKey::generate().unwrap();
    let (_, mut catalog) = catalog(&key);
    list(&mut catalog, &target(&name("app@2.0.0"), &release(2, 'a')).unwrap()).unwrap();
    catalog.raise_floor(&"app".parse().unwrap(), 3);
    let failure = list(&mut catalog, &target(&name("app@1.0.0"), &release(1, 'b')).unwrap()).unwrap_err();
    assert!(failure.to_string().contains("below the floor 3"), "{failure}");
    list(&mut catalog, &target(&name("app@3.0.0"), &release(3, 'c')).unwrap()).unwrap();
    assert_eq!(catalog.floor(&"app".parse().unwrap()), 3);
}

#[test]
fn only_keys_that_the_root_names_may_sign_and_one_has_to_be_enough() {
    let (key, other) = (PrivateKey::generate().unwrap(), PrivateKey::generate().unwrap());
    let (repository, _) = catalog(&key);
    let root = repository.root();
    assert!(may_sign(root, &key).unwrap());
    assert!(!may_sign(root, &other).unwrap());
    let mut two = root.clone();
    two.set_role(Role::Targets, 2, &[key.public_key(), other.public_key()]);
    assert!(may_sign(&two, &key).is_err());
}
