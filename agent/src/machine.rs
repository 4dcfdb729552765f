//! Decides what the agent does next. Pure: a state and an event in, a state and effects out.
//!
//! The driver saves the returned state before it runs the effects, so after a crash every effect may run a second time
//! and has to come out the same. Nothing here reads a clock, a disk or the network. `recover` is the other half: what
//! to do with a state that was found saved.

mod recovery;
#[cfg(test)]
mod tests;

use std::fmt;
use std::mem::discriminant;

use ota_domain::DeploymentId;
use serde::{Deserialize, Serialize};

use crate::failure::{Failure, FailureCode, failure};
use crate::release::{Job, Release};
pub use recovery::{Found, recover};

/// How many starts of the agent a release on trial survives before it is undone. A trial that ends, well or badly,
/// ends it at once; this bounds releases that bring the whole machine down.
pub const TRIAL_STARTS: u32 = 3;

/// How often going back is tried again when the disk refuses.
const RETURN_TRIES: u32 = 5;

/// How often a payload may be lost between the check and the install. Once is a power cut; more is a bad disk.
const MAX_LOSSES: u32 = 2;

/// How many ended deployments are remembered, so that one offered again is answered and not repeated.
const SETTLED_KEPT: usize = 32;

/// All that the agent has to remember across a power cut, but for what the disk itself shows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// The work at hand.
    pub phase: Phase,
    /// Starts of the agent that brought the phase no further. Whatever is added here later needs a default as well: a
    /// newer agent has to understand the journal of an older one.
    #[serde(default)]
    pub starts: u32,
    /// How earlier deployments ended, the latest last.
    pub settled: Vec<Settled>,
    /// The record was lost; set until the next deployment has been answered with care.
    pub journal_lost: bool,
}

/// Where the work at hand is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "name")]
pub enum Phase {
    /// No work.
    #[default]
    Idle,
    /// Fetching the payload. Nothing is changed.
    Downloading {
        /// The work.
        job: Job,
        /// What runs.
        from: Option<Release>,
        /// How often a complete payload was lost again.
        losses: u32,
        /// Bytes on disk at the last start.
        bytes_at_start: u64,
    },
    /// The payload is complete and checked; making its tree. Nothing that runs is changed.
    Verified {
        /// The work.
        job: Job,
        /// What runs.
        from: Option<Release>,
        /// How often a complete payload was lost again.
        losses: u32,
    },
    /// The tree is complete; stopping the old release and switching to the new one.
    Activating {
        /// The work.
        job: Job,
        /// What ran before.
        from: Option<Release>,
    },
    /// The new release is switched to and has to prove itself.
    Trial {
        /// The work.
        job: Job,
        /// What ran before.
        from: Option<Release>,
        /// Starts of the agent that are left to the trial.
        starts_left: u32,
    },
    /// Going back to what ran before.
    Returning {
        /// The work.
        job: Job,
        /// Where to go back to.
        from: Option<Release>,
        /// Why.
        failure: Failure,
        /// The new release had been switched to.
        switched: bool,
        /// Tries that are left.
        tries_left: u32,
    },
    /// The end is decided and on disk; the server does not know yet.
    Ended {
        /// The work.
        job: Job,
        /// The end.
        outcome: Outcome,
    },
}

/// How a deployment ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "name", content = "failure")]
pub enum Outcome {
    /// The release runs and stays.
    Committed,
    /// The release was switched to and undone.
    RolledBack(Failure),
    /// The release was never switched to.
    Failed(Failure),
    /// A person refused before anything began.
    Rejected(Failure),
    /// The server called it off before anything was switched.
    Canceled,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Committed => write!(f, "succeeded"),
            Self::RolledBack(failure) => write!(f, "rolled back: {}", failure.message),
            Self::Failed(failure) => write!(f, "failed: {}", failure.message),
            Self::Rejected(failure) => write!(f, "rejected: {}", failure.message),
            Self::Canceled => write!(f, "called off by the server"),
        }
    }
}

/// One deployment that ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settled {
    /// The deployment.
    pub deployment: DeploymentId,
    /// The attempt that ended so.
    pub attempt: u32,
    /// The release that it was about.
    pub release: Release,
    /// The end.
    pub outcome: Outcome,
    /// There was no network to tell the server by; it is told when there is one.
    #[serde(default)]
    pub is_untold: bool,
}

