//! Software that nobody signed.

mod real;

use bytes::Bytes;
use ota_agent::machine::Outcome;
use ota_domain::deployment::FailureCode;
use ota_e2e::{
    installation::{Brought, release},
    signed::deployment,
};
use ota_proto::device::v1::MetadataUpdate;
use ota_trust::{
    Fault,
    key::PrivateKey,
    metadata::{Role, Targets, read, sign},
};

use crate::{
    forged,
    scene::{HARDWARE, Scene, app, payload},
};

/// Picks one document of an answer.
type Pick = fn(&mut MetadataUpdate) -> &mut Bytes;

const DOCUMENTS: [(&str, Pick); 6] = [
    ("image timestamp", |metadata| &mut metadata.image_timestamp),
    ("image snapshot", |metadata| &mut metadata.image_snapshot),
    ("image targets", |metadata| &mut metadata.image_targets[0].document),
    ("director timestamp", |metadata| &mut metadata.director_timestamp),
    ("director snapshot", |metadata| &mut metadata.director_snapshot),
    ("director targets", |metadata| &mut metadata.director_targets),
];

fn metadata(brought: &mut Brought) -> &mut MetadataUpdate {
    brought.answer.metadata.as_mut().expect("an honest answer brings metadata")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_byte_in_any_document_is_noticed() {
    let mut scene = Scene::start().await;
    // Newer than what the device holds, so that every document has to be looked at.
    let now = scene.device.now() + crate::scene::hours(1);
    scene.world.publish(now, |catalog| catalog.insert(app(5)));
    let honest = scene.order(2);
    for (name, pick) in DOCUMENTS {
        let length = pick(metadata(&mut honest.clone())).len();
        for at in (0..length).step_by(23) {
            let mut brought = honest.clone();
            let document = pick(metadata(&mut brought));
            let mut bytes = document.to_vec();
            bytes[at] ^= 1;
            *document = bytes.into();
            let visit = scene.attack(brought).await;
            assert!(visit.fault.is_some() && visit.ends.is_empty(), "byte {at} of the {name}: {visit:?}");
        }
    }
    scene.assert_runs(1);
    assert_eq!(scene.attack(honest).await.ends, [Outcome::Committed], "and unchanged it is believed");
    scene.assert_runs(2);
}

#[tokio::test(flavor = "multi_thread")]
async fn other_bytes_under_a_signed_hash_are_not_installed() {
    let mut scene = Scene::start().await;
    let honest = scene.order(2);
    let signed = app(2).sha256;
    let malware = Bytes::from(vec![b'x'; payload(2).len()]);
    let visit = scene.attack(Brought { payloads: vec![], forged: vec![(signed, malware)], ..honest }).await;
    let [Outcome::Failed(failure)] = &visit.ends[..] else { panic!("{visit:?}") };
    assert_eq!(failure.code, FailureCode::Checksum);
    scene.assert_runs(1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_without_metadata_is_refused() {
    let mut scene = Scene::start().await;
    let mut brought = scene.order(2);
    brought.answer.metadata = None;
    assert_eq!(scene.attack(brought).await.reported(), Some(Fault::Disagreement));
    scene.assert_runs(1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_director_alone_signed_is_refused() {
    let mut scene = Scene::start().await;
    let malware = Bytes::from_static(b"malware");
    let unlisted = release("app", "9.0.0", 9, &[HARDWARE], &malware);
    let replaced = release("app", "2.0.0", 2, &[HARDWARE], &malware);
    for target in [unlisted, replaced] {
        let answer = scene.world.answer(scene.device.device(), &[target], &[], scene.device.now());
        let visit = scene.attack(Brought { answer, payloads: vec![malware.clone()], forged: vec![] }).await;
        assert_eq!(visit.reported(), Some(Fault::Disagreement), "{visit:?}");
    }
    scene.assert_runs(1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_is_not_what_was_signed_is_refused() {
    let mut scene = Scene::start().await;
    let malware = Bytes::from_static(b"malware");
    let mut brought = scene.order(2);
    brought.answer.deployments = vec![deployment(&release("app", "2.0.0", 2, &[HARDWARE], &malware))];
    brought.payloads.push(malware);
    assert_eq!(scene.attack(brought).await.reported(), Some(Fault::Disagreement));
    scene.assert_runs(1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_signed_by_any_key_but_an_operators_is_refused() {
    let mut scene = Scene::start().await;
    let malware = Bytes::from_static(b"malware");
    let target = release("app", "9.0.0", 9, &[HARDWARE], &malware);
    let now = scene.device.now();
    let bytes = scene.world.image.bytes(Role::Targets.as_str()).expect("a repository that is whole");
    let mut list: Targets = read(bytes).expect("a list");
    list.version += 1;
    list.targets.insert(target.path(), target.clone());
    let stranger = PrivateKey::generate().expect("random numbers");
    for number in 0..5 {
        let keys = &scene.world.keys;
        let signer = [&stranger, &keys.snapshot, &keys.timestamp, &keys.director, &stranger][number];
        let forged = if number == 4 { sign(&list, &[]) } else { sign(&list, &[signer]) }.expect("a signature");
        let answer = scene.world.answer(scene.device.device(), std::slice::from_ref(&target), &[], now);
        let mut brought = Brought { answer, payloads: vec![malware.clone()], forged: vec![] };
        let (snapshot, timestamp) = forged::online(&scene.world.image, scene.world.keys.online(), list.version, now);
        let metadata = metadata(&mut brought);
        metadata.image_targets[0].document = forged.into();
        (metadata.image_snapshot, metadata.image_timestamp) = (snapshot, timestamp);
        let visit = scene.attack(brought).await;
        assert_eq!(visit.fault, Some(Fault::Arbitrary), "signed by number {number}");
    }
    scene.assert_runs(1);
}
