//! Half an update: whenever the agent is killed, each package is all of its old release or all of its new one, and what is
//! left of the work is done at the next start. Packages that were ordered together are each such a whole; nothing says
//! that they change in the same moment.
//!
//! A power cut is more than a kill: that nothing is lost with what the system had not yet written is for
//! `agent::durable` and `sec_rollback_powercut`.

mod package;

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use ota_agent::{
    journal,
    machine::{Phase, State},
};
use ota_e2e::{Operator, TestServer, process::AgentProcess};
use ota_proto::admin::v1::{DeploymentState, DeviceList, EnrollToken, target::Choice};
use tempfile::TempDir;

use package::{PACKAGES, Trees};

/// How long a broken test takes to fail.
const LIMIT: Duration = Duration::from_secs(120);

/// When to kill the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moment {
    /// Some of the payload is there.
    Downloading,
    /// So many files of the tree are there.
    Unpacking(usize),
    /// The tree is there under its name; the old one still runs.
    Installed,
    /// While the release before, the new one, the new one's trial is at it: the hook kills the agent itself.
    Hook(&'static str),
    /// `current` points to the new one.
    Switched,
    /// The end is decided, the server may not know.
    Decided,
}

const MOMENTS: [Moment; 12] = [
    Moment::Downloading,
    Moment::Unpacking(1),
    Moment::Hook("stop"),
    Moment::Unpacking(12),
    Moment::Installed,
    Moment::Hook("start"),
    Moment::Unpacking(30),
    Moment::Switched,
    Moment::Hook("health"),
    Moment::Decided,
    Moment::Downloading,
    Moment::Hook("start"),
];

struct Fleet {
    admin: Operator,
    agent: AgentProcess,
    trees: Trees,
    _server: TestServer,
    _scratch: TempDir,
}

impl Fleet {
    /// A device that runs the first version of all packages.
    async fn start() -> Self {
        let server = TestServer::start().await;
        let admin = server.admin();
        let string = admin.enrollment_string(EnrollToken::default()).await;
        let agent = AgentProcess::enroll(&server.url(), &string).await;
        let scratch = TempDir::with_prefix("ota-trees-").expect("a scratch folder");
        let trees = Trees::new(scratch.path());
        let fleet = Self { admin, agent, trees, _server: server, _scratch: scratch };
        fleet.order(1).await;
        fleet.finish(1).await;
        fleet
    }

    /// Orders a version of all packages at once.
    async fn order(&self, version: u32) {
        for package in PACKAGES {
            let release = self.trees.publish(&self.admin, package, version).await;
            let choice = Choice::Devices(DeviceList { names: vec![self.agent.name()] });
            self.admin.create_rollout(&release, choice).await.expect("a release that is signed is assigned");
        }
    }

    /// Kills the agent at the moment. Whether that came before the work was done.
    async fn kill_at(&mut self, moment: Moment, version: u32) -> bool {
        if let Moment::Hook(hook) = moment {
            self.trees.arm(hook);
        }
        self.agent.start();
        let (data, begin) = (self.agent.data_dir().to_owned(), Instant::now());
        let hit = loop {
            assert!(begin.elapsed() < LIMIT, "the agent comes to no end");
            if self.agent.process().ended().is_some() {
                break true;
            }
            if is_reached(&data, moment) {
                break true;
            }
            if is_idle(&data) && PACKAGES.iter().all(|package| self.trees.runs(&self.agent, package, version)) {
                break false;
            }
            tokio::task::yield_now().await;
        };
        self.agent.kill();
        self.trees.disarm();
        hit
    }

    /// Asserts that each package is one of two versions, wholly. Returns how many are the new one.
    fn assert_whole(&self, version: u32, moment: Moment) -> usize {
        let is_new = |package: &str| {
            let is_new = self.trees.runs(&self.agent, package, version);
            let is_old = self.trees.runs(&self.agent, package, version - 1);
            assert!(is_new || is_old, "{package} is a mixture after a kill at {moment:?}: {:?}", self.agent.data_dir());
            is_new
        };
        PACKAGES.into_iter().filter(|package| is_new(package)).count()
    }

