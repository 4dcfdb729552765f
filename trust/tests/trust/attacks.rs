//! What a server, a mirror or another device must not achieve, and what the device calls it.

use ota_domain::DeviceId;
use ota_trust::{
    Fault, Order, Update,
    director::{self, Assignment},
    key::PrivateKey,
    metadata::{Freshness, Snapshot, Targets, Timestamp, read, sign},
    verify::MAX_ROOT_STEPS,
};

use crate::world::{World, hours, noon, order, target};

/// The fault with which the device refuses the update; it holds what it held.
#[track_caller]
fn refused(world: &World, change: impl FnOnce(&World, &mut Update)) -> Fault {
    let trusted = world.check_in(&world.enrolled());
    let mut update = world.update(&trusted);
    change(world, &mut update);
    trusted.update(&update, Some(b"nonce"), world.now).unwrap_err().fault
}

fn world() -> World {
    let mut world = World::new();
    world.release(target("app", "1.0.0", 1));
    world
}

fn assigned(world: &World, change: impl FnOnce(&mut Assignment)) -> director::Documents {
    let mut assignment = Assignment { device: world.device, version: world.version, targets: world.assigned.clone() };
    change(&mut assignment);
    director::sign(&assignment, world.now, director::LIFETIME, &world.director).unwrap()
}

fn put(update: &mut Update, documents: director::Documents) {
    update.director_timestamp = Some(documents.timestamp);
    update.director_snapshot = Some(documents.snapshot);
    update.director_targets = Some(documents.targets);
}

