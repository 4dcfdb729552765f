//! `otactl keys rotate`: every key is replaced, before the operators take the root keys over and after, and devices follow.

use std::fs;

use super::{Scene, path, tells};

/// The keys with which the server signs every day: what people call each, its repository, its role.
const ONLINE: [(&str, &str, &str); 3] = [
    ("timestamp", "REPOSITORY_IMAGE", "timestamp"),
    ("snapshot", "REPOSITORY_IMAGE", "snapshot"),
    ("director", "REPOSITORY_DIRECTOR", "targets"),
];

#[tokio::test]
async fn a_server_that_holds_the_root_keys_replaces_every_key_of_its_own() {
    let scene = Scene::start().await;
    for (version, (name, repository, role)) in (1..).zip(ONLINE) {
        let before = scene.keys_of(repository, role).await;
        scene.otactl(&["keys", "rotate", name, "--yes"]).await;
        assert_ne!(scene.keys_of(repository, role).await, before);
        scene.takes(&format!("{version}.0.0")).await;
    }
    let before = scene.keys_of("REPOSITORY_DIRECTOR", "root").await;
    scene.otactl(&["keys", "rotate", "root", "--yes"]).await;
    assert_ne!(scene.keys_of("REPOSITORY_DIRECTOR", "root").await, before);
    scene.takes("5.0.0").await;
}

#[tokio::test]
async fn operators_replace_every_key_with_two_of_three_root_keys_and_devices_follow() {
    let scene = Scene::adopted().await;
    scene.takes("1.0.0").await;
    let (one, three) = (scene.root_key(1), scene.root_key(3));
    fs::remove_file(scene.root_key(2)).unwrap();
    let root_keys = ["--root-key", &one, "--root-key", &three];
    for (version, (name, repository, role)) in (2..).zip(ONLINE) {
        let before = scene.keys_of(repository, role).await;
        let rotate = ["keys", "rotate", name, "--yes"];
        // Too few keys are told of before the server is asked for anything.
        tells(&scene.refused(1, &rotate).await, &["2 of the 3 root keys in use", "--root-key"]);
        let told = scene.otactl(&[&rotate[..], &root_keys].concat()).await;
        let after = scene.keys_of(repository, role).await;
        assert_ne!(after, before);
        tells(&told, &[&after[0]]);
        scene.takes(&format!("{version}.0.0")).await;
    }
    let events = scene.json(&["event", "list"]).await.to_string();
    tells(&events, &["server_key.prepared", "server_key.rotated"]);

    // The key that signs releases.
    let before = scene.keys_of("REPOSITORY_IMAGE", "targets").await;
    scene.otactl(&[&["keys", "rotate", "targets", "--yes"][..], &root_keys].concat()).await;
    assert_ne!(scene.keys_of("REPOSITORY_IMAGE", "targets").await, before);
    scene.takes("5.0.0").await;

    // The root keys themselves.
    let fresh = scene.server.scratch().join("fresh");
    let rotate = [&["keys", "rotate", "root", "--yes"][..], &root_keys].concat();
    tells(&scene.refused(2, &rotate).await, &["--out DIR"]);
    let rotate = [&rotate[..], &["--out", path(&fresh)]].concat();
    let told = scene.otactl(&rotate).await;
    tells(&told, &["the root keys are replaced"]);
    // Once more is no second rotation: the answer may have been lost.
    let roots = scene.keys_of("REPOSITORY_IMAGE", "root").await;
    assert_eq!(scene.otactl(&rotate).await, told);
    assert_eq!(scene.keys_of("REPOSITORY_IMAGE", "root").await, roots);
    // The old ones sign nothing any more, and are not taken for new ones.
    let words = scene.refused(1, &[&["keys", "drill"][..], &root_keys].concat()).await;
    tells(&words, &["0 of them at hand", "none of the root keys in use"]);
    let [first, second] = [1, 2].map(|number| path(&fresh.join(format!("root-{number}.pem"))).to_owned());
    let root_keys = ["--root-key", &first, "--root-key", &second];
    let same = [&["keys", "rotate", "root", "--yes", "--out", path(&fresh)][..], &root_keys].concat();
    tells(&scene.refused(2, &same).await, &["has the root keys that are in use", "--out DIR"]);
    scene.otactl(&[&["keys", "rotate", "timestamp", "--yes"][..], &root_keys].concat()).await;
    scene.takes("6.0.0").await;
}
