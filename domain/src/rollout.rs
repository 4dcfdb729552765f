//! A campaign that brings one release to some devices.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::{DeviceId, PackageName, RolloutId, Selector, Version, deployment};

mod selection;

pub use selection::{Candidate, Selection, SelectionError, select};

/// Most devices a rollout names one by one.
pub const MAX_NAMED_DEVICES: usize = 10_000;

/// Where a rollout stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "sqlx", derive(sqlx::Type), sqlx(type_name = "rollout_state", rename_all = "snake_case"))]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Granting deployments.
    Active,
    /// All deployments have ended.
    Completed,
    /// Ended by a person.
    Canceled,
}

/// Which devices a rollout is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// These very devices, in the order of their ids and none twice.
    Devices(Vec<DeviceId>),
    /// All accepted devices whose labels match and that the release fits.
    Selector(Selector),
    /// All accepted devices that the release fits.
    All,
}

/// What a person asks for: a release and the devices to bring it to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    /// The release's package.
    pub package: PackageName,
    /// The release's version.
    pub version: Version,
    /// Which devices.
    pub target: Target,
}

/// A rollout as people see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rollout {
    /// Its id.
    pub id: RolloutId,
    /// What was asked for.
    pub draft: Draft,
    /// Where it stands.
    pub state: State,
    /// Its deployments.
    pub counts: Counts,
    /// When it was created.
    pub created_at: DateTime<Utc>,
    /// Who created it.
    pub creator: String,
    /// When it ended.
    pub ended_at: Option<DateTime<Utc>>,
}

impl Rollout {
    /// What it waits for, one sentence each.
    #[must_use]
    pub fn waiting_on(&self) -> Vec<String> {
        let devices = |count: u64, one: &str, many: &str| match count {
            0 => None,
            1 => Some(format!("1 device {one}")),
            count => Some(format!("{count} devices {many}")),
        };
        let queued = devices(self.counts.queued, "has yet to check in", "have yet to check in");
        let at_work = devices(self.counts.in_progress, "is at work", "are at work");
        queued.into_iter().chain(at_work).collect()
    }
}

/// Deployments by what has become of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Waiting for the device to ask.
    pub queued: u64,
    /// The device was told or is at work.
    pub in_progress: u64,
    /// The device runs the release.
    pub succeeded: u64,
    /// Failed, rolled back, rejected or timed out.
    pub failed: u64,
    /// Canceled or superseded.
    pub canceled: u64,
}

impl Counts {
    /// Adds `count` deployments in `state`.
    pub fn add(&mut self, state: deployment::State, count: u64) {
        use deployment::State;
        let bucket = match state {
            State::Queued => &mut self.queued,
            State::Granted | State::Downloading | State::Installing | State::Rebooting | State::Verifying => {
                &mut self.in_progress
            }
            State::Succeeded => &mut self.succeeded,
            State::Failed | State::RolledBack | State::Rejected | State::TimedOut => &mut self.failed,
            State::Canceled | State::Superseded => &mut self.canceled,
        };
        *bucket += count;
    }

    /// All of them.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.queued + self.in_progress + self.succeeded + self.failed + self.canceled
    }
}

/// What a draft would do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preview {
    /// Devices that would be updated.
    pub devices: u64,
    /// Devices that match but that the release does not fit.
    pub unfit: u64,
    /// Those of `devices` that run the release already.
    pub current: u64,
    /// Some of the devices.
    pub samples: Vec<DeviceId>,
    /// Bytes to download, when none of the devices has any.
    pub download_bytes: u64,
}

/// How far the cancellation of a rollout reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CancelReach {
    /// Deployments that have not begun.
    NotBegun,
    /// Also those at work, as long as the device cannot have switched.
    NotSwitched,
}

impl CancelReach {
    /// Whether a deployment in `state` is canceled.
    #[must_use]
    pub fn covers(self, state: deployment::State) -> bool {
        match self {
            Self::NotBegun => matches!(state, deployment::State::Queued | deployment::State::Granted),
            Self::NotSwitched => !state.is_ended() && !state.may_have_switched(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_deployment_is_counted_once() {
        let mut counts = Counts::default();
        deployment::State::ALL.into_iter().for_each(|state| counts.add(state, 1));
        assert_eq!(counts, Counts { queued: 1, in_progress: 5, succeeded: 1, failed: 4, canceled: 2 });
        assert_eq!(counts.total(), 13);
    }

    #[test]
    fn a_forced_cancellation_spares_who_may_have_switched() {
        use deployment::State;
        let covered =
            |reach: CancelReach| State::ALL.into_iter().filter(|&state| reach.covers(state)).collect::<Vec<_>>();
        assert_eq!(covered(CancelReach::NotBegun), [State::Queued, State::Granted]);
        assert_eq!(covered(CancelReach::NotSwitched), [State::Queued, State::Granted, State::Downloading]);
    }

    #[test]
    fn a_rollout_says_what_it_waits_for() {
        let mut rollout = Rollout {
            id: RolloutId(uuid::Uuid::nil()),
            draft: Draft { package: "app".parse().unwrap(), version: "1.0.0".parse().unwrap(), target: Target::All },
            state: State::Active,
            counts: Counts { queued: 1, in_progress: 2, ..Counts::default() },
            created_at: DateTime::UNIX_EPOCH,
            creator: String::new(),
            ended_at: None,
        };
        assert_eq!(rollout.waiting_on(), ["1 device has yet to check in", "2 devices are at work"]);
        rollout.counts = Counts { succeeded: 3, ..Counts::default() };
        assert!(rollout.waiting_on().is_empty());
    }
}
