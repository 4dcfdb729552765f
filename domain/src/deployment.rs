//! One device's journey in one rollout: its states, and what a report may change.
//!
//! ```text
//! queued ─► granted ─► downloading ─► installing ─► rebooting ─► verifying ─► succeeded
//!    │         │            │              │             │            ├─────► rolled back
//!    │         └────────────┴──────────────┴─────────────┴────────────┴─────► failed, rejected
//!    └─ any that has not ended ────────────────────► canceled, superseded, timed out
//! ```
//! A device may skip states forward and may go back to downloading when it starts over; an ended deployment stays as it is.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::{DeploymentId, DeviceId, PackageName, RolloutId, Version, filter};

mod failure;
mod report;

pub use failure::{Failure, FailureCode, MAX_LOG_TAIL_BYTES, MAX_MESSAGE_CHARS, ParseFailureCodeError};
pub use report::{Effect, Progress, Report, Standing, Verdict, report};

/// Where a deployment stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "sqlx", derive(sqlx::Type), sqlx(type_name = "deployment_state", rename_all = "snake_case"))]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Waits for the device to ask.
    Queued,
    /// The device was told.
    Granted,
    /// The device fetches bytes.
    Downloading,
    /// The device unpacks and switches.
    Installing,
    /// The device reboots.
    Rebooting,
    /// The release runs on trial.
    Verifying,
    /// The device runs the release.
    Succeeded,
    /// The release was never switched to.
    Failed,
    /// The release was switched to, failed and was undone.
    RolledBack,
    /// The device or a person at it refused.
    Rejected,
    /// A deadline passed.
    TimedOut,
    /// A person or an abort rule ended it.
    Canceled,
    /// A newer deployment of the same package took its place.
    Superseded,
}

impl State {
    /// All states.
    pub const ALL: [Self; 13] = [
        Self::Queued,
        Self::Granted,
        Self::Downloading,
        Self::Installing,
        Self::Rebooting,
        Self::Verifying,
        Self::Succeeded,
        Self::Failed,
        Self::RolledBack,
        Self::Rejected,
        Self::TimedOut,
        Self::Canceled,
        Self::Superseded,
    ];

    /// The states that have not ended.
    pub fn open() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(|state| !state.is_ended())
    }

    /// The name the database, the events and the filters use.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Granted => "granted",
            Self::Downloading => "downloading",
            Self::Installing => "installing",
            Self::Rebooting => "rebooting",
            Self::Verifying => "verifying",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::RolledBack => "rolled_back",
            Self::Rejected => "rejected",
            Self::TimedOut => "timed_out",
            Self::Canceled => "canceled",
            Self::Superseded => "superseded",
        }
    }

    /// Whether nothing changes it any more.
    #[must_use]
    pub fn is_ended(self) -> bool {
        match self {
            Self::Queued | Self::Granted | Self::Downloading | Self::Installing | Self::Rebooting | Self::Verifying => {
                false
            }
            Self::Succeeded
            | Self::Failed
            | Self::RolledBack
            | Self::Rejected
            | Self::TimedOut
            | Self::Canceled
            | Self::Superseded => true,
        }
    }

    /// Whether the device may already run the release, so that the server cannot take the deployment back.
    #[must_use]
    pub fn may_have_switched(self) -> bool {
        match self {
            Self::Installing | Self::Rebooting | Self::Verifying | Self::Succeeded | Self::RolledBack => true,
            Self::Queued
            | Self::Granted
            | Self::Downloading
            | Self::Failed
            | Self::Rejected
            | Self::TimedOut
            | Self::Canceled
            | Self::Superseded => false,
        }
    }
}

/// The fields by which deployments are listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// Where the deployment stands.
    State,
    /// The release's package.
    Package,
}

impl filter::Field for Field {
    const ALL: &'static [Self] = &[Self::State, Self::Package];

    fn name(self) -> &'static str {
        match self {
            Self::State => "state",
            Self::Package => "package",
        }
    }

    fn values(self) -> Option<Vec<&'static str>> {
        match self {
            Self::State => Some(State::ALL.map(State::as_str).to_vec()),
            Self::Package => None,
        }
    }
}

/// A deployment as people see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deployment {
    /// Its id.
    pub id: DeploymentId,
    /// The rollout it is part of.
    pub rollout: RolloutId,
    /// The device.
    pub device: DeviceId,
    /// The release's package.
    pub package: PackageName,
    /// The release's version.
    pub version: Version,
    /// Where it stands.
    pub state: State,
    /// Which try it is, from 1; 0 before the first.
    pub attempt: u32,
    /// Bytes downloaded so far.
    pub bytes_done: u64,
    /// Bytes to download.
    pub bytes_total: u64,
    /// Why it did not work.
    pub failure: Option<Failure>,
    /// When it was created.
    pub created_at: DateTime<Utc>,
    /// When it last changed.
    pub updated_at: DateTime<Utc>,
    /// When it ended.
    pub ended_at: Option<DateTime<Utc>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_device_that_may_have_switched_is_beyond_recall() {
        let recallable: Vec<State> =
            State::ALL.into_iter().filter(|state| !state.is_ended() && !state.may_have_switched()).collect();
        assert_eq!(recallable, [State::Queued, State::Granted, State::Downloading]);
    }
}
