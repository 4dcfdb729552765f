//! A device that is kept from hearing of anything newer.

use ota_agent::machine::Outcome;
use ota_trust::Fault;

use crate::scene::{Scene, hours};

#[tokio::test(flavor = "multi_thread")]
async fn an_old_answer_played_for_a_day_is_noticed_and_brings_nothing() {
    let mut scene = Scene::start().await;
    let start = scene.device.now();
    let mut noticed_after = None;
    let mut old = scene.order(1);
    old.answer.deployments.clear();
    for hour in 0..=25 {
        scene.device.set_time(start + hours(hour));
        let visit = scene.attack(old.clone()).await;
        match visit.fault {
            None => assert_eq!(noticed_after, None, "noticed after {noticed_after:?} hours, forgotten after {hour}"),
            Some(Fault::Freeze) => noticed_after = noticed_after.or(Some(hour)),
            Some(other) => panic!("{other:?} after {hour} hours"),
        }
        scene.assert_runs(1);
    }
    assert!(noticed_after.is_some_and(|hour| hour <= 13), "noticed after {noticed_after:?} hours");
    assert_eq!(scene.update_to(2).await.ends, [Outcome::Committed], "an honest server is believed again");
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_that_have_expired_are_not_carried_out_and_what_runs_goes_on() {
    let mut scene = Scene::start().await;
    let order = scene.order(2);
    scene.device.set_time(scene.device.now() + hours(25));
    assert_eq!(scene.attack(order.clone()).await.fault, Some(Fault::Freeze));
    let mut offer = order;
    offer.answer.metadata = None;
    assert_eq!(scene.attack(offer).await.reported(), Some(Fault::Freeze));
    scene.assert_runs(1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_set_back_does_not_bring_expired_orders_to_life() {
    let mut scene = Scene::start().await;
    let order = scene.order(2);
    let now = scene.device.now();
    scene.device.set_time(now + hours(30));
    let (device, world) = (scene.device.device(), &mut scene.world);
    let visit = scene.device.visit(|question| {
        let nonce = question.nonce.expect("what it holds has expired");
        let answer = world.answer(device, &[], &nonce, now + hours(30));
        ota_e2e::installation::Brought { answer, ..Default::default() }
    });
    assert_eq!(visit.await.fault, None);
    // The order is older than what the device has seen since; its clock says otherwise.
    scene.device.set_time(now);
    let visit = scene.attack(order).await;
    assert!(matches!(visit.fault, Some(Fault::Freeze | Fault::Rollback)), "{visit:?}");
    scene.assert_runs(1);
}
