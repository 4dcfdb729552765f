//! `otactl export` and `ota-agent install`: software on a stick, for a device that reaches nobody.

use std::{fs, io::Cursor, path::Path};

use chrono::{TimeDelta, Utc};
use ota_bundle::{Bundle, Writer};
use ota_domain::DeviceId;
use ota_e2e::{
    binaries::run,
    database,
    process::{AgentProcess, ServerProcess},
};
use ota_proto::device::v1::CheckInResponse;
use ota_server::keys::Keyring;
use ota_trust::{
    director::{self, Assignment},
    metadata::{Targets, read},
};
use prost::Message as _;
use tokio::process::Command;

use super::{Scene, path, tells, text};
use crate::fleet;

fn id(agent: &AgentProcess) -> String {
    agent.name().strip_prefix("devices/").unwrap().to_owned()
}

/// Has an agent install a bundle, with no network at all where the system allows to take it away. Returns how it ended and
/// what it told.
async fn install(agent: &AgentProcess, bundle: &Path) -> (Option<i32>, String) {
    let install = agent.command("install");
    let mut command = if rustix::process::geteuid().is_root() {
        let mut command = Command::new("unshare");
        command.args(["-n", "--"]).arg(install.get_program()).args(install.get_args());
        command
    } else {
        Command::from(install)
    };
    let output = run(command.arg(bundle)).await;
    (output.status.code(), text(&output.stdout) + &text(&output.stderr))
}

#[tokio::test]
async fn a_bundle_brings_a_release_to_a_device_that_reaches_nobody() {
    let mut scene = Scene::start().await;
    let other = fleet::enroll(&scene.server, &scene.server.url()).await;
    let (first, second) = (scene.release("1.0.0"), scene.release("2.0.0"));
    fleet::publish(&scene.server, &first, "1.0.0").await;
    fleet::assign(&scene.server, "1.0.0", &scene.agent.name()).await;
    let scratch = scene.server.scratch().to_owned();
    let file = |name: &str| scratch.join(name);
    let (one, two) = (file("one.bundle"), file("two.bundle"));
    let device = id(&scene.agent);

    tells(&scene.refused(2, &["export", path(&one)]).await, &["--device", "-l"]);
    let export = ["export", "--device", &device];
    tells(&scene.refused(1, &[&export[..], &["--valid", "91d", path(&one)]].concat()).await, &["lifetime", "90 days"]);
    tells(&scene.refused(1, &["export", "-l", "site=nowhere", path(&one)]).await, &["no accepted device matches"]);
    scene.otactl(&[&export[..], &["--valid", "30d", path(&one)]].concat()).await;
    // A later one, for another release; by the device's label.
    scene.otactl(&["device", "label", &device, "site=mine-3"]).await;
    fleet::publish(&scene.server, &second, "2.0.0").await;
    fleet::assign(&scene.server, "2.0.0", &scene.agent.name()).await;
    scene.otactl(&["export", "-l", "site=mine-3", path(&two)]).await;
    scene.server.terminate().await;

    let (code, words) = install(&other, &one).await;
    assert_eq!(code, Some(1), "{words}");
    tells(&words, &["holds nothing for this device", "otactl export"]);
    // A byte that was changed: of the payload, of what is signed; a file that was cut.
    let whole = fs::read(&one).unwrap();
    let payload = whole.windows(5).position(|bytes| bytes == b"1.0.0").unwrap();
    let signature = whole.windows(5).position(|bytes| bytes == b"\"sig\"").unwrap() + 10;
    for (at, what) in [(payload, "the payload"), (signature, "a signature")] {
        let mut changed = whole.clone();
        changed[at] ^= 1;
        fs::write(file("changed.bundle"), changed).unwrap();
        let (code, words) = install(&scene.agent, &file("changed.bundle")).await;
        assert_eq!(code, Some(1), "{what}: {words}");
        assert!(!scene.agent.current("app").exists(), "{what}");
    }
    fs::write(file("cut.bundle"), &whole[..whole.len() - 4_096]).unwrap();
    let (code, words) = install(&scene.agent, &file("cut.bundle")).await;
    assert_eq!(code, Some(1), "{words}");
    let (code, words) = install(&scene.agent, &file("nowhere.bundle")).await;
    assert_eq!(code, Some(1));
    tells(&words, &["nowhere.bundle"]);

    let (code, words) = install(&scene.agent, &two).await;
    assert_eq!(code, Some(0), "{words}");
    scene.runs("2.0.0");
    // What was exported before is older than what the device has seen since.
    let (code, words) = install(&scene.agent, &one).await;
    assert_eq!(code, Some(1), "{words}");
    scene.runs("2.0.0");
    // The same once more is nothing to do.
    let (code, words) = install(&scene.agent, &two).await;
    assert_eq!(code, Some(0), "{words}");

    // Back in reach, it tells, and takes its orders as always.
    scene.server.restart().await;
    scene.checks_in().await;
    fleet::succeeded(&scene.server.admin(), &scene.agent.name()).await;
    scene.takes("3.0.0").await;
}

