//! More than was asked for: documents and payloads without an end.

use std::{fs, path::Path};

use bytes::Bytes;
use ota_agent::machine::Outcome;
use ota_domain::deployment::FailureCode;
use ota_e2e::installation::Brought;
use ota_proto::device::v1::{MetadataUpdate, TargetsDocument};
use ota_trust::{
    Fault,
    metadata::{Role, Root, read, sign},
    verify::MAX_ROOT_STEPS,
};

use crate::scene::{Scene, app, payload};

/// What the device's folder may grow by, beside what it installs: its journal, and what it noted of the attack.
const SLACK_BYTES: u64 = 64 * 1024;

#[tokio::test(flavor = "multi_thread")]
async fn a_document_beyond_its_size_is_not_even_parsed() {
    let mut scene = Scene::start().await;
    let honest = scene.order(2);
    // Would be parsed as JSON if anybody did: a string that does not end.
    let endless = |role: Role| Bytes::from([b"{\"signed\":\"".as_slice(), &vec![b'x'; role.max_bytes()]].concat());
    let changes: [&dyn Fn(&mut MetadataUpdate); 9] = [
        &|metadata| metadata.image_timestamp = endless(Role::Timestamp),
        &|metadata| metadata.image_snapshot = endless(Role::Snapshot),
        &|metadata| metadata.image_targets[0].document = endless(Role::Targets),
        &|metadata| metadata.director_timestamp = endless(Role::Timestamp),
        &|metadata| metadata.director_snapshot = endless(Role::Snapshot),
        &|metadata| metadata.director_targets = endless(Role::Targets),
        &|metadata| metadata.image_roots = vec![endless(Role::Root)],
        &|metadata| metadata.director_roots = vec![endless(Role::Root)],
        &|metadata| {
            let document = TargetsDocument { role: "bin-00".to_owned(), document: endless(Role::Targets) };
            metadata.image_targets.push(document);
        },
    ];
    let before = size(scene.device.data());
    for (number, change) in changes.into_iter().enumerate() {
        let mut brought = honest.clone();
        change(brought.answer.metadata.as_mut().expect("metadata"));
        let visit = scene.attack(brought).await;
        assert!(visit.ends.is_empty() && visit.fault.is_some(), "document {number}: {visit:?}");
        // A role that nobody delegated to may be refused for that.
        assert!(visit.fault == Some(Fault::Endless) || number == 8, "document {number}: {visit:?}");
    }
    assert!(size(scene.device.data()) <= before + SLACK_BYTES, "nothing of it was kept");
    scene.assert_runs(1);
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_without_number_are_refused() {
    let mut scene = Scene::start().await;
    let honest = scene.order(2);
    let roots = |first: &[u8]| {
        let mut root: Root = read(first).expect("a root");
        let next = |_| {
            root = root.next(root.expires);
            Bytes::from(sign(&root, &[&scene.world.keys.root]).expect("a root"))
        };
        (0..=MAX_ROOT_STEPS).map(next).collect::<Vec<_>>()
    };
    let (image_roots, director_roots) = (roots(scene.world.image_root()), roots(&scene.world.director_root));
    let targets = honest.answer.metadata.clone().expect("metadata").image_targets;
    let changes: [&dyn Fn(&mut MetadataUpdate); 3] = [
        &|metadata| metadata.image_roots.clone_from(&image_roots),
        &|metadata| metadata.director_roots.clone_from(&director_roots),
        &|metadata| metadata.image_targets = targets.iter().cycle().take(10_000).cloned().collect(),
    ];
    for (number, change) in changes.into_iter().enumerate() {
        let mut brought = honest.clone();
        change(brought.answer.metadata.as_mut().expect("metadata"));
        assert_eq!(scene.attack(brought).await.fault, Some(Fault::Endless), "change {number}");
    }
    scene.assert_runs(1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payload_longer_than_signed_takes_no_space() {
    let mut scene = Scene::start().await;
    let honest = scene.order(2);
    let endless = Bytes::from([payload(2).as_ref(), &vec![0; 1 << 20]].concat());
    let before = size(scene.device.data()) + endless.len() as u64;
    let visit = scene.attack(Brought { payloads: vec![], forged: vec![(app(2).sha256, endless)], ..honest }).await;
    let [Outcome::Failed(failure)] = &visit.ends[..] else { panic!("{visit:?}") };
    assert_eq!(failure.code, FailureCode::Checksum);
    assert!(size(scene.device.data()) <= before + SLACK_BYTES);
    scene.assert_runs(1);
}

/// Returns how many bytes the files in a folder have.
fn size(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).expect("a folder that can be read").map(|entry| entry.expect("an entry"));
    entries
        .map(|entry| match entry.file_type().expect("an entry") {
            kind if kind.is_dir() => size(&entry.path()),
            kind if kind.is_file() => entry.metadata().expect("an entry").len(),
            _ => 0,
        })
        .sum()
}