/// What is on the device of the release that is offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Present {
    /// Nothing.
    Nothing,
    /// A whole tree that is not switched to.
    Tree,
    /// It runs already.
    Running,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The server wants this done.
    Offered {
        /// The work.
        job: Job,
        /// What runs, or ran before when the offered release runs already.
        from: Option<Release>,
        /// What is there of it.
        present: Present,
        /// Why this device must not do it.
        unfit: Option<Failure>,
    },
    /// A person said no to the work.
    Refused {
        /// The work.
        job: Job,
    },
    /// The payload is complete and hashes to its name.
    Downloaded,
    /// The payload cannot be fetched.
    DownloadFailed(Failure),
    /// The server called the work off.
    Aborted,
    /// The release's tree is complete on disk.
    Installed,
    /// The payload is no longer what it was when it was checked.
    PayloadLost,
    /// The tree cannot be made.
    InstallFailed(Failure),
    /// The device does not believe, or no longer believes, that it may switch to the release.
    Forbidden(Failure),
    /// The tree found after a restart is whole.
    TreeWhole,
    /// The tree found after a restart is damaged or gone.
    TreeDamaged,
    /// The old release is stopped and the new one switched to.
    Activated,
    /// The switch did not work.
    ActivationFailed {
        /// Why.
        failure: Failure,
        /// The new release is switched to nevertheless.
        switched: bool,
    },
    /// The new release runs and is healthy.
    Healthy,
    /// The new release does not start or is not healthy.
    Unhealthy(Failure),
    /// What ran before is switched to.
    Returned {
        /// What went wrong on the way, if anything.
        trouble: Option<String>,
    },
    /// The disk refused to switch back.
    ReturnFailed,
    /// The server knows the end, or will never want to.
    Acknowledged,
    /// There is no network: the server is told later.
    PutOff,
    /// The server knows the end that was put off, or will never want to.
    Told {
        /// The deployment that ended.
        deployment: DeploymentId,
    },
}

/// What the driver has to do. Every effect may run twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Fetch the payload, from where the part on disk ends.
    Download,
    /// Delete the part and whatever was made of it.
    DropDownload,
    /// Tell the server that the install begins. May fail.
    ReportInstalling,
    /// Make the tree, or find that it is there.
    Install,
    /// Look whether the tree is whole.
    CheckTree,
    /// Point `current` back, if it was switched, and delete the damaged tree.
    DropTree,
    /// Stop the old release, point `previous` at it and `current` at the new one.
    Activate,
    /// Start the new release and wait for its health, telling the server so.
    Try,
    /// Stop the new release, point `current` back, start the old one.
    Return,
    /// Delete releases that are neither current nor previous, and what is left of downloads.
    CollectGarbage,
    /// Tell the server the end until it has heard it; nothing to tell when it called the work off itself.
    Announce,
}

/// Moves on by one event. An event that does not belong to the state changes nothing.
pub fn step(state: State, event: Event) -> (State, Vec<Effect>) {
    let State { phase, starts, mut settled, journal_lost } = state;
    let before = discriminant(&phase);
    let (phase, effects) = match (phase, event) {
        (Phase::Idle, Event::Offered { job, from, present, unfit }) => {
            offered(job, from, present, unfit, &settled, journal_lost)
        }
        (Phase::Idle, Event::Refused { job }) => {
            let failure = failure(FailureCode::Refused, "a person at the device refused the update");
            end(job, Outcome::Rejected(failure))
        }
        (Phase::Downloading { job, from, losses, .. }, Event::Downloaded) => {
            (Phase::Verified { job, from, losses }, vec![Effect::ReportInstalling, Effect::Install])
        }
        (Phase::Downloading { job, .. }, Event::DownloadFailed(failure))
        | (Phase::Verified { job, .. }, Event::InstallFailed(failure)) => fail(job, failure),
        (Phase::Downloading { job, .. } | Phase::Verified { job, .. }, Event::Aborted) => {
            (Phase::Ended { job, outcome: Outcome::Canceled }, vec![Effect::DropDownload, Effect::Announce])
        }
        (Phase::Verified { job, from, .. }, Event::Installed) => {
            (Phase::Activating { job, from }, vec![Effect::Activate])
        }
        (Phase::Verified { job, losses: MAX_LOSSES.., .. }, Event::PayloadLost) => {
            fail(job, failure(FailureCode::Checksum, "the disk does not keep the payload as it was written"))
        }
        (Phase::Verified { job, from, losses }, Event::PayloadLost) => {
            (download(job, from, losses + 1), vec![Effect::DropDownload, Effect::Download])
        }
        (phase @ Phase::Activating { .. }, Event::TreeWhole) => (phase, vec![Effect::Activate]),
        (Phase::Activating { job, from }, Event::TreeDamaged) => {
            (download(job, from, 0), vec![Effect::DropTree, Effect::Download])
        }
        (Phase::Activating { job, from }, Event::Activated) => {
            (Phase::Trial { job, from, starts_left: TRIAL_STARTS }, vec![Effect::Try])
        }
        // The old release was not touched, so there is nothing to go back from. The tree stays: what expired during a
        // slow download may be signed anew, and the next attempt begins here.
        (Phase::Activating { job, .. }, Event::Forbidden(failure)) => {
            (Phase::Ended { job, outcome: Outcome::Failed(failure) }, vec![Effect::Announce])
        }
        (Phase::Activating { job, from }, Event::ActivationFailed { failure, switched }) => {
            go_back(job, from, failure, switched)
        }
        (Phase::Trial { job, .. }, Event::Healthy) => end(job, Outcome::Committed),
        (Phase::Trial { job, from, .. }, Event::Unhealthy(failure)) => go_back(job, from, failure, true),
        (Phase::Returning { job, mut failure, switched, .. }, Event::Returned { trouble }) => {
            if let Some(trouble) = trouble {
                failure.message = format!("{}; going back: {trouble}", failure.message);
            }
            end(job, if switched { Outcome::RolledBack(failure) } else { Outcome::Failed(failure) })
        }
        (Phase::Returning { job, from, mut failure, switched, tries_left }, Event::ReturnFailed) => {
            if tries_left > 1 {
                let tries_left = tries_left - 1;
                (Phase::Returning { job, from, failure, switched, tries_left }, vec![Effect::Return])
            } else {
                failure.message = format!("could not go back after: {}", failure.message);
                end(job, Outcome::Failed(failure))
            }
        }
        (Phase::Ended { job, outcome }, event @ (Event::Acknowledged | Event::PutOff)) => {
            return (settle(settled, job, outcome, event == Event::PutOff), Vec::new());
        }
        (phase, Event::Told { deployment }) => {
            for known in settled.iter_mut().filter(|known| known.deployment == deployment) {
                known.is_untold = false;
            }
            (phase, Vec::new())
        }
        (phase, _) => (phase, Vec::new()),
    };
    let starts = if discriminant(&phase) == before { starts } else { 0 };
    (State { phase, starts, settled, journal_lost }, effects)
}

