//! Orders that were this device's own once: a server taken over kept them, and sends them again.

use ota_proto::device::v1::{CheckInResponse, TrustFault};
use prost_types::Duration;
use tokio::sync::mpsc;

use crate::fleet::Fleet;

#[tokio::test(flavor = "multi_thread")]
async fn an_order_of_the_past_is_refused() {
    let fleet = Fleet::start().await;
    let second = fleet.publish("2.0.0").await;
    let past = fleet.withhold(&second).await;
    fleet.update_to(&fleet.publish("3.0.0").await).await;
    fleet.assert_runs("3.0.0").await;
    fleet.replay(past);
    for _ in 0..3 {
        // Each time is a new start of the agent: what it remembers is what is on the disk.
        fleet.agent.once().await;
        fleet.assert_runs("3.0.0").await;
        fleet.assert_alarmed(TrustFault::Rollback).await;
    }
    fleet.impostor.lies().check_in.stop();
    fleet.update_to(&second).await;
    fleet.assert_runs("2.0.0").await;
}

/// The agent is killed at the moment that counts: what it was ordered is verified, nothing of it is done yet.
#[tokio::test(flavor = "multi_thread")]
async fn an_order_of_the_past_is_refused_after_a_kill_in_the_middle_of_the_order_after_it() {
    let mut fleet = Fleet::start().await;
    let past = fleet.withhold(&fleet.publish("2.0.0").await).await;
    fleet.assign(&fleet.publish("3.0.0").await).await;

    let (sender, mut downloads) = mpsc::unbounded_channel();
    fleet.impostor.lies().download.tell(move |_, _| {
        sender.send(()).ok();
        Ok(Box::pin(tokio_stream::pending()))
    });
    fleet.agent.start();
    downloads.recv().await.expect("the agent downloads what it was ordered");
    fleet.agent.kill();
    fleet.assert_runs("1.0.0").await;

    fleet.impostor.lies().download.stop();
    for _ in 0..3 {
        let (sender, mut faults) = mpsc::unbounded_channel();
        let past = past.clone();
        fleet.impostor.lies().check_in.tell(move |asked, _| {
            sender.send(asked.request.trust_fault()).ok();
            Ok(CheckInResponse { next_check_in: Some(Duration { seconds: 1, nanos: 0 }), ..past.clone() })
        });
        fleet.agent.start();
        // The first may still tell of what an earlier start did not believe.
        faults.recv().await.expect("the agent checks in");
        assert_eq!(faults.recv().await, Some(TrustFault::Rollback));
        fleet.agent.kill();
        // What it was at when it was killed, it has finished.
        fleet.assert_runs("3.0.0").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_offer_of_the_past_is_worth_nothing_without_its_documents() {
    let fleet = Fleet::start().await;
    let past = fleet.withhold(&fleet.publish("2.0.0").await).await;
    fleet.update_to(&fleet.publish("3.0.0").await).await;
    fleet.replay(CheckInResponse { metadata: None, ..past });
    fleet.agent.once().await;
    fleet.assert_runs("3.0.0").await;
    fleet.assert_alarmed(TrustFault::Disagreement).await;
}