#[tokio::test]
async fn a_bundle_below_the_floor_or_of_the_past_is_not_installed() {
    let database = database::empty().await;
    let server = ServerProcess::start_with(&["--database-url", &database.url()]).await;
    let scene = Scene::with(server).await;
    for version in ["1.0.0", "2.0.0"] {
        fleet::publish(&scene.server, &scene.release(version), version).await;
    }
    fleet::assign(&scene.server, "1.0.0", &scene.agent.name()).await;
    let (device, scratch) = (id(&scene.agent), scene.server.scratch().to_owned());
    let bundle = scratch.join("old.bundle");
    scene.otactl(&["export", "--device", &device, path(&bundle)]).await;

    // The same order, signed by the same keys, good until an hour ago.
    let keys = Keyring::open(database.pool(), &scene.server.data_dir().join("key-encryption-key"), Utc::now()).await;
    let keys = keys.unwrap().signing(&mut database.pool().acquire().await.unwrap()).await.unwrap();
    let past = scratch.join("past.bundle");
    let device: DeviceId = device.parse().unwrap();
    let mut read_from = Bundle::open(Cursor::new(fs::read(&bundle).unwrap())).unwrap();
    let mut answer = CheckInResponse::decode(read_from.check_in(device).unwrap().unwrap().as_slice()).unwrap();
    let metadata = answer.metadata.as_mut().unwrap();
    let order: Targets = read(&metadata.director_targets).unwrap();
    let targets = order.targets.into_values().collect();
    let assignment = Assignment { device, version: order.version, targets };
    let then = Utc::now() - TimeDelta::hours(2);
    let signed = director::sign(&assignment, then, TimeDelta::hours(1), &keys.director).unwrap();
    metadata.director_timestamp = signed.timestamp.into();
    metadata.director_snapshot = signed.snapshot.into();
    metadata.director_targets = signed.targets.into();
    let manifest = read_from.manifest().clone();
    let mut writer = Writer::new(Vec::new());
    for (sha256, size) in &manifest.payloads {
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut read_from.payload(*sha256).unwrap().unwrap().1, &mut bytes).unwrap();
        let mut payload = writer.payload(*sha256, *size).unwrap();
        payload.write(&bytes).unwrap();
        payload.finish().unwrap();
    }
    writer.check_in(device, &answer.encode_to_vec()).unwrap();
    fs::write(&past, writer.finish(&manifest).unwrap()).unwrap();
    let (code, words) = install(&scene.agent, &past).await;
    assert_eq!(code, Some(1), "{words}");
    tells(&words, &["expired"]);

    // A floor that came after the export, and that the device knows of.
    scene.otactl(&["release", "yank", "app@1.0.0", "--raise-floor", "--yes"]).await;
    fleet::assign(&scene.server, "2.0.0", &scene.agent.name()).await;
    scene.checks_in().await;
    scene.runs("2.0.0");
    let (code, words) = install(&scene.agent, &bundle).await;
    assert_eq!(code, Some(1), "{words}");
    scene.runs("2.0.0");
}
