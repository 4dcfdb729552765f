//! `otactl release sign` and `release yank`: what the signed list has besides uploads.

use std::fs;

use ota_proto::admin::v1::{Installer, Release};

use super::{Scene, path, tells};
use crate::fleet;

#[tokio::test]
async fn a_release_that_another_program_published_is_signed_after_a_look_at_it() {
    let scene = Scene::start().await;
    let operator = scene.server.admin();
    let file = scene.release("1.0.0");
    let payload = operator.upload(&fs::read(&file).unwrap().into()).await;
    let release =
        Release { installer: Installer::File.into(), payload: format!("payloads/{payload}"), ..Release::default() };
    operator.create_unsigned_release("app", "1.0.0", release).await.unwrap();
    let device = scene.agent.name();
    let assign = ["assign", "app@1.0.0", device.strip_prefix("devices/").unwrap(), "--yes"];
    tells(&scene.refused(1, &assign).await, &["in no signed list yet", "otactl release sign"]);

    let sign = ["release", "sign", "app@1.0.0"];
    tells(&scene.refused(2, &sign).await, &["Sign app@1.0.0?", &payload.to_string(), "--yes"]);
    let other = scene.release("0.9.0");
    let words = scene.refused(1, &[&sign[..], &["--payload", path(&other)]].concat()).await;
    tells(&words, &["not what you have here", &payload.to_string()]);
    scene.refused(1, &["release", "sign", "app@7.0.0", "--yes"]).await;
    scene.otactl(&[&sign[..], &["--payload", path(&file)]].concat()).await;
    // Once more is nothing more.
    scene.otactl(&[&sign[..], &["--yes"]].concat()).await;
    scene.otactl(&assign).await;
    scene.checks_in().await;
    scene.runs("1.0.0");
}

#[tokio::test]
async fn a_release_that_was_yanked_is_installed_nowhere_and_a_raised_floor_keeps_older_ones_out() {
    let scene = Scene::start().await;
    for version in ["1.0.0", "2.0.0", "3.0.0"] {
        fleet::publish(&scene.server, &scene.release(version), version).await;
    }
    let device = scene.agent.name();
    let device = device.strip_prefix("devices/").unwrap();
    // Ordered already when it is yanked.
    scene.otactl(&["assign", "app@2.0.0", device, "--yes"]).await;
    tells(&scene.refused(2, &["release", "yank", "app@2.0.0"]).await, &["Yank app@2.0.0?", "--yes"]);
    let yank = ["release", "yank", "app@2.0.0", "--yes", "--reason", "loses its network"];
    scene.otactl(&yank).await;
    scene.otactl(&yank).await;
    scene.agent.once().await;
    assert!(!scene.agent.current("app").exists());
    tells(&scene.refused(1, &["assign", "app@2.0.0", device, "--yes"]).await, &["yank"]);

    // An older one may be assigned, until the floor is above it.
    scene.otactl(&["assign", "app@1.0.0", device, "--yes"]).await;
    scene.checks_in().await;
    scene.runs("1.0.0");
    let words = scene.refused(2, &["release", "yank", "app@1.0.0", "--raise-floor"]).await;
    tells(&words, &["earlier releases", "for good", "--yes"]);
    scene.otactl(&["release", "yank", "app@2.0.0", "--raise-floor", "--yes"]).await;
    scene.takes("4.0.0").await;
    scene.otactl(&["assign", "app@1.0.0", device, "--yes"]).await;
    scene.agent.once().await;
    scene.runs("4.0.0");
    scene.takes("5.0.0").await;
}
