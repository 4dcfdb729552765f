//! What holds for whatever bytes arrive.

use ota_trust::{Trusted, Update, device::HeldVersions, director, metadata, verify::Versions};
use proptest::{collection::vec, prelude::*, sample::Index};

use crate::world::{World, hours, noon, target};

/// Every document of an update, to be looked at or changed.
fn documents(update: &mut Update) -> Vec<&mut Vec<u8>> {
    let Update {
        image_roots,
        image_timestamp,
        image_snapshot,
        image_targets,
        director_roots,
        director_timestamp,
        director_snapshot,
        director_targets,
        freshness,
    } = update;
    let single = [image_timestamp, image_snapshot, director_timestamp, director_snapshot, director_targets, freshness];
    let bins = image_targets.iter_mut().map(|(_, document)| document);
    image_roots.iter_mut().chain(director_roots).chain(bins).chain(single.into_iter().flatten()).collect()
}

fn at_least(one: HeldVersions, other: HeldVersions) -> bool {
    let pair = |one: Versions, other: Versions| {
        one.root >= other.root
            && one.timestamp >= other.timestamp
            && one.snapshot >= other.snapshot
            && one.targets >= other.targets
    };
    pair(one.image, other.image) && pair(one.director, other.director)
}

/// A world in which every kind of document is sent, and the device before it.
fn eventful() -> (World, Trusted) {
    let mut world = World::new();
    let trusted = world.check_in(&world.enrolled());
    world.edit(|catalog| {
        catalog.insert_all((2..=600).map(|counter| target("app", &format!("0.{counter}.0"), counter)));
    });
    world.rotate_image(|_| {});
    world.rotate_director();
    world.release(target("app", "1.0.0", 1));
    (world, trusted)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn any_byte_changed_in_any_document_is_refused_or_changes_nothing(
        changes in vec((any::<Index>(), any::<Index>(), any::<u8>()), 8)
    ) {
        thread_local!(static CASE: (World, Trusted) = eventful());
        CASE.with(|(world, trusted)| {
            let honest = world.update(trusted);
            let expected = trusted.update(&honest, Some(b"nonce"), noon()).unwrap();
            for (document, position, value) in changes {
                let mut update = honest.clone();
                let mut documents = documents(&mut update);
                let count = documents.len();
                let bytes = &mut documents[document.index(count)];
                let position = position.index(bytes.len());
                bytes[position] = value;
                if let Ok(next) = trusted.update(&update, Some(b"nonce"), noon()) {
                    // White space and the like: what is held means the same.
                    prop_assert_eq!(next.versions(), expected.versions());
                    next.authorize(&crate::world::order(&target("app", "1.0.0", 1)), noon()).unwrap();
                }
            }
            Ok(())
        })?;
    }

    #[test]
    fn no_bytes_make_it_panic(
        bytes in vec(any::<u8>(), 0..300),
        text in "[\\[\\]{}\",:a-z0-9_ .\\-]{0,300}",
        which in any::<Index>(),
    ) {
        thread_local!(static CASE: (World, Trusted) = eventful());
        CASE.with(|(world, trusted)| {
            for garbage in [bytes, text.into_bytes()] {
                let mut update = world.update(trusted);
                let mut documents = documents(&mut update);
                let count = documents.len();
                documents[which.index(count)].clone_from(&garbage);
                prop_assert!(trusted.update(&update, Some(b"nonce"), noon()).is_err());
                prop_assert!(Trusted::from_bytes(&garbage).is_err());
                prop_assert!(metadata::read::<metadata::Root>(&garbage).is_err());
                prop_assert!(metadata::add_signature(&garbage, &world.root).is_err());
            }
            Ok(())
        })?;
    }
}

/// One thing that a server does that holds every online key and keeps every document it ever signed.
#[derive(Debug, Clone)]
enum Move {
    Wait(i64),
    Release(u8),
    /// Sends for each document one of those there ever were.
    Mix(Vec<Index>),
    /// Sends only some of the documents.
    Drop(u16),
    /// Signs an assignment of any version.
    Assign(u64),
    Store,
}

fn moves() -> impl Strategy<Value = Move> {
    prop_oneof![
        (0..30i64).prop_map(Move::Wait),
        any::<u8>().prop_map(Move::Release),
        vec(any::<Index>(), 6).prop_map(Move::Mix),
        any::<u16>().prop_map(Move::Drop),
        (1..20u64).prop_map(Move::Assign),
        Just(Move::Store),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn versions_floors_and_time_never_go_back_whatever_the_server_does(moves in vec(moves(), 1..40)) {
        let mut world = World::new();
        let mut trusted = world.enrolled();
        let mut sent: Vec<Update> = vec![world.update(&trusted)];
        for step in moves {
            let mut update = world.update(&trusted);
            match step {
                Move::Wait(time) => world.wait(time),
                Move::Release(counter) => {
                    let name = format!("1.{counter}.0");
                    world.edit(|catalog| {
                        catalog.insert(target("app", &name, i64::from(counter)));
                        catalog.raise_floor(&"app".parse().unwrap(), i64::from(counter / 2));
                    });
                    world.assign(vec![target("app", &name, i64::from(counter))]);
                }
                Move::Mix(choices) => {
                    let pick = |choice: &Index| &sent[choice.index(sent.len())];
                    update.image_timestamp.clone_from(&pick(&choices[0]).image_timestamp);
                    update.image_snapshot.clone_from(&pick(&choices[1]).image_snapshot);
                    update.image_targets.clone_from(&pick(&choices[2]).image_targets);
                    update.director_timestamp.clone_from(&pick(&choices[3]).director_timestamp);
                    update.director_snapshot.clone_from(&pick(&choices[4]).director_snapshot);
                    update.director_targets.clone_from(&pick(&choices[5]).director_targets);
                }
                Move::Drop(mask) => {
                    let drop = |bit: u32| mask & 1 << bit != 0;
                    let clear = |bit: u32, document: &mut Option<Vec<u8>>| if drop(bit) { *document = None };
                    clear(0, &mut update.image_timestamp);
                    clear(1, &mut update.image_snapshot);
                    clear(2, &mut update.director_timestamp);
                    clear(3, &mut update.director_snapshot);
                    clear(4, &mut update.director_targets);
                    if drop(5) { update.image_targets.clear() }
                }
                Move::Assign(version) => {
                    let assignment = director::Assignment { device: world.device, version, targets: Vec::new() };
                    let signed = director::sign(&assignment, world.now, hours(48), &world.director).unwrap();
                    update.director_timestamp = Some(signed.timestamp);
                    update.director_snapshot = Some(signed.snapshot);
                    update.director_targets = Some(signed.targets);
                }
                Move::Store => trusted = Trusted::from_bytes(&trusted.to_bytes()).unwrap(),
            }
            sent.push(update.clone());
            let app = "app".parse().unwrap();
            for nonce in [None, Some(&b"nonce"[..])] {
                let before = trusted.to_bytes();
                match trusted.update(&update, nonce, world.now) {
                    Ok(next) => {
                        prop_assert!(at_least(next.versions(), trusted.versions()));
                        prop_assert!(next.floor(&app) >= trusted.floor(&app));
                        prop_assert!(next.now(noon()) >= trusted.now(noon()));
                        trusted = next;
                    }
                    Err(_) => prop_assert_eq!(trusted.to_bytes(), before),
                }
            }
        }
    }
}
