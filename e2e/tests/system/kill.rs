//! Power cuts: the agent or the server is killed at random moments of an update, again and again.
//!
//! Each test counts what goes over the wire, in a proxy between the two.
//!
//! `OTA_KILL_PAYLOAD_MIB` and `OTA_KILLS` set the size of the update and the number of kills; `OTA_KILL_SEED` repeats a
//! run. The full claim is 1,024 and 20.

use std::{ops::Range, path::PathBuf};

use ota_e2e::{
    CountingProxy, Operator, eventually,
    process::{AgentProcess, ServerProcess},
};
use ota_proto::admin::v1::DeploymentState;
use rand::{RngExt as _, SeedableRng as _, rngs::SmallRng};

use crate::fleet::{MIB, PATIENCE, assert_installed, assign, enroll, make_folder, publish, setting, succeeded};

/// Most bytes that may be sent again for each interruption.
const SENT_AGAIN: u64 = MIB;

/// When to kill.
#[derive(Debug, Clone, Copy)]
enum Moment {
    /// When so many bytes have come down.
    Bytes(u64),
    /// When the agent has unpacked so many files of the release, or is past that.
    Files(usize),
}

struct Update {
    server: ServerProcess,
    proxy: CountingProxy,
    agent: AgentProcess,
    operator: Operator,
    folder: PathBuf,
    size: u64,
    moments: Vec<Moment>,
}

impl Update {
    /// Publishes a release and enrols a device that reaches the server through a counting proxy.
    async fn prepare() -> Self {
        let size = setting("OTA_KILL_PAYLOAD_MIB", 64) * MIB;
        let kills = setting("OTA_KILLS", 5);
        let seed = setting("OTA_KILL_SEED", rand::random());
        eprintln!("OTA_KILL_SEED={seed} OTA_KILL_PAYLOAD_MIB={} OTA_KILLS={kills}", size / MIB);
        let server = ServerProcess::start().await;
        let proxy = CountingProxy::start(server.address()).await;
        let folder = make_folder(server.scratch(), size, seed);
        publish(&server, &folder, "1.0.0").await;
        let agent = enroll(&server, &proxy.url()).await;
        let operator = server.admin();
        let moments = moments(&mut SmallRng::seed_from_u64(seed), kills, 0..size);
        Self { server, proxy, agent, operator, folder, size, moments }
    }

    /// Lets the agent begin.
    async fn begin(&mut self) {
        assign(&self.server, "1.0.0", &self.agent.name()).await;
        self.agent.start();
    }

    async fn reached(&self, moment: Moment) {
        match moment {
            Moment::Bytes(bytes) => self.proxy.came_down(bytes).await,
            Moment::Files(files) => {
                eventually("the agent unpacks", PATIENCE, async || {
                    (self.unpacked() >= files || self.agent.current("app").exists()).then_some(())
                })
                .await;
            }
        }
    }

    /// Counts the files in the tree that the agent makes.
    fn unpacked(&self) -> usize {
        let releases = self.agent.data_dir().join("packages/app/releases");
        let entries = std::fs::read_dir(releases).into_iter().flatten().flatten();
        let trees = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(".tmp-"));
        trees.map(|tree| count_files(&tree.path())).max().unwrap_or(0)
    }

    /// Waits for the end and asserts all that is claimed of it.
    async fn finish(mut self, kills: usize) {
        succeeded(&self.operator, &self.agent.name()).await;
        assert_installed(&self.agent, &self.folder);
        let deployments = self.operator.deployments(&self.agent.name()).await;
        assert_eq!(deployments.len(), 1);
        assert_eq!(deployments[0].state(), DeploymentState::Succeeded);
        let device = self.operator.device(&self.agent.name()).await;
        assert_eq!(device.running[0].version, "1.0.0");
        self.agent.terminate().await;

        let total = self.proxy.down();
        let again = total.saturating_sub(self.size + overhead(self.size));
        eprintln!(
            "{kills} kills: {total} bytes for a payload of {}, at least {again} of them again, {} for each kill",
            self.size,
            again / kills as u64
        );
        assert!(again <= kills as u64 * SENT_AGAIN, "{again} bytes were sent again over {kills} kills");
    }
}

/// What comes beside a payload's bytes: 9 bytes for a frame of 16,384, some 30 for a message of 262,144, the other
/// answers, and that the payload is a tar, with its headers.
fn overhead(size: u64) -> u64 {
    size / 1_000 + 128 * 1024
}

fn count_files(folder: &std::path::Path) -> usize {
    let mut count = 0;
    // The folder is being written and may go at any time.
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        count += if entry.path().is_dir() { count_files(&entry.path()) } else { 1 };
    }
    count
}

/// Most of the time goes by with the download, and so do most of the kills.
fn moments(rng: &mut SmallRng, kills: usize, size: Range<u64>) -> Vec<Moment> {
    const FILES: Range<usize> = 0..48;
    let unpacking = kills / 3;
    let mut bytes: Vec<u64> = (unpacking..kills).map(|_| rng.random_range(size.clone())).collect();
    bytes.sort_unstable();
    let mut files: Vec<usize> = (0..unpacking).map(|_| rng.random_range(FILES)).collect();
    files.sort_unstable();
    bytes.into_iter().map(Moment::Bytes).chain(files.into_iter().map(Moment::Files)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_killed_again_and_again_ends_with_the_right_tree() {
    let mut update = Update::prepare().await;
    update.begin().await;
    let moments = update.moments.clone();
    for moment in &moments {
        update.reached(*moment).await;
        update.agent.kill();
        update.agent.start();
    }
    update.finish(moments.len()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_killed_again_and_again_loses_nothing() {
    let mut update = Update::prepare().await;
    update.begin().await;
    let moments = update.moments.clone();
    for moment in &moments {
        update.reached(*moment).await;
        update.server.kill();
        update.server.restart().await;
    }
    update.finish(moments.len()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_single_kill_costs_more_than_a_mebibyte() {
    const SIZE: u64 = 12 * MIB;
    const ROUNDS: u64 = 6;
    let mut rng = SmallRng::seed_from_u64(setting("OTA_KILL_SEED", rand::random()));
    let mut server = ServerProcess::start().await;
    let operator = server.admin();
    let proxy = CountingProxy::start(server.address()).await;
    let mut agent = enroll(&server, &proxy.url()).await;
    agent.start();
    for round in 1..=ROUNDS {
        let folder = make_folder(server.scratch(), SIZE, round);
        let version = format!("{round}.0.0");
        publish(&server, &folder, &version).await;
        let before = proxy.down();
        let moment = before + rng.random_range(0..SIZE);
        assign(&server, &version, &agent.name()).await;
        proxy.came_down(moment).await;
        if round % 2 == 0 {
            server.kill();
            server.restart().await;
        } else {
            agent.kill();
            agent.start();
        }
        succeeded(&operator, &agent.name()).await;
        assert_installed(&agent, &folder);
        let came = proxy.down() - before;
        eprintln!("round {round}: killed after {} bytes, {came} bytes for a payload of {SIZE}", moment - before);
        assert!(came <= SIZE + overhead(SIZE) + SENT_AGAIN, "{came} bytes came for a payload of {SIZE}");
    }
}
