//! Keys and signatures with the real programs: who takes them over, who replaces them, what is refused, and what devices
//! make of it, which nobody touches meanwhile.

#![expect(clippy::unwrap_used, reason = "a test ends at what it did not expect")]

mod adopt;
mod ceremony;
mod key_encryption_key;
mod offline;
mod people;
mod pkcs11;
mod release;
mod rotate;

use std::{
    fs,
    path::{Path, PathBuf},
};

use ota_e2e::{
    binaries::{run, succeed},
    process::{AgentProcess, ServerProcess},
};
use tokio::process::Command;

use crate::fleet;

/// A server, somebody who runs `otactl`, and a device.
struct Scene {
    server: ServerProcess,
    agent: AgentProcess,
    /// Where `otactl` calls, when that is not the server itself.
    url: Option<String>,
}

impl Scene {
    async fn start() -> Self {
        Self::with(ServerProcess::start().await).await
    }

    async fn with(server: ServerProcess) -> Self {
        let agent = fleet::enroll(&server, &server.url()).await;
        Self { server, agent, url: None }
    }

    /// One whose root keys are in files, two of three of which have to sign.
    async fn adopted() -> Self {
        let scene = Self::start().await;
        scene.adopt().await;
        scene
    }

    async fn adopt(&self) {
        let roots = self.roots();
        self.otactl(&["keys", "adopt", "--threshold", "2", "--of", "3", "--yes", "--out", path(&roots)]).await;
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let url = self.url.clone().unwrap_or_else(|| self.server.url());
        let mut command = fleet::otactl(&self.server, &url);
        command.args(arguments);
        command
    }

    /// Runs `otactl`, which has to succeed. Returns what it wrote to standard output.
    async fn otactl(&self, arguments: &[&str]) -> String {
        text(&succeed(&mut self.command(arguments)).await.stdout)
    }

    /// Runs `otactl`, which has to end with this exit code. Returns what it told the person.
    async fn refused(&self, code: i32, arguments: &[&str]) -> String {
        let output = run(&mut self.command(arguments)).await;
        let words = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}\n{words}", text(&output.stdout));
        words
    }

    async fn json(&self, arguments: &[&str]) -> serde_json::Value {
        fleet::otactl_json(&self.server, arguments).await
    }

    /// The folder of the root key files.
    fn roots(&self) -> PathBuf {
        self.server.scratch().join("roots")
    }

    fn root_key(&self, number: u32) -> String {
        path(&self.roots().join(format!("root-{number}.pem"))).to_owned()
    }

    /// The file of the key that signs releases.
    fn own_key(&self) -> PathBuf {
        let keys = fs::read_dir(self.server.scratch().join("ota/keys")).unwrap().map(|entry| entry.unwrap().path());
        let is_key = |file: &PathBuf| file.is_file() && file.extension().is_some_and(|end| end == "pem");
        keys.filter(is_key).min_by_key(|file| file.as_os_str().len()).unwrap()
    }

    /// Publishes a release and assigns it: the device, left alone, comes to run it.
    async fn takes(&self, version: &str) {
        let file = self.release(version);
        fleet::publish(&self.server, &file, version).await;
        fleet::assign(&self.server, version, &self.agent.name()).await;
        self.checks_in().await;
        self.runs(version);
    }

    /// Makes the file of a release.
    fn release(&self, version: &str) -> PathBuf {
        let file = self.server.scratch().join(format!("app-{version}"));
        fs::write(&file, version).unwrap();
        file
    }

    async fn checks_in(&self) {
        let output = self.agent.once().await;
        assert!(output.status.success(), "{}", text(&output.stderr));
    }

    fn runs(&self, version: &str) {
        assert_eq!(fs::read_to_string(self.agent.current("app").join("app")).unwrap(), version);
    }

    /// The ids of the keys of a role, as `otactl keys status` shows them.
    async fn keys_of(&self, repository: &str, role: &str) -> Vec<String> {
        let status = self.json(&["keys", "status"]).await;
        let roles = status["roles"].as_array().unwrap();
        let role = roles.iter().find(|one| one["repository"] == repository && one["role"] == role).unwrap();
        let keys = role["keys"].as_array().unwrap();
        keys.iter().map(|key| key["keyId"].as_str().unwrap().to_owned()).collect()
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Asserts that a person is told all of this.
fn tells(words: &str, parts: &[&str]) {
    for part in parts {
        assert!(words.contains(part), "{part:?} is not in:\n{words}");
    }
}
