//! The list of releases: edited by operators, taken in by the server.

use chrono::TimeDelta;
use ota_trust::{
    Fault, Repository,
    image::{self, Catalog, MAX_FLAT, PublishError},
    key::{PrivateKey, Signer as _},
    metadata::Role,
};

use crate::world::{World, hours, noon, package, target};

#[test]
fn an_unchanged_list_is_not_signed_again_until_half_its_life_is_gone() {
    let mut world = World::new();
    world.release(target("app", "1.0.0", 1));
    let catalog = Catalog::open(&world.image).unwrap();
    assert_eq!(catalog.publish(noon(), &[&world.targets]).unwrap(), []);
    let later = noon() + TimeDelta::days(183);
    assert_eq!(catalog.publish(later, &[&world.targets]).unwrap().len(), 1);
}

#[test]
fn a_change_signs_only_the_bin_it_is_in_and_the_same_list_is_cut_the_same() {
    let mut world = World::new();
    world.edit(|catalog| {
        for counter in 1..=i64::try_from(MAX_FLAT).unwrap() {
            catalog.insert(target("app", &format!("0.{counter}.0"), counter));
        }
    });
    assert_eq!(world.image.bin_for("app/0.1.0"), None);
    let mut catalog = Catalog::open(&world.image).unwrap();
    catalog.insert(target("lib", "1.0.0", 1));
    let documents = catalog.publish(noon(), &[&world.targets]).unwrap();
    assert_eq!(documents.len(), 65);
    assert_eq!(documents, catalog.publish(noon(), &[&world.targets]).unwrap());
    world.image = image::publish(&world.image, &documents, noon(), world.online()).unwrap();
    assert_eq!(Catalog::open(&world.image).unwrap().entries().len(), MAX_FLAT + 1);

    let path = target("lib", "1.0.1", 2).path();
    let bin = world.image.bin_for(&path).unwrap();
    let hash = hex::encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, path.as_bytes()));
    assert_eq!(u32::from_str_radix(&bin["bin-".len()..], 16), u32::from_str_radix(&hash[..2], 16).map(|top| top / 4));
    let mut catalog = Catalog::open(&world.image).unwrap();
    catalog.insert(target("lib", "1.0.1", 2));
    let documents = catalog.publish(noon(), &[&world.targets]).unwrap();
    assert_eq!(documents.iter().map(|(role, _)| role).collect::<Vec<_>>(), [&bin]);
    world.image = image::publish(&world.image, &documents, noon(), world.online()).unwrap();
    assert!(world.image.target(&path).unwrap().is_some());
    assert!(world.image.target("lib/9.9.9").unwrap().is_none());

    // Fewer entries do not take the bins away: devices hold versions of them.
    let mut catalog = Catalog::open(&world.image).unwrap();
    catalog.remove(&path);
    catalog.remove("lib/1.0.0");
    let documents = catalog.publish(noon(), &[&world.targets]).unwrap();
    assert!(documents.iter().all(|(role, _)| role.starts_with("bin-")));
    image::publish(&world.image, &documents, noon(), world.online()).unwrap();
}

#[test]
fn very_long_lists_are_cut_into_1024_bins() {
    let mut world = World::new();
    let mut catalog = Catalog::open(&world.image).unwrap();
    catalog.insert_all((1..=50_001).map(|counter| target("app", &format!("0.{counter}.0"), counter)));
    let documents = catalog.publish(noon(), &[&world.targets]).unwrap();
    assert_eq!((documents.len(), documents[1].0.as_str(), documents[1_024].0.as_str()), (1_025, "bin-000", "bin-3ff"));
    world.image = image::publish(&world.image, &documents, noon(), world.online()).unwrap();
    assert!(world.image.target("app/0.50001.0").unwrap().is_some());
}

#[test]
fn changed_keys_sign_every_bin_again() {
    let mut world = World::new();
    world.edit(|catalog| {
        catalog.insert_all((1..=501).map(|counter| target("app", &format!("0.{counter}.0"), counter)));
    });
    let user = PrivateKey::generate().unwrap();
    let server = world.targets.public_key().clone();
    world.rotate_image(|root| root.set_role(Role::Targets, 1, &[&server, user.public_key()]));
    let documents = Catalog::open(&world.image).unwrap().publish(noon(), &[&user]).unwrap();
    assert_eq!(documents.len(), 65);
    image::publish(&world.image, &documents, noon(), world.online()).unwrap();
}

#[test]
fn a_floor_is_the_whole_packages_and_never_falls() {
    let mut world = World::new();
    world.edit(|catalog| {
        catalog.insert_all((1..=3).map(|counter| target("app", &format!("0.{counter}.0"), counter)));
        catalog.insert(target("lib", "1.0.0", 1));
        catalog.raise_floor(&package("app"), 2);
        catalog.raise_floor(&package("app"), 1);
        catalog.insert(target("app", "0.4.0", 4));
    });
    let catalog = Catalog::open(&world.image).unwrap();
    for entry in catalog.entries().values() {
        assert_eq!(entry.custom.floor, if entry.custom.package == package("app") { 2 } else { 0 });
    }
}

#[test]
fn of_two_operators_who_publish_at_once_one_has_to_start_again() {
    let mut world = World::new();
    let sign = |world: &World, version: &str| {
        let mut catalog = Catalog::open(&world.image).unwrap();
        catalog.insert(target("app", version, 1));
        catalog.publish(noon(), &[&world.targets]).unwrap()
    };
    let (one, other) = (sign(&world, "1.0.0"), sign(&world, "2.0.0"));
    world.image = image::publish(&world.image, &one, noon(), world.online()).unwrap();
    let error = image::publish(&world.image, &other, noon(), world.online()).unwrap_err();
    assert!(matches!(error, PublishError::Verify(error) if error.fault == Fault::MixAndMatch));
}

#[test]
fn a_server_takes_in_only_what_a_device_would_believe() {
    let world = World::new();
    let mut catalog = Catalog::open(&world.image).unwrap();
    catalog.insert(target("app", "1.0.0", 1));
    let good = catalog.publish(noon(), &[&world.targets]).unwrap();
    let other = PrivateKey::generate().unwrap();
    let bad = [
        catalog.publish(noon(), &[&other]).unwrap(),
        catalog.publish(noon() - TimeDelta::days(366), &[&world.targets]).unwrap(),
        vec![good[0].clone(), good[0].clone()],
        vec![("bin-00".to_owned(), good[0].1.clone())],
        vec![("targets".to_owned(), b"{}".to_vec())],
    ];
    for documents in bad {
        assert!(image::publish(&world.image, &documents, noon(), world.online()).is_err());
    }
    let next = image::publish(&world.image, &good, noon(), world.online()).unwrap();
    assert_eq!((next.versions().targets, next.versions().snapshot, next.versions().timestamp), (2, 2, 2));
}

#[test]
fn a_refreshed_repository_lives_on_and_is_read_back() {
    let mut world = World::new();
    world.release(target("app", "1.0.0", 1));
    for _ in 0..15 {
        world.wait(12);
    }
    world.image.check(world.now).unwrap();
    assert_eq!((world.image.versions().snapshot, world.image.versions().timestamp), (3, 17));
    let document = |role: &str| world.image.bytes(role);
    let back = Repository::restore(
        world.image.root_bytes(),
        document("timestamp"),
        document("snapshot"),
        [("targets", document("targets").unwrap())],
    )
    .unwrap();
    assert_eq!(back.versions(), world.image.versions());
    back.check(world.now).unwrap();
    assert_eq!(back.check(world.now + hours(24)).unwrap_err().fault, Fault::Freeze);
}
