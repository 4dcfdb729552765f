//! Orders that were signed for another device.

use ota_e2e::{Installation, installation::Brought};
use ota_trust::Fault;

use crate::scene::{HARDWARE, Scene, hours, listed, payload};

#[tokio::test(flavor = "multi_thread")]
async fn another_devices_orders_are_refused() {
    let mut scene = Scene::start().await;
    let other = Installation::new(&scene.world, HARDWARE, scene.device.now());
    let answer = scene.world.answer(other.device(), &[listed(&scene.world, 2)], &[], other.now());
    let brought = Brought { answer, payloads: vec![payload(2)], ..Brought::default() };
    assert_eq!(scene.attack(brought.clone()).await.fault, Some(Fault::OtherDevice));
    scene.assert_runs(1);
    assert_eq!(other.visit(|_| brought).await.fault, Some(Fault::Freeze), "its own it would have, with proof");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_devices_proof_of_freshness_is_refused() {
    let mut scene = Scene::start().await;
    let other = Installation::new(&scene.world, HARDWARE, scene.device.now());
    scene.device.set_time(scene.device.now() + hours(13));
    let (device, now) = (scene.device.device(), scene.device.now());
    let world = &mut scene.world;
    let visit = scene.device.visit(|question| {
        let nonce = question.nonce.expect("a device asks at half the life of what it holds");
        let mut answer = world.answer(device, &[], &nonce, now);
        let metadata = answer.metadata.as_mut().expect("metadata");
        metadata.freshness = world.freshness(other.device(), &nonce, now).into();
        Brought { answer, ..Brought::default() }
    });
    assert_eq!(visit.await.fault, Some(Fault::OtherDevice));
}
