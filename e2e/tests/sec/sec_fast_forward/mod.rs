//! Versions and times far ahead, signed with the server's own keys while somebody else had them: a device that took them
//! believes nothing older, until a root takes the keys away.

mod properties;
mod real;

use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use ota_agent::machine::Outcome;
use ota_domain::DeviceId;
use ota_e2e::{World, installation::Brought, signed::Keys};
use ota_proto::device::v1::{MetadataUpdate, TargetsDocument};
use ota_trust::{
    Fault,
    director::{self, Assignment},
    image,
    key::{PrivateKey, Signer as _},
    metadata::{Freshness, MAX_VERSION, Role, Root, Snapshot, Target, Timestamp, read, sign},
    verify,
};

use crate::scene::{Scene, hours, listed};

/// Where numbers end: of a JSON library, of a database, of what a document may say.
const FAR: [u64; 5] = [(1 << 53) - 1, 1 << 53, (1 << 53) + 1, MAX_VERSION - 1, MAX_VERSION];

/// What an attacker has who stole the server's online keys.
struct Stolen<'a> {
    snapshot: &'a PrivateKey,
    timestamp: &'a PrivateKey,
    director: &'a PrivateKey,
}

impl<'a> Stolen<'a> {
    fn from(keys: &'a Keys) -> Self {
        Self { snapshot: &keys.snapshot, timestamp: &keys.timestamp, director: &keys.director }
    }

    /// Signs what is true, under a version of the attacker's choice and until a time of theirs. Orders `target`, which the
    /// operators have signed, so that nothing is wrong but the numbers.
    fn sign(
        &self,
        image: &verify::Repository,
        (device, target): (DeviceId, Target),
        version: u64,
        (now, expires): (DateTime<Utc>, DateTime<Utc>),
    ) -> MetadataUpdate {
        let meta = [("targets.json".to_owned(), image.versions().targets)].into();
        let snapshot = sign(&Snapshot { version, expires, meta }, &[self.snapshot]).expect("a snapshot");
        let timestamp = Timestamp { version, expires, snapshot_version: version };
        let timestamp = sign(&timestamp, &[self.timestamp]).expect("a timestamp");
        let assignment = Assignment { device, version, targets: vec![target] };
        let orders = director::sign(&assignment, now, expires - now, self.director).expect("orders");
        let list = image.bytes(Role::Targets.as_str()).expect("a repository that is whole");
        MetadataUpdate {
            image_timestamp: timestamp.into(),
            image_snapshot: snapshot.into(),
            image_targets: vec![TargetsDocument {
                role: Role::Targets.as_str().to_owned(),
                document: Bytes::copy_from_slice(list),
            }],
            director_timestamp: orders.timestamp.into(),
            director_snapshot: orders.snapshot.into(),
            director_targets: orders.targets.into(),
            ..Default::default()
        }
    }

    /// Signs that it is `time`, in answer to a nonce.
    fn sign_time(&self, device: DeviceId, nonce: &[u8], version: u64, time: DateTime<Utc>) -> Bytes {
        let proof = Freshness { device, nonce: nonce.to_vec(), director_version: version, time };
        sign(&proof, &[self.director]).expect("a proof of freshness").into()
    }
}

/// Takes the online keys away, as their owners do who hold the root keys. Returns the next roots, image and director.
fn recover(world: &mut World, now: DateTime<Utc>) -> (Bytes, Bytes) {
    let Keys { snapshot, timestamp, director, .. } = Keys::generate();
    let expires = now + Role::Root.lifetime();
    let next = |root: &[u8]| read::<Root>(root).expect("a root").next(expires);
    let mut image = next(world.image_root());
    image.set_role(Role::Snapshot, 1, &[snapshot.public_key()]);
    image.set_role(Role::Timestamp, 1, &[timestamp.public_key()]);
    let image = sign(&image, &[&world.keys.root]).expect("a root");
    let mut orders = next(&world.director_root);
    for role in [Role::Targets, Role::Snapshot, Role::Timestamp] {
        orders.set_role(role, 1, &[director.public_key()]);
    }
    let orders = sign(&orders, &[&world.keys.root]).expect("a root");
    (world.keys.snapshot, world.keys.timestamp, world.keys.director) = (snapshot, timestamp, director);
    world.image = image::follow(&world.image, &[&image], now, world.keys.online()).expect("the roots are followed");
    world.director_root.clone_from(&orders);
    (image.into(), orders.into())
}