    /// Asserts that the package at work is still the old version where the agent noted that it had not come to the switch,
    /// and the new one where it noted that the switch was done.
    fn assert_as_noted(&self, version: u32, moment: Moment) {
        let Some(State { phase, .. }) = state(self.agent.data_dir()) else { return };
        let (job, due) = match &phase {
            Phase::Downloading { job, .. } | Phase::Verified { job, .. } => (job, version - 1),
            Phase::Trial { job, .. } => (job, version),
            Phase::Idle | Phase::Activating { .. } | Phase::Returning { .. } | Phase::Ended { .. } => return,
        };
        let package = job.release.package.as_str();
        assert!(
            self.trees.runs(&self.agent, package, due),
            "{package} is not {due} after a kill at {moment:?}: {phase:?}"
        );
    }

    /// Lets the agent do what is left, and asserts that all of it is there and told.
    async fn finish(&self, version: u32) {
        for _ in 0..3 {
            self.agent.once().await;
        }
        assert_eq!(
            PACKAGES.iter().filter(|package| self.trees.runs(&self.agent, package, version)).count(),
            PACKAGES.len()
        );
        let deployments = self.admin.deployments(&self.agent.name()).await;
        for deployment in deployments.iter().filter(|one| one.release.ends_with(&format!("/{version}.0.0"))) {
            assert_eq!(deployment.state(), DeploymentState::Succeeded, "{deployment:?}");
        }
        let running = self.admin.device(&self.agent.name()).await.running;
        assert!(running.iter().all(|running| running.version == format!("{version}.0.0")), "{running:?}");
        assert_eq!(running.len(), PACKAGES.len());
    }
}

fn state(data: &Path) -> Option<State> {
    match journal::peek(data).ok()? {
        journal::Found::Record(record) => Some(record.state),
        journal::Found::Nothing | journal::Found::Unreadable => None,
    }
}

fn is_idle(data: &Path) -> bool {
    state(data).is_some_and(|state| state.phase == Phase::Idle)
}

/// Looks at the disk alone: the agent does not know that it is watched.
fn is_reached(data: &Path, moment: Moment) -> bool {
    let Some(state) = state(data) else { return false };
    let releases = |package: &str| data.join("packages").join(package).join("releases");
    match (moment, &state.phase) {
        (Moment::Downloading, Phase::Downloading { job, .. }) => {
            let part = format!(".part-{}", job.release.payload.sha256);
            fs::metadata(releases(job.release.package.as_str()).join(part)).is_ok_and(|part| part.len() > 0)
        }
        (Moment::Unpacking(files), Phase::Verified { job, .. }) => {
            let tree = format!(".tmp-{}", job.release.payload.sha256);
            package::count_files(&releases(job.release.package.as_str()).join(tree)) >= files
        }
        (Moment::Installed, Phase::Activating { .. })
        | (Moment::Switched, Phase::Trial { .. })
        | (Moment::Decided, Phase::Ended { .. }) => true,
        _ => false,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_killed_at_any_step_leaves_each_package_old_or_new() {
    let mut fleet = Fleet::start().await;
    let mut hits = 0;
    for (version, moment) in (2..).zip(MOMENTS) {
        fleet.order(version).await;
        let hit = fleet.kill_at(moment, version).await;
        let new = fleet.assert_whole(version, moment);
        fleet.assert_as_noted(version, moment);
        println!("{moment:?}: {}, {new} of {} new", if hit { "killed" } else { "too late" }, PACKAGES.len());
        assert!(hit || !matches!(moment, Moment::Hook(_)), "{moment:?} was never run");
        hits += usize::from(hit);
        // And once more, wherever the work goes on.
        fleet.trees.arm("start");
        fleet.agent.once().await;
        fleet.trees.disarm();
        fleet.assert_whole(version, moment);
        fleet.finish(version).await;
    }
    assert!(hits >= MOMENTS.len() / 2, "only {hits} of {} kills came in time", MOMENTS.len());
}
