//! Orders that were this device's own once.

use ota_agent::machine::Outcome;
use ota_trust::Fault;

use crate::scene::Scene;

#[tokio::test(flavor = "multi_thread")]
async fn an_order_of_the_past_is_refused_also_after_a_restart() {
    let mut scene = Scene::start().await;
    let past = scene.order(2);
    assert_eq!(scene.update_to(3).await.ends, [Outcome::Committed]);
    // Each visit is a new start of the agent: what it remembers is what is on the disk.
    for _ in 0..3 {
        assert_eq!(scene.attack(past.clone()).await.fault, Some(Fault::Rollback));
        scene.assert_runs(3);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_offer_of_the_past_is_worth_nothing_without_its_documents() {
    let mut scene = Scene::start().await;
    let mut past = scene.order(2);
    assert_eq!(scene.update_to(3).await.ends, [Outcome::Committed]);
    past.answer.metadata = None;
    assert_eq!(scene.attack(past).await.reported(), Some(Fault::Disagreement));
    scene.assert_runs(3);
}