#[test]
fn an_update_that_is_refused_is_told_by_the_attack() {
    let other = PrivateKey::generate().unwrap();
    let device = DeviceId(uuid::Uuid::from_u128(8));
    let fresh = |world: &World, change: &dyn Fn(&mut Freshness)| {
        let mut freshness: Freshness = read(&world.freshness(b"nonce")).unwrap();
        change(&mut freshness);
        Some(sign(&freshness, &[&world.director]).unwrap())
    };
    type Attack<'a> = (&'a str, Fault, Box<dyn Fn(&World, &mut Update) + 'a>);
    let attacks: Vec<Attack<'_>> = vec![
        ("no answer", Fault::Freeze, Box::new(|_, update| update.freshness = None)),
        ("an old answer", Fault::Freeze, Box::new(|world, update| update.freshness = Some(world.freshness(b"before")))),
        (
            "another device's answer",
            Fault::OtherDevice,
            Box::new(|world, update| update.freshness = fresh(world, &|fresh| fresh.device = device)),
        ),
        (
            "an answer by another key",
            Fault::Arbitrary,
            Box::new(|world, update| {
                let freshness: Freshness = read(&world.freshness(b"nonce")).unwrap();
                update.freshness = Some(sign(&freshness, &[&other]).unwrap());
            }),
        ),
        (
            "a clock that goes back",
            Fault::Rollback,
            Box::new(|world, update| update.freshness = fresh(world, &|fresh| fresh.time -= hours(1))),
        ),
        (
            "a newer assignment held back",
            Fault::Freeze,
            Box::new(|world, update| update.freshness = fresh(world, &|fresh| fresh.director_version += 1)),
        ),
        (
            "an older assignment said to be the newest",
            Fault::Rollback,
            Box::new(|world, update| update.freshness = fresh(world, &|fresh| fresh.director_version -= 1)),
        ),
        (
            "an older assignment",
            Fault::Rollback,
            Box::new(|world, update| put(update, assigned(world, |assignment| assignment.version = 1))),
        ),
        (
            "another device's assignment",
            Fault::OtherDevice,
            Box::new(|world, update| {
                put(
                    update,
                    assigned(world, |assignment| {
                        assignment.device = device;
                        assignment.version += 1;
                    }),
                );
                update.freshness = fresh(world, &|fresh| fresh.director_version += 1);
            }),
        ),
        (
            "another device's assignment in the same version",
            Fault::MixAndMatch,
            Box::new(|world, update| put(update, assigned(world, |assignment| assignment.device = device))),
        ),
        (
            "a part of another assignment",
            Fault::MixAndMatch,
            Box::new(|world, update| {
                let next = assigned(world, |assignment| assignment.version += 1);
                update.director_timestamp = Some(next.timestamp);
            }),
        ),
        (
            "targets larger than allowed",
            Fault::Endless,
            Box::new(|_, update| update.image_targets[0].1 = vec![b' '; 5 * 1024 * 1024 + 1]),
        ),
        (
            "a timestamp larger than allowed",
            Fault::Endless,
            Box::new(|_, update| update.director_timestamp.as_mut().unwrap().resize(16 * 1024 + 1, b' ')),
        ),
        (
            "too many documents",
            Fault::Endless,
            Box::new(|_, update| update.image_targets = vec![update.image_targets[0].clone(); 1_000]),
        ),
        (
            "roots that do not follow",
            Fault::MixAndMatch,
            Box::new(|world, update| {
                let root = world.image.root().next(noon()).next(noon());
                update.image_roots = vec![sign(&root, &[&world.root]).unwrap()];
            }),
        ),
        (
            "the same root again",
            Fault::Rollback,
            Box::new(|world, update| update.image_roots = world.image_roots.clone()),
        ),
        (
            "a root by another key",
            Fault::Arbitrary,
            Box::new(|world, update| {
                update.image_roots = vec![sign(&world.image.root().next(noon()), &[&other]).unwrap()];
            }),
        ),
        (
            "an older image snapshot",
            Fault::Rollback,
            Box::new(|world, update| {
                let timestamp = Timestamp { version: 9, expires: noon() + hours(1), snapshot_version: 1 };
                update.image_timestamp = Some(sign(&timestamp, &[&world.timestamp]).unwrap());
            }),
        ),
        (
            "a snapshot that lists an older list",
            Fault::Rollback,
            Box::new(|world, update| {
                let expires = noon() + hours(1);
                let timestamp = Timestamp { version: 9, expires, snapshot_version: 9 };
                let snapshot = Snapshot { version: 9, expires, meta: [("targets.json".to_owned(), 1)].into() };
                update.image_timestamp = Some(sign(&timestamp, &[&world.timestamp]).unwrap());
                update.image_snapshot = Some(sign(&snapshot, &[&world.snapshot]).unwrap());
            }),
        ),
        (
            "a snapshot that forgets the list",
            Fault::Rollback,
            Box::new(|world, update| {
                let expires = noon() + hours(1);
                let timestamp = Timestamp { version: 9, expires, snapshot_version: 9 };
                let snapshot = Snapshot { version: 9, expires, meta: [("other.json".to_owned(), 1)].into() };
                update.image_timestamp = Some(sign(&timestamp, &[&world.timestamp]).unwrap());
                update.image_snapshot = Some(sign(&snapshot, &[&world.snapshot]).unwrap());
            }),
        ),
        (
            "an expired timestamp",
            Fault::Freeze,
            Box::new(|world, update| {
                let timestamp = Timestamp { version: 9, expires: noon(), snapshot_version: 2 };
                update.image_timestamp = Some(sign(&timestamp, &[&world.timestamp]).unwrap());
            }),
        ),
        (
            "another list of the same version",
            Fault::MixAndMatch,
            Box::new(|world, update| {
                let mut list: Targets = read(&update.image_targets[0].1).unwrap();
                list.targets.clear();
                update.image_targets[0].1 = sign(&list, &[&world.targets]).unwrap();
            }),
        ),
        (
            "a list signed by the server's online keys",
            Fault::Arbitrary,
            Box::new(|world, update| {
                let mut list: Targets = read(&update.image_targets[0].1).unwrap();
                list.version = 3;
                let expires = noon() + hours(1);
                let timestamp = Timestamp { version: 9, expires, snapshot_version: 9 };
                let snapshot = Snapshot { version: 9, expires, meta: [("targets.json".to_owned(), 3)].into() };
                update.image_timestamp = Some(sign(&timestamp, &[&world.timestamp]).unwrap());
                update.image_snapshot = Some(sign(&snapshot, &[&world.snapshot]).unwrap());
                update.image_targets[0].1 = sign(&list, &[&world.snapshot, &world.timestamp]).unwrap();
            }),
        ),
    ];
    let world = world();
    for (name, fault, attack) in attacks {
        assert_eq!(refused(&world, attack), fault, "{name}");
    }
}

