//! What a mirror, or a thief of a key, may try.

use crate::world::World;

#[test]
fn no_version_goes_back() {
    for (role, publish, trusted) in [
        ("timestamp", "publish('timestamp')", "root 1, snapshot 2, targets 2, timestamp 2"),
        ("snapshot", "publish('snapshot', 'timestamp')", "root 1, snapshot 2, targets 2, timestamp 2"),
        ("targets", "publish('targets', 'snapshot', 'timestamp')", "root 1, snapshot 2, targets 2, timestamp 3"),
    ] {
        for with_hashes in ["False", "True"] {
            let Some(mut world) = World::start() else { return };
            world.python(&format!("with_hashes = {with_hashes}; publish('targets', 'snapshot', 'timestamp')"));
            assert!(world.refresh());
            world.python(&format!("take_back('{role}', 1); {publish}"));
            assert!(!world.refresh(), "{role}");
            assert_eq!(world.trusted(), trusted, "{role}");
        }
    }
}

#[test]
fn a_document_of_the_version_that_is_held_does_not_take_its_place() {
    let Some(mut world) = World::start() else { return };
    assert!(world.refresh());
    let kept = std::fs::read(world.path("metadata/timestamp.json")).unwrap();
    world.python("timestamp.snapshot_meta.version = 100; take_back('timestamp', 1); publish('timestamp')");
    assert!(world.refresh());
    assert_eq!(world.requests().last().unwrap(), "metadata/timestamp.json");
    assert_eq!(std::fs::read(world.path("metadata/timestamp.json")).unwrap(), kept);
}

#[test]
fn the_snapshot_may_not_forget_a_role() {
    let Some(mut world) = World::start() else { return };
    world.python("delegate('targets', 'team', ['team/*']); publish('team', 'targets', 'snapshot', 'timestamp')");
    assert!(world.refresh());
    world.python("del snapshot.meta['team.json']; publish('snapshot', 'timestamp')");
    assert!(!world.refresh());
    assert_eq!(world.trusted(), "root 1, snapshot 2, targets 2, timestamp 3");
}

#[test]
fn what_has_expired_is_refused_and_what_came_before_it_is_kept() {
    for (role, publish, trusted) in [
        ("root", "publish('root')", "root 2, snapshot 1, targets 1, timestamp 1"),
        ("timestamp", "publish('timestamp')", "root 1, snapshot 1, targets 1, timestamp 1"),
        ("snapshot", "publish('snapshot', 'timestamp')", "root 1, snapshot 1, targets 1, timestamp 2"),
        ("targets", "publish('targets', 'snapshot', 'timestamp')", "root 1, snapshot 2, targets 1, timestamp 2"),
    ] {
        let Some(mut world) = World::start() else { return };
        assert!(world.refresh());
        world.python(&format!("roles['{role}'].expires = NOW - DAY; {publish}"));
        for _ in 0..2 {
            assert!(!world.refresh(), "{role}");
            assert_eq!(world.trusted(), trusted, "{role}");
        }
        // What is published next is followed.
        world.python(&format!("roles['{role}'].expires = NOW + DAY; {publish}"));
        assert!(world.refresh(), "{role}");
    }
}

#[test]
fn a_repository_recovers_from_versions_that_a_stolen_key_signed() {
    for (rotated, role, publish) in [
        (["timestamp"].as_slice(), "timestamp", "publish('root', 'timestamp')"),
        (&["timestamp", "snapshot"], "snapshot", "publish('root', 'snapshot', 'timestamp')"),
        (&["snapshot"], "targets", "publish('root', 'targets', 'snapshot', 'timestamp')"),
    ] {
        let Some(mut world) = World::start() else { return };
        world.python("delegate('targets', 'team', ['team/*']); publish('team')");
        world.python(&format!("roles['{role}'].version = 4_000_000_000; publish('targets', 'snapshot', 'timestamp')"));
        assert!(world.refresh());
        assert!(world.trusted().contains(&format!("{role} 4000000001")), "{}", world.trusted());
        for role in rotated {
            world.python(&format!("rotate('{role}')"));
        }
        world.python(&format!("take_back('{role}', 1); {publish}"));
        assert!(world.refresh(), "{role}");
        assert!(world.trusted().contains(&format!("{role} 1")), "{}", world.trusted());
        assert!(!world.trusted().contains("4000000001"), "{}", world.trusted());
    }
}

#[test]
fn a_document_is_the_one_that_is_asked_for() {
    for (role, trusted) in
        [("root", "root 1"), ("snapshot", "root 2, timestamp 2"), ("targets", "root 2, snapshot 2, timestamp 2")]
    {
        let Some(mut world) = World::start() else { return };
        world.python(&format!("roles['{role}'].version += 1; publish_all()"));
        world.python(&format!("published['{role}'][2] = published['{role}'].pop(3)"));
        // What names it names version 3, but that is not where it is.
        world.python("snapshot.meta['targets.json'].version = 2; timestamp.snapshot_meta.version = 2");
        world.python("published['timestamp'][2] = signed('timestamp')");
        if role == "targets" {
            world.python("published['snapshot'][2] = signed('snapshot')");
        }
        assert!(!world.refresh(), "{role}");
        assert_eq!(world.trusted(), trusted, "{role}");
    }
}

#[test]
fn a_document_of_one_role_is_not_one_of_another() {
    let Some(mut world) = World::start() else { return };
    world.python("add_key('snapshot', signers['timestamp'][0]); snapshot.meta = {'snapshot.json': MetaFile(1)}");
    world.python("publish('root', 'snapshot'); published['timestamp'][2] = published['snapshot'].pop(2)");
    assert!(!world.refresh());
    assert_eq!(world.trusted(), "root 2");
}

#[test]
fn hashes_and_lengths_that_are_listed_have_to_match() {
    for (wrong, trusted) in [
        ("snapshot.meta['targets.json'].hashes['sha256'] = '0' * 64", "root 1, snapshot 3, targets 2, timestamp 3"),
        ("snapshot.meta['targets.json'].length += 1", "root 1, snapshot 3, targets 2, timestamp 3"),
        ("snapshot.meta['targets.json'].hashes = {'md5': '0' * 32}", "root 1, snapshot 3, targets 2, timestamp 3"),
    ] {
        let Some(mut world) = World::start() else { return };
        world.python("with_hashes = True; publish('targets', 'snapshot', 'timestamp')");
        assert!(world.refresh());
        world.python(&format!("publish('targets'); {wrong}; publish('snapshot', 'timestamp')"));
        assert!(!world.refresh(), "{wrong}");
        assert_eq!(world.trusted(), trusted, "{wrong}");
    }
    let Some(mut world) = World::start() else { return };
    world.python("with_hashes = True; publish('snapshot'); timestamp.snapshot_meta.hashes['sha256'] = '0' * 64");
    world.python("publish('timestamp')");
    assert!(!world.refresh());
    assert_eq!(world.trusted(), "root 1, timestamp 2");
}

#[test]
fn metadata_without_an_end_is_not_read_to_its_end() {
    for (file, trusted) in [
        ("2.root.json", "root 1"),
        ("timestamp.json", "root 1"),
        ("1.snapshot.json", "root 1, timestamp 1"),
        ("1.targets.json", "root 1, snapshot 1, timestamp 1"),
    ] {
        let Some(mut world) = World::start() else { return };
        world.python(&format!("instead['metadata/{file}'] = ENDLESS"));
        assert!(!world.refresh(), "{file}");
        assert_eq!(world.trusted(), trusted, "{file}");
    }
}
