//! More packages than were ordered, as if one needed another: a device installs the closed set that the director signed
//! for it and the operators list, each for itself. Nothing comes along.

mod real;

use bytes::Bytes;
use ota_agent::machine::Outcome;
use ota_e2e::{
    installation::{Brought, Visit, release},
    signed::deployment,
};
use ota_proto::device::v1::TargetsDocument;
use ota_trust::{
    Fault,
    metadata::{Role, Target, Targets, add_signature, read, sign},
};
use serde_json::json;

use crate::scene::{HARDWARE, Scene, listed, payload};

const EXTRA: &[u8] = b"what nobody ordered";

fn extra(package: &str) -> Target {
    release(package, "1.0.0", 1, &[HARDWARE], EXTRA)
}

/// A fleet in which operators have signed `tool` 1.0.0, and nobody has ordered it.
async fn scene() -> Scene {
    let mut scene = Scene::start().await;
    let now = scene.device.now();
    scene.world.publish(now, |catalog| catalog.insert(extra("tool")));
    scene
}

/// An honest order for 2.0.0, with the bytes of the extra package at hand.
fn order(scene: &mut Scene) -> Brought {
    let mut brought = scene.order(2);
    brought.payloads.push(Bytes::from_static(EXTRA));
    brought
}

/// Asserts that of these orders only the one for 2.0.0 was carried out.
fn assert_alone(scene: &Scene, visit: &Visit, what: &str) {
    let committed = visit.ends.iter().filter(|end| **end == Outcome::Committed).count();
    assert_eq!((visit.fault, committed), (None, 1), "{what}: {visit:?}");
    scene.assert_runs(2);
    for package in ["tool", "lib"] {
        assert!(!scene.device.data().join("packages").join(package).join("current").exists(), "{what}: {package}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_package_that_the_director_did_not_sign_does_not_come_along() {
    // Before and after what was ordered; listed by the operators, and unknown to them.
    for (package, comes_first) in [("tool", true), ("tool", false), ("lib", true), ("lib", false)] {
        let mut scene = scene().await;
        let mut brought = order(&mut scene);
        let at = if comes_first { 0 } else { 1 };
        brought.answer.deployments.insert(at, deployment(&extra(package)));
        let visit = scene.attack(brought).await;
        let Outcome::Failed(failure) = &visit.ends[at] else { panic!("{visit:?}") };
        assert_eq!(failure.trust_fault, Some(Fault::Disagreement));
        assert_alone(&scene, &visit, package);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_package_that_the_director_alone_signed_does_not_come_along() {
    let mut scene = scene().await;
    let honest = order(&mut scene);
    let targets = [listed(&scene.world, 2), extra("lib")];
    let answer = scene.world.answer(scene.device.device(), &targets, &[], scene.device.now());
    let visit = scene.attack(Brought { answer, ..honest }).await;
    let Outcome::Failed(failure) = &visit.ends[1] else { panic!("{visit:?}") };
    assert_eq!(failure.trust_fault, Some(Fault::Disagreement));
    assert_alone(&scene, &visit, "lib");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_signed_and_not_ordered_stays_where_it_is() {
    let mut scene = scene().await;
    let tool = scene.world.image.target("tool/1.0.0").expect("a whole repository").expect("a listed release").clone();
    let honest = order(&mut scene);
    let targets = [listed(&scene.world, 2), tool];
    let mut answer = scene.world.answer(scene.device.device(), &targets, &[], scene.device.now());
    answer.deployments.truncate(1);
    let visit = scene.attack(Brought { answer, ..honest }).await;
    assert_alone(&scene, &visit, "an order is what the server asks for and what is signed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dependency_that_a_signed_document_names_is_not_fetched() {
    let mut scene = scene().await;
    let mut brought = order(&mut scene);
    let metadata = brought.answer.metadata.as_mut().expect("metadata");
    let mut document: serde_json::Value = serde_json::from_slice(&metadata.director_targets).expect("JSON");
    let custom = document.pointer_mut("/signed/targets/app~12.0.0/custom").expect("the ordered release");
    custom["requires"] = json!([{ "package": "tool", "version": "1.0.0" }, { "package": "lib", "version": "1.0.0" }]);
    document["signatures"] = json!([]);
    let document = serde_json::to_vec(&document).expect("JSON");
    metadata.director_targets = add_signature(&document, &scene.world.keys.director).expect("a signature").into();
    let visit = scene.attack(brought).await;
    assert_alone(&scene, &visit, "requires");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_beside_the_one_that_operators_signed_is_refused() {
    for role in ["bin-00", "extra", "targets"] {
        let mut scene = scene().await;
        let mut brought = order(&mut scene);
        let listed = scene.world.image.bytes(Role::Targets.as_str()).expect("a whole repository");
        let mut list: Targets = read(listed).expect("a list");
        list.targets.insert(extra("lib").path(), extra("lib"));
        let document = sign(&list, &[&scene.world.keys.director]).expect("a signature").into();
        let metadata = brought.answer.metadata.as_mut().expect("metadata");
        metadata.image_targets.push(TargetsDocument { role: role.to_owned(), document });
        brought.answer.deployments.push(deployment(&extra("lib")));
        let visit = scene.attack(brought).await;
        assert!(visit.fault.is_some() && visit.ends.is_empty(), "{role}: {visit:?}");
        scene.assert_runs(1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_release_of_an_ordered_package_is_not_taken_instead() {
    let mut scene = scene().await;
    let mut brought = order(&mut scene);
    brought.answer.deployments = vec![deployment(&listed(&scene.world, 3))];
    brought.payloads.push(payload(3));
    assert_eq!(scene.attack(brought).await.reported(), Some(Fault::Disagreement));
    scene.assert_runs(1);
}
