//! Software for other hardware.

mod real;

use ota_agent::machine::Outcome;
use ota_domain::deployment::FailureCode;
use ota_e2e::{
    installation::{Brought, release},
    signed::deployment,
};
use ota_trust::Fault;

use crate::scene::{HARDWARE, Scene, listed, payload};

#[tokio::test(flavor = "multi_thread")]
async fn a_release_for_other_hardware_is_refused_whatever_the_server_says_of_it() {
    let mut scene = Scene::start().await;
    let signed = listed(&scene.world, 4);
    let claim = |hardware: &[&str]| release("app", "4.0.0", 4, hardware, &payload(4));
    // What the director signs, and what the order says.
    let lies = [
        (signed.clone(), signed.clone()),
        (signed.clone(), claim(&[])),
        (signed.clone(), claim(&[HARDWARE])),
        (claim(&[HARDWARE]), claim(&[HARDWARE])),
        (claim(&[]), claim(&[])),
        (claim(&["imx8", HARDWARE]), claim(&["imx8", HARDWARE])),
    ];
    for (number, (directed, ordered)) in lies.into_iter().enumerate() {
        let mut answer = scene.world.answer(scene.device.device(), &[directed], &[], scene.device.now());
        answer.deployments = vec![deployment(&ordered)];
        let visit = scene.attack(Brought { answer, payloads: vec![payload(4)], forged: vec![] }).await;
        let [Outcome::Failed(failure)] = &visit.ends[..] else { panic!("lie {number}: {visit:?}") };
        let expected =
            if number == 0 { (FailureCode::Hardware, None) } else { (FailureCode::Trust, Some(Fault::Disagreement)) };
        assert_eq!((failure.code, failure.trust_fault), expected, "lie {number}");
        scene.assert_runs(1);
    }
}