#[test]
fn a_director_that_delegates_is_refused() {
    let world = world();
    let trusted = world.check_in(&world.enrolled());
    let bins = ota_trust::metadata::Bins {
        count: 64,
        keys: world
            .image
            .root()
            .keys_of(ota_trust::metadata::Role::Targets)
            .map(|key| (key.id(), key.clone()))
            .collect(),
        threshold: 1,
    };
    let version = world.version + 1;
    let documents = assigned(&world, |assignment| assignment.version = version);
    let mut targets: Targets = read(&documents.targets).unwrap();
    targets.delegations = Some(bins);
    let targets = sign(&targets, &[&world.director]).unwrap();
    let mut update = world.update(&trusted);
    put(&mut update, director::Documents { targets, ..documents });
    let error = trusted.update(&update, None, noon()).unwrap_err();
    assert_eq!(error.fault, Fault::Arbitrary, "{error}");
}

#[test]
fn endless_roots_end() {
    let mut world = world();
    let trusted = world.check_in(&world.enrolled());
    let mut root = world.image.root().clone();
    for _ in 0..=MAX_ROOT_STEPS {
        root = root.next(noon() + hours(1));
        world.image_roots.push(sign(&root, &[&world.root]).unwrap());
    }
    let mut update = world.update(&trusted);
    assert_eq!(trusted.update(&update, Some(b"nonce"), noon()).unwrap_err().fault, Fault::Endless);
    update.image_roots.pop();
    let trusted = trusted.update(&update, Some(b"nonce"), noon()).unwrap();
    assert_eq!(trusted.versions().image.root, 1_025);
    // The next check-in may follow as many again.
    world.update(&trusted);
    trusted.update(&world.update(&trusted), Some(b"nonce"), noon()).unwrap();
}

#[test]
fn an_order_is_refused_unless_both_repositories_and_the_hardware_agree() {
    let listed = target("app", "1.0.0", 1);
    let mut elsewhere = target("app", "1.0.1", 2);
    elsewhere.custom.hardware = vec!["imx8".parse().unwrap()];
    let mut world = World::new();
    world.edit(|catalog| {
        catalog.insert(listed.clone());
        catalog.insert(elsewhere.clone());
    });

    let mut verdict = |assigned: Vec<ota_trust::metadata::Target>, order: Order| {
        world.assign(assigned);
        world.check_in(&world.enrolled()).authorize(&order, noon()).map_err(|error| error.fault)
    };
    assert_eq!(verdict(vec![listed.clone()], order(&listed)), Ok(()));
    assert_eq!(verdict(vec![], order(&listed)), Err(Fault::Disagreement));
    let unsigned = target("evil", "1.0.0", 1);
    assert_eq!(verdict(vec![unsigned.clone()], order(&unsigned)), Err(Fault::Disagreement));
    assert_eq!(verdict(vec![elsewhere.clone()], order(&elsewhere)), Err(Fault::Hardware));

    // The director says something else of a listed release.
    let mut other = listed.clone();
    other.length += 1;
    assert_eq!(verdict(vec![other.clone()], order(&other)), Err(Fault::Disagreement));
    let mut other = listed.clone();
    other.sha256.0[31] ^= 1;
    assert_eq!(verdict(vec![other.clone()], order(&other)), Err(Fault::Disagreement));
    let mut other = elsewhere.clone();
    other.custom.hardware.clear();
    assert_eq!(verdict(vec![other.clone()], order(&other)), Err(Fault::Disagreement));
    let mut other = listed.clone();
    other.custom.release_counter = 100;
    assert_eq!(verdict(vec![other.clone()], order(&other)), Err(Fault::Disagreement));

    // The order says something else than both.
    let good = order(&listed);
    for bad in [
        Order { length: 1, ..good.clone() },
        Order { sha256: ota_domain::Sha256Digest([0; 32]), ..good.clone() },
        Order { release_counter: 9, ..good.clone() },
        Order { hardware: Vec::new(), ..good.clone() },
        Order { installer: ota_domain::release::Installer::File, ..good.clone() },
        Order { unpacked_size_bytes: 0, ..good.clone() },
        Order { version: "1.0.1".parse().unwrap(), ..good.clone() },
    ] {
        assert_eq!(verdict(vec![listed.clone()], bad), Err(Fault::Disagreement));
    }
}
