//! A server in an attacker's hands, with every key that is online: of the director, of snapshot and of timestamp. It may
//! choose among what operators signed for this hardware at or above the floor. Nothing else ever runs.

mod attack;

use std::collections::BTreeMap;

use ota_agent::machine::Outcome;
use ota_trust::metadata::Target;
use rand::{SeedableRng as _, rngs::StdRng};

use crate::scene::{Scene, app, hours, is_for_device, payload};
use attack::{Attacker, malware};

const ATTACKS: u64 = 1_000;

/// Least attacks that have to end in an install that is permitted, for the others to mean anything.
const LEAST_INSTALLS: usize = 20;

/// A fleet with a past: 6.0.0 was listed and taken back, and releases below 2 are.
async fn scene() -> (Scene, Attacker) {
    let mut scene = Scene::start().await;
    let package = app(1).custom.package;
    scene.world.publish(scene.device.now(), |catalog| catalog.insert(app(6)));
    let yesterday = scene.world.image.clone();
    scene.world.publish(scene.device.now() + hours(1), |catalog| {
        catalog.insert(app(5));
        catalog.remove("app/6.0.0");
        catalog.raise_floor(&package, 2);
    });
    assert_eq!(scene.update_to(2).await.ends, [Outcome::Committed]);
    let attacker = Attacker::new(&scene.world, scene.device.device(), yesterday);
    (scene, attacker)
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_runs_that_no_operator_signed_for_this_device() {
    let (scene, attacker) = scene().await;
    let list = scene.world.image.targets("targets").expect("a list");
    let package = app(1).custom.package;
    let permitted: BTreeMap<String, &Target> = list
        .targets
        .values()
        .filter(|target| is_for_device(target) && target.custom.release_counter >= 2)
        .map(|target| (target.custom.version.to_string(), target))
        .collect();
    assert_eq!(permitted.keys().map(String::as_str).collect::<Vec<_>>(), ["2.0.0", "3.0.0", "5.0.0"]);
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let held = scene.device.trusted().versions();
    let mut installs = 0;
    for number in 0..ATTACKS {
        let mut rng = StdRng::seed_from_u64(seed ^ number);
        let device = scene.device.twin();
        let mut tried = Vec::new();
        // One after the other, on the same device: an attack may prepare the next.
        for _ in 0..2 {
            device.set_time(device.now() + attacker.wait(&mut rng));
            let now = device.now();
            let visit = device
                .visit(|question| {
                    let brought = attacker.attack(question, now, &mut rng);
                    tried.push(attack::describe(&brought));
                    brought
                })
                .await;
            installs += visit.ends.iter().filter(|end| **end == Outcome::Committed).count();
            let what = format!("attack {number} of seed {seed}: {tried:?}: {visit:?}");
            for running in device.runs() {
                let version = running.version.to_string();
                let signed = permitted.get(&version).unwrap_or_else(|| panic!("{version} runs after {what}"));
                assert_eq!(running.package, package, "{what}");
                assert_eq!(running.payload.sha256, signed.sha256, "{what}");
                assert_eq!(running.release_counter, signed.custom.release_counter, "{what}");
                let major = version.split('.').next().and_then(|major| major.parse().ok()).expect("a version");
                assert_eq!(device.content("app"), Some(payload(major).to_vec()), "{what}");
            }
            assert!(device.content("app").is_some(), "the device goes on running: {what}");
            let contains_malware = |bytes: &Vec<u8>| bytes.windows(7).any(|window| window == &malware()[..7]);
            assert!(!device.content("app").as_ref().is_some_and(contains_malware), "{what}");
            let now_held = device.trusted().versions();
            assert!(now_held.image.root == held.image.root && now_held.director.root == held.director.root, "{what}");
            assert!(now_held.image.targets >= held.image.targets, "{what}");
            assert!(now_held.director.targets >= held.director.targets, "{what}");
            assert!(device.trusted().floor(&package) >= 2, "{what}");
        }
    }
    println!("{installs} installs of permitted releases in {ATTACKS} attacks");
    assert!(installs >= LEAST_INSTALLS, "the attacks are not even able to do what is permitted: {installs}");
}
