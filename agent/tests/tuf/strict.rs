//! Devices demand of their own repositories what TUF leaves open: what this program follows, they refuse.

use std::fs;

use chrono::{DateTime, Utc};
use ota_trust::{Repository, TrustError};

use crate::world::World;

/// Follows what is on disk as a device follows its own repositories.
fn as_a_device(world: &World, now: DateTime<Utc>) -> Result<(), TrustError> {
    let read = |role: &str| fs::read(world.path("metadata").join(format!("{role}.json"))).unwrap();
    let mut repository = Repository::from_root(&read("root"))?;
    repository.update_timestamp(&read("timestamp"), now)?;
    repository.update_snapshot(&read("snapshot"), now)?;
    repository.update_targets(&read("targets"), now)
}

#[test]
fn a_repository_of_somebody_elses_is_followed_here_and_refused_by_devices() {
    // What is within our form is taken from anybody.
    let Some(mut world) = World::start() else { return };
    world.python("publish_all()");
    assert!(world.refresh());
    as_a_device(&world, Utc::now()).unwrap();
    for other in [
        "add_key('root', key('rsa'))",
        "one = key(); one.public_key.keyid = 'a name'; add_key('targets', one)",
        "add('app/1.0.0', b'a release without what has to be known of it')",
        "add('app/1.0.0', b'content', hashes=['sha512'])",
        "delegate('targets', 'team', ['team/*'])",
        "delegate('targets', 'team', prefixes=['00'])",
        "targets.delegations = Delegations({}, roles={})",
    ] {
        let Some(mut world) = World::start() else { return };
        world.python(other);
        world.python("'team' in roles and publish('team'); publish_all()");
        assert!(world.refresh(), "{other}");
        as_a_device(&world, Utc::now()).expect_err(other);
    }
}

#[test]
fn a_document_that_changes_without_its_version_is_refused_by_devices_alone() {
    let Some(mut world) = World::start() else { return };
    assert!(world.refresh());
    let now = Utc::now();
    let read = |world: &World, role: &str| fs::read(world.path("metadata").join(format!("{role}.json"))).unwrap();
    let mut device = Repository::from_root(&read(&world, "root")).unwrap();
    device.update_timestamp(&read(&world, "timestamp"), now).unwrap();
    device.update_snapshot(&read(&world, "snapshot"), now).unwrap();
    device.update_targets(&read(&world, "targets"), now).unwrap();

    world.python(
        "snapshot.unrecognized_fields['x-other'] = 1; take_back('snapshot', 1); publish('snapshot', 'timestamp')",
    );
    assert!(world.refresh());
    device.update_timestamp(&read(&world, "timestamp"), now).unwrap();
    let other = world.python("newest('snapshot').decode()");
    device.update_snapshot(other.as_str().unwrap().as_bytes(), now).unwrap_err();
}
