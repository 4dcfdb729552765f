//! What an honest server's updates do to a device.

use ota_trust::{Fault, Trusted, Update};

use crate::world::{World, hours, noon, order, package, target};

#[test]
fn a_release_that_both_repositories_list_may_be_installed() {
    let mut world = World::new();
    let order = world.release(target("app", "1.0.0", 1));
    let trusted = world.enrolled();
    assert!(trusted.wants_freshness(noon()));
    assert_eq!(trusted.authorize(&order, noon()).unwrap_err().fault, Fault::MixAndMatch);
    let trusted = world.check_in(&trusted);
    trusted.authorize(&order, noon()).unwrap();
    let held = trusted.versions();
    assert_eq!((held.image.root, held.image.timestamp, held.image.snapshot, held.image.targets), (1, 2, 2, 2));
    assert_eq!((held.director.root, held.director.timestamp), (1, 2));
}

#[test]
fn what_is_not_sent_because_it_is_unchanged_is_taken_from_what_is_held() {
    let mut world = World::new();
    let order = world.release(target("app", "1.0.0", 1));
    let trusted = world.check_in(&world.enrolled());
    world.wait(13);
    let full = world.update(&trusted);
    // Its version is the one that is held.
    assert!(trusted.update(&Update { director_targets: None, ..full.clone() }, Some(b"nonce"), world.now).is_err());
    let thin = Update { image_snapshot: None, image_targets: Vec::new(), ..full };
    let next = trusted.update(&thin, Some(b"nonce"), world.now).unwrap();
    next.authorize(&order, world.now).unwrap();
    assert_eq!(next.versions().image.snapshot, trusted.versions().image.snapshot);
    assert_eq!(next.versions().image.timestamp, trusted.versions().image.timestamp + 1);
}

#[test]
fn freshness_is_wanted_when_half_the_life_is_gone() {
    let mut world = World::new();
    let trusted = world.check_in(&world.enrolled());
    assert!(!trusted.wants_freshness(noon()));
    assert!(!trusted.wants_freshness(noon() + hours(11)));
    assert!(trusted.wants_freshness(noon() + hours(12)));
    assert!(trusted.wants_freshness(noon() + hours(1_000)));
    world.wait(12);
    let trusted = world.check_in(&trusted);
    assert!(!trusted.wants_freshness(noon() + hours(12)));
}

#[test]
fn a_device_that_starts_in_1970_takes_the_directors_time() {
    let mut world = World::new();
    let order = world.release(target("app", "1.0.0", 1));
    let epoch = "1970-01-01T00:00:00Z".parse().unwrap();
    let trusted = world.enrolled().update(&world.update(&world.enrolled()), Some(b"nonce"), epoch).unwrap();
    assert_eq!(trusted.now(epoch), noon());
    let trusted = Trusted::from_bytes(&trusted.to_bytes()).unwrap();
    assert_eq!((trusted.now(epoch), trusted.now(noon() + hours(1))), (noon(), noon() + hours(1)));
    trusted.authorize(&order, epoch).unwrap();
}

#[test]
fn nothing_is_installed_once_what_speaks_for_it_has_expired() {
    let mut world = World::new();
    let order = world.release(target("app", "1.0.0", 1));
    let trusted = world.check_in(&world.enrolled());
    trusted.authorize(&order, noon() + hours(24) - chrono::TimeDelta::seconds(1)).unwrap();
    assert_eq!(trusted.authorize(&order, noon() + hours(24)).unwrap_err().fault, Fault::Freeze);
}

#[test]
fn what_is_stored_is_read_back_and_damage_is_an_error() {
    let mut world = World::new();
    let order = world.release(target("app", "1.0.0", 1));
    let trusted = world.check_in(&world.enrolled());
    let bytes = trusted.to_bytes();
    let back = Trusted::from_bytes(&bytes).unwrap();
    assert_eq!(back.to_bytes(), bytes);
    // Whatever has expired since.
    assert_eq!(back.authorize(&order, noon() + hours(100_000)).unwrap_err().fault, Fault::Freeze);
    for damaged in [&b""[..], b"{}", &bytes[..bytes.len() - 1]] {
        assert_eq!(Trusted::from_bytes(damaged).unwrap_err().fault, Fault::Store);
    }
    let text = String::from_utf8(bytes).unwrap();
    for (from, to) in [("\\\"version\\\":2", "\\\"version\\\":3"), ("app/1.0.0", "app/1.0.1"), ("rpi4\\\"", "rpi5\\\"")]
    {
        let damaged = text.replacen(from, to, 1);
        assert_ne!(damaged, text);
        assert_eq!(Trusted::from_bytes(damaged.as_bytes()).unwrap_err().fault, Fault::Store, "{from}");
    }
}

#[test]
fn a_raised_floor_forbids_what_lies_below_and_stays() {
    let mut world = World::new();
    let old = world.release(target("app", "1.0.0", 1));
    let trusted = world.check_in(&world.enrolled());
    trusted.authorize(&old, noon()).unwrap();
    let new = target("app", "1.1.0", 2);
    world.release(new.clone());
    // Without a raised floor an operator may go back.
    world.assign(vec![target("app", "1.0.0", 1)]);
    world.check_in(&trusted).authorize(&old, noon()).unwrap();
    world.edit(|catalog| catalog.raise_floor(&package("app"), 2));
    world.assign(vec![target("app", "1.0.0", 1)]);
    let trusted = world.check_in(&trusted);
    assert_eq!(trusted.authorize(&old, noon()).unwrap_err().fault, Fault::Rollback);
    // Neither an entry without the floor nor no entry at all takes it back.
    world.edit(|catalog| {
        catalog.remove("app/1.0.0");
        catalog.remove("app/1.1.0");
    });
    world.edit(|catalog| catalog.insert(target("app", "1.0.0", 1)));
    world.version += 1;
    let trusted = Trusted::from_bytes(&world.check_in(&trusted).to_bytes()).unwrap();
    assert_eq!((trusted.floor(&package("app")), trusted.floor(&package("other"))), (2, 0));
    assert_eq!(trusted.authorize(&old, noon()).unwrap_err().fault, Fault::Rollback);
    world.release(new.clone());
    world.check_in(&trusted).authorize(&order(&new), noon()).unwrap();
}

#[test]
fn a_long_list_is_cut_into_bins_and_a_device_needs_the_one_of_its_release() {
    let mut world = World::new();
    world.edit(|catalog| {
        for counter in 1..=600 {
            catalog.insert(target("app", &format!("1.{counter}.0"), counter));
        }
    });
    let first = order(&target("app", "1.1.0", 1));
    world.assign(vec![target("app", "1.1.0", 1)]);
    let trusted = world.check_in(&world.enrolled());
    trusted.authorize(&first, noon()).unwrap();
    let trusted = Trusted::from_bytes(&trusted.to_bytes()).unwrap();
    trusted.authorize(&first, noon()).unwrap();
    // The next release is in another bin, which is not sent.
    let second = (2..=600)
        .map(|counter| target("app", &format!("1.{counter}.0"), counter))
        .find(|other| world.image.bin_for(&other.path()) != world.image.bin_for("app/1.1.0"))
        .unwrap();
    world.assign(vec![second.clone()]);
    let mut update = world.update(&trusted);
    update.image_targets.truncate(1);
    let without = trusted.update(&update, Some(b"nonce"), noon()).unwrap();
    assert_eq!(without.authorize(&order(&second), noon()).unwrap_err().fault, Fault::MixAndMatch);
    world.check_in(&trusted).authorize(&order(&second), noon()).unwrap();
}
