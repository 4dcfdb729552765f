//! Damage to the device's own record, as a power cut or an intruder with a moment's access leaves it: nothing older is
//! believed after it than before.

use std::fs;

use ota_agent::machine::Outcome;
use ota_e2e::installation::Brought;
use ota_trust::Fault;

use crate::scene::{Scene, app, hours};

/// A device that runs 3.0.0, above a floor of 2, and the order for 1.0.0 that it had once.
async fn advanced() -> (Scene, Brought) {
    let mut scene = Scene::start().await;
    let past = scene.order(1);
    let now = scene.device.now() + hours(1);
    scene.world.publish(now, |catalog| {
        catalog.insert(app(5));
        catalog.raise_floor(&app(1).custom.package, 2);
    });
    assert_eq!(scene.update_to(3).await.ends, [Outcome::Committed]);
    assert_eq!(scene.device.trusted().floor(&app(1).custom.package), 2);
    (scene, past)
}

async fn assert_holds(scene: &Scene, past: &Brought, what: &str) {
    let before = scene.device.trusted();
    let visit = scene.attack(past.clone()).await;
    assert_eq!(visit.fault, Some(Fault::Rollback), "{what}");
    let after = scene.device.trusted();
    assert_eq!(after.versions(), before.versions(), "{what}");
    assert_eq!(after.floor(&app(1).custom.package), 2, "{what}");
    scene.assert_runs(3);
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_to_either_copy_takes_nothing_back() {
    let (scene, past) = advanced().await;
    for copy in ["a", "b"] {
        let path = scene.device.store(copy);
        let whole = fs::read(&path).expect("a copy");
        let cuts = (0..whole.len()).step_by(whole.len() / 40).chain([whole.len() - 1]);
        for length in cuts {
            fs::write(&path, &whole[..length]).expect("a copy");
            assert_holds(&scene, &past, &format!("{copy} cut to {length} bytes")).await;
            assert_eq!(fs::read(&path).expect("a copy"), whole, "{copy} is whole again");
        }
        for at in (0..whole.len()).step_by(whole.len() / 20) {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x40;
            fs::write(&path, &bytes).expect("a copy");
            assert_holds(&scene, &past, &format!("{copy} with another byte {at}")).await;
        }
        fs::remove_file(&path).expect("a copy");
        assert_holds(&scene, &past, &format!("{copy} deleted")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_copy_put_back_is_not_believed() {
    let mut scene = Scene::start().await;
    let past = scene.order(1);
    let old = fs::read(scene.device.store("a")).expect("a copy");
    let now = scene.device.now() + hours(1);
    scene.world.publish(now, |catalog| {
        catalog.insert(app(5));
        catalog.raise_floor(&app(1).custom.package, 2);
    });
    assert_eq!(scene.update_to(3).await.ends, [Outcome::Committed]);
    for copy in ["a", "b"] {
        fs::write(scene.device.store(copy), &old).expect("a copy");
        assert_holds(&scene, &past, copy).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_record_a_device_trusts_nothing_and_goes_on_running() {
    let (mut scene, past) = advanced().await;
    for copy in ["a", "b"] {
        fs::write(scene.device.store(copy), b"").expect("a copy");
    }
    let orders = [past, scene.order(3), scene.order(5)];
    for order in orders {
        let visit = scene.attack(order).await;
        assert_eq!(visit.reported(), Some(Fault::Store), "{visit:?}");
        assert_eq!(scene.device.content("app"), Some(crate::scene::payload(3).to_vec()));
    }
    for copy in ["a", "b"] {
        assert_eq!(fs::read(scene.device.store(copy)).expect("a copy"), b"", "nothing is made up");
    }
}
