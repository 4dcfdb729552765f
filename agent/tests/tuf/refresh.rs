//! What is fetched, in which order, and what is kept of it.

use crate::world::World;

const FIRST_REQUESTS: [&str; 4] =
    ["metadata/2.root.json", "metadata/timestamp.json", "metadata/1.snapshot.json", "metadata/1.targets.json"];

#[test]
fn a_repository_is_followed_in_the_order_of_the_specification() {
    let Some(mut world) = World::start() else { return };
    assert_eq!(world.trusted(), "root 1");
    assert!(world.refresh());
    assert_eq!(world.requests(), FIRST_REQUESTS);
    assert_eq!(world.trusted(), "root 1, snapshot 1, targets 1, timestamp 1");
}

#[test]
fn what_is_held_and_unchanged_is_not_fetched_again() {
    let Some(mut world) = World::start() else { return };
    assert!(world.refresh());
    world.requests();
    assert!(world.refresh());
    assert_eq!(world.requests(), FIRST_REQUESTS[..2]);
    world.python("publish('timestamp')");
    assert!(world.refresh());
    assert_eq!(world.requests(), FIRST_REQUESTS[..2]);
    assert_eq!(world.trusted(), "root 1, snapshot 1, targets 1, timestamp 2");
    world.python("publish('snapshot', 'timestamp')");
    assert!(world.refresh());
    assert_eq!(world.requests()[2..], ["metadata/2.snapshot.json"]);
    assert_eq!(world.trusted(), "root 1, snapshot 2, targets 1, timestamp 3");
}

#[test]
fn what_is_kept_is_byte_by_byte_what_was_published() {
    let Some(mut world) = World::start() else { return };
    world.python("change('timestamp', lambda document: document.update(beside='the signed part'))");
    assert!(world.refresh());
    for role in ["root", "timestamp", "snapshot", "targets"] {
        let published = world.python(&format!("newest('{role}').decode()"));
        let kept = std::fs::read_to_string(world.path("metadata").join(format!("{role}.json"))).unwrap();
        assert_eq!(kept, published.as_str().unwrap());
    }
}

#[test]
fn a_download_brings_the_metadata_up_to_date_first() {
    let Some(mut world) = World::start() else { return };
    assert!(!world.download("not/listed"));
    assert_eq!(world.requests(), FIRST_REQUESTS);
    assert_eq!(world.trusted(), "root 1, snapshot 1, targets 1, timestamp 1");
}

#[test]
fn files_without_versions_in_their_names_are_followed_too() {
    let Some(mut world) = World::start() else { return };
    world.python("root.consistent_snapshot = False; delegate('targets', 'team', ['team/*'])");
    world.python(
        "add('team/file', b'without a hash', 'team'); publish('root', 'team', 'targets', 'snapshot', 'timestamp')",
    );
    assert!(world.download("team/file"));
    let requests = world.requests();
    assert_eq!(requests[2..5], ["metadata/timestamp.json", "metadata/snapshot.json", "metadata/targets.json"]);
    assert_eq!(requests[5..], ["metadata/team.json", "targets/team/file"]);
    assert_eq!(world.fetched(), ["without a hash"]);
}

#[test]
fn members_that_nobody_knows_are_signed_and_ignored() {
    let Some(mut world) = World::start() else { return };
    world.python("root.unrecognized_fields['x-member'] = {'of': ['somebody', 1, None]}");
    world.python("root.roles['root'].unrecognized_fields['x-role'] = True");
    world.python("targets.unrecognized_fields['x-targets'] = 'too'; add('file', b'file')");
    world.python("targets.targets['file'].unrecognized_fields['custom'] = {'anything': ['goes']}; publish_all()");
    assert!(world.download("file"));
    assert_eq!(world.trusted(), "root 2, snapshot 2, targets 2, timestamp 2");
    world.python("change('root', lambda document: document['signed'].update({'x-member': 'other'}))");
    world.python("published['root'][3] = published['root'].pop(2)");
    assert!(!world.refresh());
}

#[test]
fn a_file_that_is_missing_or_not_to_be_had_stops_what_follows_and_nothing_before() {
    let Some(mut world) = World::start() else { return };
    assert!(world.refresh());
    for (file, trusted) in [
        ("timestamp.json", "root 1, snapshot 1, targets 1, timestamp 1"),
        ("2.snapshot.json", "root 1, snapshot 1, targets 1, timestamp 2"),
        ("3.targets.json", "root 1, snapshot 3, targets 1, timestamp 3"),
    ] {
        world.python("publish('targets', 'snapshot', 'timestamp')");
        for status in [404, 500] {
            world.python(&format!("instead['metadata/{file}'] = {status}"));
            assert!(!world.refresh(), "{file} {status}");
            if status == 500 || file != "timestamp.json" {
                assert_eq!(world.trusted(), trusted, "{file}");
            }
        }
        world.python("instead.clear()");
        if file == "timestamp.json" {
            world.python("take_back('targets', 1); take_back('snapshot', 1); take_back('timestamp', 1)");
            world.python("publish('targets', 'snapshot', 'timestamp')");
        }
    }
    assert!(world.refresh());
    assert_eq!(world.trusted(), "root 1, snapshot 3, targets 3, timestamp 3");
}

#[test]
fn only_a_mirror_that_says_so_has_no_newer_root() {
    let Some(mut world) = World::start() else { return };
    world.python("publish('root'); instead['metadata/2.root.json'] = 503");
    assert!(!world.refresh());
    assert_eq!(world.trusted(), "root 1");
    world.python("instead.clear()");
    assert!(world.refresh());
    assert!(world.trusted().starts_with("root 2"));
}

#[test]
fn a_root_that_is_not_in_order_is_not_trusted_in_the_first_place() {
    for change in
        ["document['signed'].pop('version')", "document['signatures'].clear()", "document['signed'].update(version=7)"]
    {
        let Some(mut world) = World::untrusted() else { return };
        let bad = world.python(&format!("change('root', lambda document: {change}); newest('root').decode()"));
        std::fs::write(world.path("bad.json"), bad.as_str().unwrap()).unwrap();
        assert!(!world.client(&["init", world.path("bad.json").to_str().unwrap()]), "{change}");
        assert!(!world.refresh());
        assert!(world.requests().is_empty());
    }
}
