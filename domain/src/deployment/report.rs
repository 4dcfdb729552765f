//! What a device's report may change.

use serde::{Deserialize, Serialize};

use super::{Failure, State};
use crate::{DeploymentId, PackageName, Sha256Digest, TrustFault, Violations, device::Running};

/// What a device can say of its own work: the states it may report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Progress {
    /// Fetching bytes.
    Downloading,
    /// Unpacking and switching.
    Installing,
    /// About to reboot.
    Rebooting,
    /// On trial.
    Verifying,
    /// Committed and running.
    Succeeded,
    /// Never switched.
    Failed,
    /// Switched, failed, undone.
    RolledBack,
    /// Refused.
    Rejected,
}

impl Progress {
    /// The deployment state it brings about.
    #[must_use]
    pub fn state(self) -> State {
        match self {
            Self::Downloading => State::Downloading,
            Self::Installing => State::Installing,
            Self::Rebooting => State::Rebooting,
            Self::Verifying => State::Verifying,
            Self::Succeeded => State::Succeeded,
            Self::Failed => State::Failed,
            Self::RolledBack => State::RolledBack,
            Self::Rejected => State::Rejected,
        }
    }

    /// Whether it says that the work came to nothing, and so has to say why.
    #[must_use]
    pub fn is_failure(self) -> bool {
        match self {
            Self::Failed | Self::RolledBack | Self::Rejected => true,
            Self::Downloading | Self::Installing | Self::Rebooting | Self::Verifying | Self::Succeeded => false,
        }
    }

    /// Whether the device has read from itself what it runs, because it may have changed.
    #[must_use]
    pub fn tells_running(self) -> bool {
        match self {
            Self::Succeeded | Self::RolledBack => true,
            Self::Downloading
            | Self::Installing
            | Self::Rebooting
            | Self::Verifying
            | Self::Failed
            | Self::Rejected => false,
        }
    }
}

/// What a device says of one of its deployments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Which one.
    pub deployment: DeploymentId,
    /// The attempt, as the check-in gave it.
    pub attempt: u32,
    /// Rises with every report of the attempt, from 1.
    pub sequence: u64,
    /// What the device is doing.
    pub progress: Progress,
    /// Bytes downloaded so far.
    pub bytes_done: u64,
    /// Why it did not work, when it did not.
    pub failure: Option<Failure>,
    /// Which check of signed metadata failed. Only with [`FailureCode::Trust`](super::FailureCode::Trust).
    pub trust_fault: Option<TrustFault>,
    /// What the device runs, when [`Progress::tells_running`].
    pub running: Vec<Running>,
}

impl Report {
    /// Notes what does not fit the release: `size_bytes` to download, and `payload` of `package` to run in the end.
    pub fn check(&self, size_bytes: u64, package: &PackageName, payload: Sha256Digest, violations: &mut Violations) {
        violations.require(
            self.bytes_done <= size_bytes,
            "bytes_done",
            format!("must be at most {size_bytes}, the size of the payload"),
        );
        let runs = self.running.iter().any(|running| running.package == *package && running.payload == payload);
        violations.require(
            runs || self.progress != Progress::Succeeded,
            "running",
            format!("must hold {package} with the payload {payload} when the deployment succeeded"),
        );
    }
}

/// The server's word on a deployment in progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Go on.
    Continue,
    /// Stop if nothing was switched yet.
    Abort,
}

/// Where a deployment stands in the order of reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Its state.
    pub state: State,
    /// Its attempt, from 1; 0 before the first grant.
    pub attempt: u32,
    /// The highest sequence reported in this attempt; 0 before the first.
    pub sequence: u64,
}

/// What a report does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// The deployment takes this state.
    Enter(State),
    /// Same state, fresh figures.
    Refresh,
    /// A repetition or a late comer: nothing changes, the device goes on.
    Ignore,
    /// The deployment has ended or began anew: nothing changes, the device stops.
    Stop,
}

impl Effect {
    /// What the device is told.
    #[must_use]
    pub fn verdict(self) -> Verdict {
        match self {
            Self::Enter(_) | Self::Refresh | Self::Ignore => Verdict::Continue,
            Self::Stop => Verdict::Abort,
        }
    }
}

/// Decides what a report with `attempt` and `sequence` of `progress` does to a deployment.
///
/// Reports may be lost, repeated and reordered. The highest sequence wins; an end is final. A device that repeats the
/// report that ended its deployment is not told to stop: it only has to hear that the report arrived.
#[must_use]
pub fn report(standing: Standing, attempt: u32, sequence: u64, progress: Progress) -> Effect {
    if attempt != standing.attempt || standing.state == State::Queued {
        return Effect::Stop;
    }
    if standing.state.is_ended() {
        return if standing.state == progress.state() { Effect::Ignore } else { Effect::Stop };
    }
    if sequence <= standing.sequence {
        Effect::Ignore
    } else if standing.state == progress.state() {
        Effect::Refresh
    } else {
        Effect::Enter(progress.state())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_progress() -> impl Strategy<Value = Progress> {
        prop::sample::select(vec![
            Progress::Downloading,
            Progress::Installing,
            Progress::Rebooting,
            Progress::Verifying,
            Progress::Succeeded,
            Progress::Failed,
            Progress::RolledBack,
            Progress::Rejected,
        ])
    }

    fn apply(standing: Standing, (attempt, sequence, progress): (u32, u64, Progress)) -> Standing {
        match report(standing, attempt, sequence, progress) {
            Effect::Enter(state) => Standing { state, sequence, ..standing },
            Effect::Refresh => Standing { sequence, ..standing },
            Effect::Ignore | Effect::Stop => standing,
        }
    }

    #[test]
    fn a_report_for_an_older_attempt_stops_the_device() {
        let standing = Standing { state: State::Downloading, attempt: 2, sequence: 1 };
        assert_eq!(report(standing, 1, 9, Progress::Succeeded), Effect::Stop);
    }

    #[test]
    fn repeating_the_final_report_is_acknowledged() {
        let standing = Standing { state: State::Succeeded, attempt: 1, sequence: 5 };
        assert_eq!(report(standing, 1, 5, Progress::Succeeded), Effect::Ignore);
        assert_eq!(report(standing, 1, 6, Progress::Failed), Effect::Stop);
    }

    proptest! {
        #[test]
        fn an_ended_deployment_never_changes(
            state in prop::sample::select(State::ALL.to_vec()), attempt in 0u32..3, sequence in 0u64..9,
            reports in prop::collection::vec((0u32..3, 0u64..9, any_progress()), 0..9),
        ) {
            let mut standing = Standing { state, attempt, sequence };
            for told in reports {
                let next = apply(standing, told);
                prop_assert!(!standing.state.is_ended() || next == standing);
                prop_assert!(next.sequence >= standing.sequence);
                standing = next;
            }
        }

        #[test]
        fn a_repeated_report_changes_nothing(
            attempt in 0u32..3, sequence in 1u64..9, progress in any_progress(), before in 0u64..9,
        ) {
            let standing = Standing { state: State::Granted, attempt: 1, sequence: before };
            let once = apply(standing, (attempt, sequence, progress));
            prop_assert_eq!(apply(once, (attempt, sequence, progress)), once);
        }
    }
}
