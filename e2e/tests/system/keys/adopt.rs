//! `otactl keys adopt`, and what root keys in files are good for.

use std::{fs, os::unix::fs::PermissionsExt as _};

use super::{Scene, path, tells};

const ADOPT: [&str; 6] = ["keys", "adopt", "--threshold", "2", "--of", "3"];

#[tokio::test]
async fn a_device_that_nobody_touches_follows_operators_who_take_the_root_keys_over() {
    let mut scene = Scene::start().await;
    scene.takes("1.0.0").await;
    tells(&scene.otactl(&["status"]).await, &["MANAGED"]);
    let roots = scene.roots();
    let out = ["--out", path(&roots)];

    // Nothing happens by a slip.
    tells(&scene.refused(2, &["keys", "adopt", "--threshold", "3", "--of", "2"]).await, &["3 of 2", "--threshold"]);
    tells(&scene.refused(2, &[&ADOPT[..], &out].concat()).await, &["Take the root keys over?", "--yes"]);
    let keys = ["keys", "drill", "--root-key", "nowhere.pem"];
    tells(&scene.refused(1, &keys).await, &["the server holds the root keys", "otactl keys adopt"]);
    assert!(!roots.exists());

    let told = scene.otactl(&[&ADOPT[..], &out, &["--yes"]].concat()).await;
    tells(&told, &["ADOPTED", "2 of 3"]);
    for number in 1..=3 {
        assert_eq!(fs::metadata(scene.root_key(number)).unwrap().permissions().mode() & 0o777, 0o600);
    }
    tells(&scene.otactl(&["status"]).await, &["ADOPTED"]);
    tells(&scene.otactl(&["keys", "status"]).await, &["ADOPTED", "2 of 3 keys", "yours, on this machine"]);
    scene.takes("2.0.0").await;
    // Also by a server that was started again since, without its root keys.
    scene.server.terminate().await;
    scene.server.restart().await;
    scene.takes("3.0.0").await;

    // The same again says the same; another can not.
    assert_eq!(scene.otactl(&[&ADOPT[..], &out, &["--yes"]].concat()).await, told);
    let elsewhere = scene.server.scratch().join("elsewhere");
    let words = scene.refused(1, &[&ADOPT[..], &["--yes", "--out", path(&elsewhere)]].concat()).await;
    tells(&words, &["not the server's any more", "otactl keys status"]);
    assert!(!elsewhere.exists());
    let more = ["keys", "adopt", "--threshold", "2", "--of", "4", "--yes"];
    let words = scene.refused(1, &[&more[..], &out].concat()).await;
    tells(&words, &["2 of 3 have to sign", "otactl keys rotate root"]);
    assert_eq!(fs::read_dir(&roots).unwrap().count(), 3);
}

#[tokio::test]
async fn any_two_of_three_root_key_files_are_enough_and_no_fewer() {
    let scene = Scene::adopted().await;
    let [one, two, three] = [1, 2, 3].map(|number| scene.root_key(number));
    let drill = ["keys", "drill", "--root-key"];
    tells(&scene.refused(1, &["keys", "drill"]).await, &["2 of the 3", "0 of them", "--root-key FILE"]);
    tells(&scene.refused(1, &[&drill[..], &[&one]].concat()).await, &["1 of them", "at hand", "missing"]);
    // The same file twice is one key.
    let twice = [&drill[..], &[&one, "--root-key", &one]].concat();
    tells(&scene.refused(1, &twice).await, &["1 of them"]);

    // Files that are something else.
    let own = scene.own_key();
    let words = scene.refused(1, &[&drill[..], &[&one, "--root-key", path(&own)]].concat()).await;
    tells(&words, &["1 of them", "none of the root keys in use"]);
    let gone = scene.server.scratch().join("gone.pem");
    let words = scene.refused(1, &[&drill[..], &[&one, "--root-key", path(&gone)]].concat()).await;
    tells(&words, &["there is no key file", "gone.pem"]);
    let rubbish = scene.server.scratch().join("rubbish.pem");
    fs::write(&rubbish, "no key").unwrap();
    fs::set_permissions(&rubbish, fs::Permissions::from_mode(0o600)).unwrap();
    let words = scene.refused(1, &[&drill[..], &[&one, "--root-key", path(&rubbish)]].concat()).await;
    tells(&words, &["rubbish.pem is damaged", "PKCS#8"]);
    fs::set_permissions(&two, fs::Permissions::from_mode(0o644)).unwrap();
    let words = scene.refused(1, &[&drill[..], &[&one, "--root-key", &two]].concat()).await;
    tells(&words, &["others can read", "0644", "chmod 600"]);

    // One is lost for good.
    fs::remove_file(&two).unwrap();
    let before = scene.json(&["keys", "status"]).await;
    tells(&scene.otactl(&[&drill[..], &[&one, "--root-key", &three]].concat()).await, &["enough", "2 of 3"]);
    assert_eq!(scene.json(&["keys", "status"]).await, before, "a drill changed something");
    scene.otactl(&["keys", "renew", "--root-key", &one, "--root-key", &three]).await;
    scene.takes("1.0.0").await;
}