fn offered(
    job: Job,
    from: Option<Release>,
    present: Present,
    unfit: Option<Failure>,
    settled: &[Settled],
    journal_lost: bool,
) -> (Phase, Vec<Effect>) {
    // The server did not hear the end, or asks again: the answer is the same, the work is not done again.
    if let Some(known) = settled.iter().rev().find(|known| known.deployment == job.deployment)
        && known.attempt >= job.attempt
        && known.outcome != Outcome::Canceled
    {
        return end(job, known.outcome.clone());
    }
    if let Some(failure) = unfit {
        return end(job, Outcome::Failed(failure));
    }
    match present {
        // It may have been on trial when the record was lost, so it has to prove itself once more.
        Present::Running if journal_lost => (Phase::Trial { job, from, starts_left: TRIAL_STARTS }, vec![Effect::Try]),
        Present::Running => end(job, Outcome::Committed),
        Present::Tree | Present::Nothing if journal_lost => {
            let failure = failure(
                FailureCode::JournalLost,
                "the agent lost its record of the work; it stays with what runs and waits for the next attempt",
            );
            end(job, Outcome::Failed(failure))
        }
        Present::Tree => (Phase::Activating { job, from }, vec![Effect::ReportInstalling, Effect::Activate]),
        Present::Nothing => (download(job, from, 0), vec![Effect::Download]),
    }
}

fn download(job: Job, from: Option<Release>, losses: u32) -> Phase {
    Phase::Downloading { job, from, losses, bytes_at_start: 0 }
}

fn fail(job: Job, failure: Failure) -> (Phase, Vec<Effect>) {
    (Phase::Ended { job, outcome: Outcome::Failed(failure) }, vec![Effect::DropDownload, Effect::Announce])
}

fn go_back(job: Job, from: Option<Release>, failure: Failure, switched: bool) -> (Phase, Vec<Effect>) {
    (Phase::Returning { job, from, failure, switched, tries_left: RETURN_TRIES }, vec![Effect::Return])
}

fn end(job: Job, outcome: Outcome) -> (Phase, Vec<Effect>) {
    (Phase::Ended { job, outcome }, vec![Effect::CollectGarbage, Effect::Announce])
}

fn settle(mut settled: Vec<Settled>, job: Job, outcome: Outcome, is_untold: bool) -> State {
    settled.retain(|known| known.deployment != job.deployment);
    let Job { deployment, attempt, release, .. } = job;
    settled.push(Settled { deployment, attempt, release, outcome, is_untold });
    let surplus = settled.len().saturating_sub(SETTLED_KEPT);
    settled.drain(..surplus);
    State { phase: Phase::Idle, starts: 0, settled, journal_lost: false }
}

impl Phase {
    /// Returns the work at hand.
    pub fn job(&self) -> Option<&Job> {
        match self {
            Self::Idle => None,
            Self::Downloading { job, .. }
            | Self::Verified { job, .. }
            | Self::Activating { job, .. }
            | Self::Trial { job, .. }
            | Self::Returning { job, .. }
            | Self::Ended { job, .. } => Some(job),
        }
    }

    /// Returns what ran before the work at hand, as far as it still matters.
    pub fn from(&self) -> Option<&Release> {
        match self {
            Self::Idle | Self::Ended { .. } => None,
            Self::Downloading { from, .. }
            | Self::Verified { from, .. }
            | Self::Activating { from, .. }
            | Self::Trial { from, .. }
            | Self::Returning { from, .. } => from.as_ref(),
        }
    }
}
