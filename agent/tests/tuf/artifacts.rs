//! What is fetched of what is listed.

use crate::world::World;

#[test]
fn an_artifact_is_fetched_once_wherever_it_is_listed() {
    for path in ["file.txt", "in/a/folder/file.txt", "with space/ä?#%.bin", "../file"] {
        let Some(mut world) = World::start() else { return };
        world.python(&format!("add('{path}', b'content'); publish('targets', 'snapshot', 'timestamp')"));
        assert!(world.refresh());
        assert!(world.fetched().is_empty());
        world.requests();
        assert!(world.download(path), "{path}");
        assert!(world.download(path), "{path}");
        assert_eq!(world.fetched(), ["content"]);
        let requests = world.requests();
        assert_eq!(requests.iter().filter(|request| request.starts_with("targets/")).count(), 1, "{requests:?}");
    }
}

#[test]
fn what_is_not_what_is_listed_is_not_kept() {
    for other in ["b'CONTENT'", "b'content and more'", "b'cont'", "b''", "ENDLESS", "404", "500"] {
        let Some(mut world) = World::start() else { return };
        world.python("add('file', b'content'); publish('targets', 'snapshot', 'timestamp')");
        world.python(&format!("instead['targets/' + sha256('content') + '.file'] = {other}"));
        assert!(!world.download("file"), "{other}");
        assert!(world.fetched().is_empty(), "{other}");
        world.python("instead.clear()");
        assert!(world.download("file"));
        assert_eq!(world.fetched(), ["content"]);
    }
}

#[test]
fn an_artifact_that_changes_takes_the_place_of_the_old_one_and_a_bad_one_does_not() {
    let Some(mut world) = World::start() else { return };
    for content in ["one", "two", "three"] {
        world.python(&format!("add('file', b'{content}'); publish('targets', 'snapshot', 'timestamp')"));
        assert!(world.download("file"));
        assert_eq!(world.fetched(), [content]);
        // Damage on the disk is noticed.
        std::fs::write(world.path("targets/file"), "damaged").unwrap();
        assert!(world.download("file"));
        assert_eq!(world.fetched(), [content]);
        world.python("add('file', b'bad'); artifacts['file'] = b'worse'; publish('targets', 'snapshot', 'timestamp')");
        assert!(!world.download("file"));
        assert_eq!(world.fetched(), [content]);
    }
}

#[test]
fn either_hash_or_both_will_do_and_one_that_nobody_knows_will_not() {
    for hashes in ["['sha256']", "['sha512']", "['sha256', 'sha512']"] {
        let Some(mut world) = World::start() else { return };
        world.python(&format!("add('file', b'content', hashes={hashes}); publish('targets', 'snapshot', 'timestamp')"));
        assert!(world.download("file"), "{hashes}");
    }
    for wrong in ["{'unknown': hashes['sha512']}", "{**hashes, 'sha256': '0' * 64}", "{**hashes, 'sha512': 'zz'}"] {
        let Some(mut world) = World::start() else { return };
        world.python(
            "add('file', b'content', hashes=['sha256', 'sha512']); hashes = dict(targets.targets['file'].hashes)",
        );
        world.python(&format!("targets.targets['file'].hashes = {wrong}; publish('targets', 'snapshot', 'timestamp')"));
        assert!(!world.download("file"), "{wrong}");
        assert!(world.fetched().is_empty());
    }
}
