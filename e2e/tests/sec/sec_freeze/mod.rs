//! A device that is kept from learning that there is something newer.

use chrono::TimeDelta;
use ota_agent::{machine::Outcome, status::Status};
use ota_proto::device::v1::CheckInResponse;
use ota_trust::{
    Fault,
    metadata::{Freshness, sign},
};
use uuid::Uuid;

use crate::{
    fleet::{Fleet, payload},
    scene::{Scene, hours},
};

#[tokio::test(flavor = "multi_thread")]
async fn an_old_answer_played_for_a_day_is_noticed_and_brings_nothing() {
    let fleet = Fleet::start().await;
    let device = fleet.join().await;
    let name = format!("devices/{}", device.device());
    let assert_runs = |version: &str| assert_eq!(device.content("app"), Some(payload(version).to_vec()));
    let install = async || assert_eq!(device.call().await.expect("an answer").ends, [Outcome::Committed]);
    fleet.assign_to(name.clone(), &fleet.first).await;
    let mut past = fleet.overheard(install()).await.deployments;
    fleet.assign_to(name.clone(), &fleet.publish("2.0.0").await).await;
    let last = fleet.overheard(install()).await;
    assert_runs("2.0.0");

    // There is a third, of which the device is not to hear. It is shown what it knows, without an order and with one.
    fleet.assign_to(name.clone(), &fleet.publish("3.0.0").await).await;
    let start = device.now();
    let mut noticed_after = None;
    for hour in 0..=25 {
        device.set_time(start + TimeDelta::hours(hour));
        past[0].deployment = Uuid::now_v7().to_string();
        let deployments = if hour % 2 == 0 { Vec::new() } else { past.clone() };
        fleet.replay(CheckInResponse { deployments, ..last.clone() });
        let fault = device.call().await.expect("an answer").fault;
        assert_runs("2.0.0");
        match fault {
            Some(Fault::Freeze) => noticed_after = noticed_after.or(Some(hour)),
            None if noticed_after.is_none() => {}
            other => panic!("{other:?} after {hour} hours, noticed after {noticed_after:?}"),
        }
    }
    assert!(noticed_after.is_some_and(|hour| hour <= 13), "noticed after {noticed_after:?} hours");

    // People at the device see it, and the server has heard of it, whatever the attacker answers.
    let shown = Status::read(device.data()).expect("a data directory");
    assert!(matches!(shown.trust.last_fault, Some(fault) if fault.is_current && fault.fault == Fault::Freeze));
    assert_eq!(fleet.admin.device(&name).await.trust_fault, "FREEZE");

    // The time is as it was before the attacker's day, and the server speaks for itself.
    device.set_time(start);
    fleet.impostor.lies().check_in.stop();
    install().await;
    assert_runs("3.0.0");
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_that_have_expired_are_not_carried_out_and_what_runs_goes_on() {
    let fleet = Fleet::start().await;
    let device = fleet.join().await;
    let name = format!("devices/{}", device.device());
    fleet.assign_to(name.clone(), &fleet.first).await;
    assert_eq!(device.call().await.expect("an honest server").ends, [Outcome::Committed]);
    fleet.assign_to(name, &fleet.publish("2.0.0").await).await;
    let order = fleet.withheld_from(async { drop(device.call().await) }).await;
    device.set_time(device.now() + TimeDelta::hours(25));
    // Whoever has the director's key can answer the nonce, and nothing is wrong with the order but its age.
    let (keys, device_now, held) = (fleet.keys().await, device.now(), device.trusted().versions());
    let (late, id) = (order.clone(), device.device());
    fleet.impostor.lies().check_in.tell(move |asked, _| {
        let nonce = asked.request.nonce.to_vec();
        let proof = Freshness { device: id, nonce, director_version: held.director.targets + 1, time: device_now };
        let mut answer = late.clone();
        let metadata = answer.metadata.as_mut().expect("metadata with an order");
        metadata.freshness = sign(&proof, &[&keys.director]).expect("a signature").into();
        Ok(answer)
    });
    assert_eq!(device.call().await.expect("an answer").fault, Some(Fault::Freeze));
    fleet.replay(order.clone());
    assert_eq!(device.call().await.expect("an answer").fault, Some(Fault::Freeze));
    fleet.replay(CheckInResponse { metadata: None, ..order });
    assert_eq!(device.call().await.expect("an answer").fault, Some(Fault::Freeze));
    assert_eq!(device.content("app"), Some(payload("1.0.0").to_vec()));
}

/// No real server can be made to sign what it will say in a day.
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