/// An honest order with the roots that the device has not seen.
fn order_with_roots(scene: &mut Scene, number: u32, (image, director): &(Bytes, Bytes)) -> Brought {
    let mut brought = scene.order(number);
    let metadata = brought.answer.metadata.as_mut().expect("metadata");
    (metadata.image_roots, metadata.director_roots) = (vec![image.clone()], vec![director.clone()]);
    brought
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_far_ahead_go_with_the_keys_that_signed_them() {
    for version in FAR {
        let mut scene = Scene::start().await;
        let (device, now) = (scene.device.device(), scene.device.now());
        let times = (now, now + hours(24));
        let far =
            Stolen::from(&scene.world.keys).sign(&scene.world.image, (device, listed(&scene.world, 1)), version, times);
        let mut brought = scene.order(1);
        brought.answer.metadata = Some(far);
        brought.answer.deployments.clear();
        assert_eq!(scene.attack(brought).await.fault, None, "the keys are the server's");
        let held = scene.device.trusted().versions();
        assert_eq!((held.image.timestamp, held.image.snapshot, held.director.targets), (version, version, version));

        for _ in 0..2 {
            assert_eq!(scene.update_to(2).await.fault, Some(Fault::Rollback), "the honest numbers are lower");
            scene.assert_runs(1);
        }
        let roots = recover(&mut scene.world, now);
        let order = order_with_roots(&mut scene, 2, &roots);
        assert_eq!(scene.attack(order).await.ends, [Outcome::Committed], "after version {version}");
        scene.assert_runs(2);
        assert_eq!(scene.update_to(3).await.ends, [Outcome::Committed], "and again, with no further root");
        scene.assert_runs(3);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_far_ahead_goes_with_the_key_that_signed_it() {
    let mut scene = Scene::start().await;
    let device = scene.device.device();
    scene.device.set_time(scene.device.now() + hours(13));
    let now = scene.device.now();
    let target = listed(&scene.world, 1);
    let at = |time: DateTime<Utc>| {
        let stolen = Stolen::from(&scene.world.keys);
        let metadata = stolen.sign(&scene.world.image, (device, target.clone()), 1 << 53, (now, time + hours(24)));
        (metadata, time)
    };
    let attack = async |(mut metadata, time): (MetadataUpdate, DateTime<Utc>)| {
        let visit = scene.device.visit(|question| {
            let nonce = question.nonce.expect("a device asks at half the life of what it holds");
            let stolen = Stolen::from(&scene.world.keys);
            metadata.freshness = stolen.sign_time(device, &nonce, 1 << 53, time);
            let answer = ota_proto::device::v1::CheckInResponse { metadata: Some(metadata), ..Default::default() };
            Brought { answer, ..Brought::default() }
        });
        visit.await.fault
    };
    // Not beyond the root, which the attacker cannot sign.
    let beyond = now + TimeDelta::days(366);
    assert_eq!(attack(at(beyond)).await, Some(Fault::Freeze));
    assert_eq!(scene.device.trusted().now(now), now);
    let far = now + TimeDelta::days(300);
    assert_eq!(attack(at(far)).await, None);
    assert_eq!(scene.device.trusted().now(now), far);

    let fault = scene.update_to(2).await.fault;
    assert!(matches!(fault, Some(Fault::Rollback | Fault::Freeze)), "{fault:?}");
    let roots = recover(&mut scene.world, now);
    let world = &mut scene.world;
    let visit = scene.device.visit(|question| {
        let mut brought = crate::scene::order(world, device, 2, question, now);
        let metadata = brought.answer.metadata.as_mut().expect("metadata");
        (metadata.image_roots, metadata.director_roots) = (vec![roots.0], vec![roots.1]);
        brought
    });
    assert_eq!(visit.await.ends, [Outcome::Committed]);
    assert_eq!(scene.device.trusted().now(now), now, "the device goes by its own clock again");
    scene.assert_runs(2);
}
