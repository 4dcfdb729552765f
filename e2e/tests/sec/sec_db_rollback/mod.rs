//! A server whose database was put back to an earlier day.

mod real;

use ota_agent::machine::Outcome;
use ota_trust::Fault;

use crate::scene::{Scene, app, hours};

#[tokio::test(flavor = "multi_thread")]
async fn a_server_of_yesterday_is_noticed_and_takes_no_device_back() {
    let mut scene = Scene::start().await;
    let (image, order) = (scene.world.image.clone(), scene.world.order);
    let now = scene.device.now() + hours(1);
    scene.world.publish(now, |catalog| catalog.insert(app(5)));
    assert_eq!(scene.update_to(5).await.ends, [Outcome::Committed]);
    let today = (scene.world.image.clone(), scene.world.order);

    (scene.world.image, scene.world.order) = (image, order);
    for _ in 0..3 {
        // It signs other orders under numbers that the device has seen, then newer ones with older lists.
        let fault = scene.update_to(2).await.fault;
        assert!(matches!(fault, Some(Fault::MixAndMatch | Fault::Rollback)), "{fault:?}");
        scene.assert_runs(5);
    }
    (scene.world.image, scene.world.order) = today;
    assert_eq!(scene.update_to(3).await.ends, [Outcome::Committed], "the server of today is believed again");
}
