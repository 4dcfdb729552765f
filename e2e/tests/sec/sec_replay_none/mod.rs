//! "There is nothing new for you", said again or said to somebody else: a server taken over keeps a device from an update
//! with answers that were true once.
//!
//! An answer without documents costs the server no signature and proves nothing. So a device asks for a signed one when
//! half the life of what it holds is gone, with a nonce that fits one answer alone, for it alone.

use std::time::Duration;

use chrono::{TimeDelta, Utc};
use ota_agent::trust_store::TrustStore;
use ota_e2e::eventually;
use ota_proto::device::v1::{CheckInRequest, CheckInResponse, MetadataUpdate, MetadataVersions, TrustFault};
use ota_trust::device::Trusted;
use serde_json::{Value, json};
use tokio::{runtime::Handle, sync::mpsc, task::block_in_place};
use tonic::Status;

use crate::fleet::Fleet;

/// How long a broken test takes to fail.
const LIMIT: Duration = Duration::from_secs(60);

/// Makes it a day since the device last had proof, as its own record says.
fn let_a_day_pass(fleet: &Fleet) {
    let (mut store, trusted) = TrustStore::open(fleet.agent.data_dir()).expect("the agent's store");
    let mut kept: Value = serde_json::from_slice(&trusted.to_bytes()).expect("the store holds JSON");
    assert!(kept["updated_at"].is_string(), "{kept}");
    kept["updated_at"] = json!(Utc::now() - TimeDelta::hours(25));
    let kept = serde_json::to_vec(&kept).expect("JSON");
    store.accept(&Trusted::from_bytes(&kept).expect("the same with another time")).expect("the store takes it");
}

/// Lets the device have proof once. Returns the true answer that it got: that there is nothing to do.
async fn proof(fleet: &Fleet) -> CheckInResponse {
    let_a_day_pass(fleet);
    let (sender, mut answers) = mpsc::unbounded_channel();
    fleet.impostor.lies().check_in.tell(move |asked, truth| {
        assert!(!asked.request.nonce.is_empty(), "the device asks for proof");
        sender.send(truth.clone()).ok();
        truth
    });
    fleet.agent.once().await;
    fleet.impostor.lies().check_in.stop();
    let answer = answers.recv().await.expect("the agent checks in").expect("the server answers");
    assert!(answer.deployments.is_empty() && !answer.metadata.as_ref().expect("proof").freshness.is_empty());
    assert_believes(fleet).await;
    answer
}

async fn assert_believes(fleet: &Fleet) {
    assert_ne!(fleet.status().await["trust"]["last_fault"]["is_current"], true);
}

/// Asserts that the device comes to its update once the server is itself again.
async fn assert_recovers(fleet: &Fleet) {
    fleet.impostor.lies().check_in.stop();
    fleet.agent.once().await;
    fleet.assert_runs("2.0.0").await;
    assert_believes(fleet).await;
    eventually("the server heard that all is well", LIMIT, async || {
        fleet.agent.once().await;
        fleet.admin.device(&fleet.agent.name()).await.trust_fault.is_empty().then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_answer_is_noticed_as_soon_as_proof_is_due() {
    let fleet = Fleet::start().await;
    fleet.assign(&fleet.publish("2.0.0").await).await;
    fleet.replay(CheckInResponse::default());
    fleet.agent.once().await;
    // Until then it may be true, and most often is.
    assert_believes(&fleet).await;
    let_a_day_pass(&fleet);
    for _ in 0..2 {
        fleet.agent.once().await;
        fleet.assert_runs("1.0.0").await;
        fleet.assert_alarmed(TrustFault::Freeze).await;
    }
    assert_recovers(&fleet).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proof_of_the_past_is_none_today() {
    let fleet = Fleet::start().await;
    let past = [proof(&fleet).await, proof(&fleet).await];
    fleet.assign(&fleet.publish("2.0.0").await).await;
    for answer in past {
        let_a_day_pass(&fleet);
        fleet.replay(answer);
        fleet.agent.once().await;
        fleet.assert_runs("1.0.0").await;
        fleet.assert_alarmed(TrustFault::Freeze).await;
    }
    assert_recovers(&fleet).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proof_for_another_device_is_none_for_this_one() {
    let fleet = Fleet::start().await;
    let neighbour = fleet.admin.enroll().await;
    fleet.assign(&fleet.publish("2.0.0").await).await;
    let_a_day_pass(&fleet);
    // The attacker puts the device's own nonce to the genuine server, as another device for which there is nothing to do,
    // so that the answer has the very version that this device holds; and passes on the proof alone.
    fleet.impostor.lies().check_in.tell(move |asked, _| {
        let held = asked.request.metadata.unwrap_or_default();
        let held = MetadataVersions { director: held.director - 1, ..held };
        let request =
            CheckInRequest { running: Vec::new(), trust_fault: 0, metadata: Some(held), ..asked.request.clone() };
        let mut updates = neighbour.updates();
        let asking = async { updates.check_in(request).await };
        let answer: CheckInResponse = block_in_place(|| Handle::current().block_on(asking))?.into_inner();
        let freshness = answer.metadata.ok_or_else(|| Status::internal("no proof"))?.freshness;
        assert!(!freshness.is_empty() && answer.deployments.is_empty());
        let metadata = Some(MetadataUpdate { freshness, ..Default::default() });
        Ok(CheckInResponse { metadata, ..Default::default() })
    });
    fleet.agent.once().await;
    fleet.assert_runs("1.0.0").await;
    fleet.assert_alarmed(TrustFault::OtherDevice).await;
    assert_recovers(&fleet).await;
}
