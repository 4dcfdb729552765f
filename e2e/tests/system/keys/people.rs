//! `otactl keys add` and `keys remove`: whose keys sign releases.

use ota_domain::role::Role;
use ota_e2e::binaries::{run, succeed};
use tokio::process::Command;

use super::{Scene, tells, text};
use crate::fleet;

/// Somebody who publishes, with a machine and a key of their own.
struct Friend {
    token: String,
    url: String,
}

impl Friend {
    async fn join(scene: &Scene) -> Self {
        let operator = scene.server.admin().appoint(Role::Publisher).await;
        Self { token: operator.bearer().token().unwrap().to_owned(), url: scene.server.url() }
    }

    fn upload(&self, scene: &Scene, version: &str) -> Command {
        let mut command = Command::new(&ota_e2e::Binaries::get().otactl);
        command
            .env("OTACTL_CONFIG", scene.server.scratch().join("friend/otactl.toml"))
            .env("OTACTL_TOKEN", &self.token);
        command.args(["--no-input", "--server", &self.url, "--ca-file"]).arg(scene.server.authority_file());
        command.arg("upload").arg(scene.release(version)).args(["--package", "app", "--version", version]);
        command
    }

    /// What they are told when they may not sign.
    async fn refused(&self, scene: &Scene, version: &str) -> String {
        let output = run(&mut self.upload(scene, version)).await;
        let words = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{words}");
        words
    }
}

/// The first word after another.
fn after<'a>(words: &'a str, before: &str) -> &'a str {
    words.split_once(before).unwrap().1.split_whitespace().next().unwrap()
}

#[tokio::test]
async fn whose_key_signs_is_said_by_admins_and_then_by_those_who_hold_the_root_keys() {
    let scene = Scene::start().await;
    let friend = Friend::join(&scene).await;
    let words = friend.refused(&scene, "1.0.0").await;
    tells(&words, &["may not sign releases yet", "an administrator can: otactl keys add"]);
    let (key, id) = (after(&words, "otactl keys add ").to_owned(), after(&words, "your key ").to_owned());
    tells(&scene.refused(2, &["keys", "add", "AAAA", "--yes"]).await, &["PUBLIC-KEY"]);
    tells(&scene.refused(2, &["keys", "add", "!", "--yes"]).await, &["base64"]);
    tells(&scene.refused(2, &["keys", "add", &key]).await, &[&id, "--yes"]);
    tells(&scene.otactl(&["keys", "add", &key, "--yes"]).await, &[&id]);
    succeed(&mut friend.upload(&scene, "1.0.0")).await;
    fleet::assign(&scene.server, "1.0.0", &scene.agent.name()).await;
    scene.checks_in().await;
    scene.runs("1.0.0");

    // Who takes the root keys over keeps the people.
    scene.adopt().await;
    succeed(&mut friend.upload(&scene, "2.0.0")).await;
    let (one, two) = (scene.root_key(1), scene.root_key(2));
    let root_keys = ["--root-key", &one, "--root-key", &two];
    let mut keys = scene.keys_of("REPOSITORY_IMAGE", "targets").await;
    assert_eq!(keys.len(), 2, "{keys:?}");
    keys.retain(|key| *key != id);
    let remove = |id: &str| ["keys", "remove", id, "--yes"].map(str::to_owned);
    let refused = async |code: i32, id: &str| {
        let arguments = remove(id);
        scene.refused(code, &arguments.iter().map(String::as_str).collect::<Vec<_>>()).await
    };
    tells(&refused(2, &keys[0]).await, &["your own key", "otactl keys rotate targets"]);
    tells(&refused(2, "abc").await, &["6 to 64 hexadecimal digits"]);
    tells(&refused(1, &"0".repeat(64)).await, &["no key that signs releases", "otactl keys status"]);
    tells(&refused(1, &id[..12]).await, &["2 of the 3 root keys", "--root-key"]);
    succeed(&mut friend.upload(&scene, "2.1.0")).await;
    scene.otactl(&[&["keys", "remove", &id[..12], "--yes"][..], &root_keys].concat()).await;
    assert_eq!(scene.keys_of("REPOSITORY_IMAGE", "targets").await, keys);
    tells(&friend.refused(&scene, "3.0.0").await, &["may not sign releases here", "otactl keys add"]);

    // What the friend had signed goes on to be good: somebody who stays signed it again.
    fleet::assign(&scene.server, "2.0.0", &scene.agent.name()).await;
    scene.checks_in().await;
    scene.runs("2.0.0");
    tells(&scene.refused(1, &["keys", "add", &key, "--yes"]).await, &["2 of the 3 root keys", "--root-key"]);
    scene.otactl(&[&["keys", "add", &key, "--yes"][..], &root_keys].concat()).await;
    succeed(&mut friend.upload(&scene, "3.0.0")).await;
    fleet::assign(&scene.server, "3.0.0", &scene.agent.name()).await;
    scene.checks_in().await;
    scene.runs("3.0.0");
}
