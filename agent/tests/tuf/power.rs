//! What is on disk after the power went, and after worse.

use std::fs;

use crate::world::World;

/// A repository of which versions 5 are trusted, and which is then played back to 1.
fn played_back() -> Option<World> {
    let mut world = World::start()?;
    world.python("[publish('targets', 'snapshot', 'timestamp') for _ in range(4)]");
    assert!(world.refresh());
    assert_eq!(world.trusted(), "root 1, snapshot 5, targets 5, timestamp 5");
    world.python("[take_back(role, 1) for role in ('targets', 'snapshot', 'timestamp')]");
    world.python("publish('targets', 'snapshot', 'timestamp')");
    assert!(!world.refresh());
    Some(world)
}

#[test]
fn what_was_seen_is_not_forgotten_with_the_files_that_show_it() {
    for damage in ["", "{", "gone"] {
        let Some(world) = played_back() else { return };
        for file in ["timestamp.json", "snapshot.json", "targets.json", "root.json"] {
            let path = world.path("metadata").join(file);
            if damage == "gone" { fs::remove_file(path).unwrap() } else { fs::write(path, damage).unwrap() }
        }
        assert!(!world.refresh(), "{damage}");
        assert_eq!(world.trusted(), "root 1, snapshot 5, targets 5, timestamp 5");
    }
}

#[test]
fn either_copy_of_what_was_seen_is_enough() {
    for name in ["a", "b"] {
        let Some(world) = played_back() else { return };
        let copy = world.path("metadata/trust").join(name);
        fs::write(&copy, b"").unwrap();
        assert!(!world.refresh());
        assert_eq!(world.trusted(), "root 1, snapshot 5, targets 5, timestamp 5");
        assert!(fs::metadata(copy).unwrap().len() > 0);
    }
}

#[test]
fn without_either_copy_nothing_is_trusted_and_nothing_begins_afresh() {
    for damage in [Some(""), None] {
        let Some(mut world) = played_back() else { return };
        for name in ["a", "b"] {
            let copy = world.path("metadata/trust").join(name);
            match damage {
                Some(bytes) => fs::write(copy, bytes).unwrap(),
                None => fs::remove_file(copy).unwrap(),
            }
        }
        world.requests();
        assert!(!world.refresh());
        assert!(!world.client(&["init", world.path("first.json").to_str().unwrap()]));
        assert!(world.requests().is_empty());
    }
}

#[test]
fn floors_outlive_the_documents_that_a_higher_threshold_made_worthless() {
    let Some(mut world) = played_back() else { return };
    world.python("add_key('timestamp'); root.roles['timestamp'].threshold = 2; publish('root')");
    world.python("take_back('timestamp', 4); publish('timestamp')");
    assert!(!world.refresh());
    assert_eq!(world.trusted().split(", ").next(), Some("root 2"));
    assert!(!world.refresh());
    world.python("[publish('targets', 'snapshot', 'timestamp') for _ in range(6)]");
    assert!(world.refresh());
}
