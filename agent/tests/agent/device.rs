//! A device: a data directory and the agent in it.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use ota_agent::agent::Agent;
use ota_agent::clock::Clock;
use ota_agent::config::Config;
use ota_agent::data_dir::DataDir;
use ota_agent::enroll::{Machine, enroll};
use tokio_util::sync::CancellationToken;

use crate::peer::Peer;

pub(crate) struct Device {
    folder: tempfile::TempDir,
    pub(crate) config: Config,
}

impl Device {
    /// Enrols a device at a server.
    pub(crate) async fn enrolled(peer: &Peer) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let string = peer.script().gate.string();
        let machine = Machine { hardware: "rpi4".parse().unwrap(), hardware_id: String::new() };
        let data = DataDir::open(folder.path()).unwrap();
        enroll(&data, peer.url.clone(), &Config::default(), &string, machine, &Clock::system()).await.unwrap();
        drop(data);
        Self::in_folder(folder)
    }

    /// Takes over a data directory.
    pub(crate) fn in_folder(folder: tempfile::TempDir) -> Self {
        let mut config = Config { data_dir: folder.path().to_owned(), ..Config::default() };
        config.limits.reserve_bytes = 0;
        config.hooks.health_interval = Duration::from_millis(10);
        Self { folder, config }
    }

    pub(crate) fn agent(&self, stop: &CancellationToken) -> Agent {
        Agent::open(self.config.clone(), stop.clone()).unwrap()
    }

    /// Starts the agent, lets it recover and do all that is offered at one check-in, and ends it.
    pub(crate) async fn round(&self) {
        let stop = CancellationToken::new();
        let mut agent = self.agent(&stop);
        agent.recover().await.unwrap();
        for offer in agent.check_in().await.unwrap().offers {
            agent.work_on(offer).await.unwrap();
        }
    }

    pub(crate) fn package(&self) -> PathBuf {
        self.folder.path().join("packages/app")
    }

    /// Reads a file of the release that runs.
    pub(crate) fn current(&self, file: &str) -> Option<String> {
        fs::read_to_string(self.package().join("current").join(file)).ok()
    }

    /// Returns what is left in the folder of releases beside finished ones.
    pub(crate) fn leftovers(&self) -> Vec<String> {
        let entries = fs::read_dir(self.package().join("releases")).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.starts_with('.')).collect()
    }

    /// Damages all that the agent remembers.
    pub(crate) fn lose_journal(&self) {
        for name in ["state.0", "state.1"] {
            let path = self.folder.path().join(name);
            if path.exists() {
                fs::write(path, b"garbage").unwrap();
            }
        }
    }
}
