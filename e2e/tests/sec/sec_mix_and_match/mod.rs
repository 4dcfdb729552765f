//! Documents that are each signed and do not belong together.

use bytes::Bytes;
use chrono::{DateTime, Utc};
use ota_agent::machine::Outcome;
use ota_e2e::World;
use ota_trust::{
    Fault,
    metadata::{Role, Snapshot, Timestamp, sign},
};

use crate::scene::{Scene, app, hours};

/// Signs, with the server's online keys alone, a snapshot and a timestamp that name a version of the list.
pub(crate) fn online(world: &World, targets: u64, now: DateTime<Utc>) -> (Bytes, Bytes) {
    let versions = world.image.versions();
    let (version, timestamp) = (versions.snapshot + 1, versions.timestamp + 1);
    let meta = [("targets.json".to_owned(), targets)].into();
    let snapshot = Snapshot { version, expires: now + Role::Snapshot.lifetime(), meta };
    let timestamp =
        Timestamp { version: timestamp, expires: now + Role::Timestamp.lifetime(), snapshot_version: version };
    let snapshot = sign(&snapshot, &[&world.keys.snapshot]).expect("a snapshot");
    let timestamp = sign(&timestamp, &[&world.keys.timestamp]).expect("a timestamp");
    (snapshot.into(), timestamp.into())
}

/// A document older than the snapshot says is a step back as well.
fn assert_mixed(fault: Option<Fault>) {
    assert!(matches!(fault, Some(Fault::MixAndMatch | Fault::Rollback)), "{fault:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_of_two_days_are_not_mixed() {
    let mut scene = Scene::start().await;
    let (first, second) = (scene.order(2), scene.order(3));
    let mut mixed = second.clone();
    let metadata = mixed.answer.metadata.as_mut().expect("metadata");
    metadata.director_targets = first.answer.metadata.expect("metadata").director_targets;
    mixed.answer.deployments = first.answer.deployments;
    mixed.payloads = first.payloads;
    assert_mixed(scene.attack(mixed).await.fault);
    scene.assert_runs(1);
    assert_eq!(scene.attack(second).await.ends, [Outcome::Committed]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_is_not_believed_under_another_lists_snapshot() {
    let mut scene = Scene::start().await;
    let older = scene.order(2);
    let now = scene.device.now() + hours(1);
    scene.world.publish(now, |catalog| {
        catalog.remove("app/2.0.0");
    });
    let mut mixed = scene.order(3);
    let metadata = mixed.answer.metadata.as_mut().expect("metadata");
    metadata.image_targets = older.answer.metadata.expect("metadata").image_targets;
    assert_mixed(scene.attack(mixed).await.fault);
    scene.assert_runs(1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_goes_back_to_an_older_list_is_refused() {
    let mut scene = Scene::start().await;
    let older = scene.order(2);
    let now = scene.device.now() + hours(1);
    scene.world.publish(now, |catalog| catalog.insert(app(5)));
    scene.world.publish(now, |catalog| {
        catalog.remove("app/2.0.0");
    });
    assert_eq!(scene.update_to(3).await.ends, [Outcome::Committed]);
    // The server holds the keys of snapshot and timestamp, so it can sign that the old list is the newest.
    let mut back = scene.order(3);
    let list = scene.world.image.versions().targets - 2;
    let metadata = back.answer.metadata.as_mut().expect("metadata");
    metadata.image_targets = older.answer.metadata.expect("metadata").image_targets;
    (metadata.image_snapshot, metadata.image_timestamp) = online(&scene.world, list, now);
    back.answer.deployments = older.answer.deployments;
    let visit = scene.attack(back).await;
    assert_eq!(visit.fault, Some(Fault::Rollback));
    scene.assert_runs(3);
}
