//! Documents that are each signed and do not belong together.

use ota_proto::device::v1::{CheckInResponse, MetadataUpdate, TrustFault};
use ota_trust::image::OnlineKeys;

use crate::{fleet::Fleet, forged};

fn metadata(answer: &mut CheckInResponse) -> &mut MetadataUpdate {
    answer.metadata.as_mut().expect("metadata with an order")
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_of_two_days_are_not_mixed() {
    let fleet = Fleet::start().await;
    let first = fleet.withhold(&fleet.publish("2.0.0").await).await;
    let second = fleet.withhold(&fleet.publish("3.0.0").await).await;
    // A document older than the snapshot says is a step back as well.
    let days = [(&first, &second, TrustFault::MixAndMatch), (&second, &first, TrustFault::Rollback)];
    for (one, other, fault) in days {
        let (mut mixed, mut other) = (one.clone(), other.clone());
        metadata(&mut mixed).director_targets = metadata(&mut other).director_targets.clone();
        mixed.deployments = other.deployments;
        fleet.replay(mixed);
        fleet.agent.once().await;
        fleet.assert_runs("1.0.0").await;
        fleet.assert_alarmed(fault).await;
    }
    fleet.replay(second);
    fleet.agent.once().await;
    fleet.assert_runs("3.0.0").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_is_not_believed_under_another_lists_snapshot() {
    let fleet = Fleet::start().await;
    let older = fleet.withhold(&fleet.publish("2.0.0").await).await;
    let third = fleet.publish("3.0.0").await;
    fleet.admin.edit_targets(|list| assert!(list.remove("app/2.0.0"))).await.expect("operators take a release back");
    let newer = fleet.withhold(&third).await;
    for (one, other, fault) in [(&older, &newer, TrustFault::MixAndMatch), (&newer, &older, TrustFault::Rollback)] {
        let (mut mixed, mut other) = (one.clone(), other.clone());
        metadata(&mut mixed).image_targets = metadata(&mut other).image_targets.clone();
        mixed.deployments = other.deployments;
        fleet.replay(mixed);
        fleet.agent.once().await;
        fleet.assert_runs("1.0.0").await;
        fleet.assert_alarmed(fault).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_goes_back_to_an_older_list_is_refused() {
    let fleet = Fleet::start().await;
    let older = fleet.withhold(&fleet.publish("2.0.0").await).await;
    let list = fleet.admin.image_repository().await.expect("anybody reads the list").versions().targets;
    let third = fleet.publish("3.0.0").await;
    fleet.admin.edit_targets(|list| assert!(list.remove("app/2.0.0"))).await.expect("operators take a release back");
    fleet.update_to(&third).await;
    fleet.assert_runs("3.0.0").await;
    // The server holds the keys of snapshot and timestamp, so it can sign that the old list is the newest.
    let mut back = fleet.withhold(&fleet.first).await;
    let keys = fleet.keys().await;
    let online = OnlineKeys { snapshot: &keys.image_snapshot, timestamp: &keys.image_timestamp };
    let image = fleet.admin.image_repository().await.expect("anybody reads the list");
    let (snapshot, timestamp) = forged::online(&image, online, list, chrono::Utc::now());
    let forged = metadata(&mut back);
    forged.image_targets = older.metadata.expect("metadata with an order").image_targets;
    (forged.image_snapshot, forged.image_timestamp) = (snapshot, timestamp);
    back.deployments = older.deployments;
    fleet.replay(back);
    fleet.agent.once().await;
    fleet.assert_runs("3.0.0").await;
    fleet.assert_alarmed(TrustFault::Rollback).await;
}
