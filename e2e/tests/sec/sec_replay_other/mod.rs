//! Orders that were signed for another device.

use chrono::TimeDelta;
use ota_e2e::process::AgentProcess;
use ota_proto::{
    admin::v1::EnrollToken,
    device::v1::{CheckInResponse, TrustFault},
};
use ota_trust::{
    Fault,
    metadata::{Freshness, read, sign},
};

use crate::fleet::{Fleet, payload};

#[tokio::test(flavor = "multi_thread")]
async fn another_devices_orders_are_refused() {
    let fleet = Fleet::start().await;
    let string = fleet.admin.enrollment_string(EnrollToken { max_uses: 1, ..Default::default() }).await;
    let other = AgentProcess::enroll(&fleet.impostor.url(), &string).await;
    // Its count of orders is ahead of the other's, so that nothing but the name is wrong.
    let mut order = CheckInResponse::default();
    for version in ["2.0.0", "3.0.0"] {
        fleet.assign_to(other.name(), &fleet.publish(version).await).await;
        order = fleet.withheld_from(async { drop(other.once().await) }).await;
        assert_eq!(order.deployments.len(), 1, "{order:?}");
    }
    fleet.replay(order);
    fleet.agent.once().await;
    fleet.assert_runs("1.0.0").await;
    fleet.assert_alarmed(TrustFault::OtherDevice).await;
    fleet.impostor.lies().check_in.stop();
    other.once().await;
    let content = std::fs::read(other.current("app").join("app")).expect("the one it is for carries it out");
    assert_eq!(payload("3.0.0"), content);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_devices_proof_of_freshness_is_refused() {
    let fleet = Fleet::start().await;
    let device = fleet.join().await;
    assert_eq!(device.call().await.expect("an honest server").fault, None);
    device.set_time(device.now() + TimeDelta::hours(13));
    let keys = fleet.keys().await;
    fleet.impostor.lies().check_in.tell(move |asked, truth| {
        assert!(!asked.request.nonce.is_empty(), "a device asks at half the life of what it holds");
        let mut answer = truth?;
        let metadata = answer.metadata.as_mut().expect("a proof for a nonce");
        let mut proof: Freshness = read(&metadata.freshness).expect("a proof for a nonce");
        proof.device.0 = uuid::Uuid::now_v7();
        metadata.freshness = sign(&proof, &[&keys.director]).expect("a signature").into();
        Ok(answer)
    });
    assert_eq!(device.call().await.expect("an answer").fault, Some(Fault::OtherDevice));
    fleet.impostor.lies().check_in.stop();
    assert_eq!(device.call().await.expect("an honest server").fault, None, "its own is believed");
}
