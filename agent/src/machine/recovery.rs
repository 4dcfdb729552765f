//! What to do with a state found saved when the agent starts: the recovery table, total over all phases.
//!
//! | saved | found | then | ends with |
//! |---|---|---|---|
//! | nothing readable | what runs | stay, answer the next offer with care | old |
//! | Downloading | part of any length | resume | old |
//! | Verified | leftovers of unpacking | make the tree again | old |
//! | Activating | `current` old or new | look at the tree: whole, then switch again; damaged, then fetch again | new or old |
//! | Trial, starts left | `current` new | count the start, try again | new or old |
//! | Trial, none left | `current` new | go back | old |
//! | Returning | anything | go back again | old |
//! | Ended | leftovers | collect garbage, tell the server | as is |
//!
//! Downloading, Verified and Activating end as a failure after too many starts that brought them no further. A saved state
//! may also be one step behind the disk, when the newest generation of the journal was damaged. Then what
//! `current` points at tells.

use ota_domain::Sha256Digest;

use super::{Effect, Phase, State, end, go_back};
use crate::failure::{FailureCode, failure};

/// How many starts of the agent a phase before the trial survives without getting further. What brings the agent down
/// each time must not do so for ever.
const STARTS: u32 = 30;

/// What the disk shows of the work at hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// The payload that `current` points at.
    pub current: Option<Sha256Digest>,
    /// Length of the downloaded part.
    pub part_bytes: u64,
}

/// Decides how to go on from a saved state. Pure, like `step`.
pub fn recover(saved: State, found: Found) -> (State, Vec<Effect>) {
    let State { phase, starts, settled, journal_lost } = saved;
    let is_switched = phase.job().is_some_and(|job| found.current == Some(job.release.payload.sha256));
    let starts = if has_grown(&phase, found) { 0 } else { starts.saturating_add(1) };
    let is_stuck = starts > STARTS;
    let stuck = || failure(FailureCode::TriesExhausted, format!("{STARTS} starts of the agent brought it no further"));
    let (phase, effects) = match phase {
        Phase::Idle => (Phase::Idle, Vec::new()),
        Phase::Downloading { job, from, .. } | Phase::Verified { job, from, .. } if is_switched => {
            (Phase::Activating { job, from }, vec![Effect::CheckTree])
        }
        Phase::Downloading { job, .. } | Phase::Verified { job, .. } if is_stuck => super::fail(job, stuck()),
        Phase::Downloading { job, from, losses, .. } => {
            let bytes_at_start = found.part_bytes;
            (Phase::Downloading { job, from, losses, bytes_at_start }, vec![Effect::Download])
        }
        phase @ Phase::Verified { .. } => (phase, vec![Effect::Install]),
        Phase::Activating { job, from } if is_stuck => go_back(job, from, stuck(), is_switched),
        phase @ Phase::Activating { .. } => (phase, vec![Effect::CheckTree]),
        Phase::Trial { job, from, .. } if !is_switched => {
            let failure = failure(FailureCode::Install, "the release on trial was no longer the current one");
            go_back(job, from, failure, true)
        }
        Phase::Trial { job, from, starts_left: 0 } => {
            let failure = failure(FailureCode::TriesExhausted, "the trial was interrupted too often");
            go_back(job, from, failure, true)
        }
        Phase::Trial { job, from, starts_left } => {
            (Phase::Trial { job, from, starts_left: starts_left - 1 }, vec![Effect::Try])
        }
        phase @ Phase::Returning { .. } => (phase, vec![Effect::Return]),
        Phase::Ended { job, outcome } => end(job, outcome),
    };
    (State { phase, starts, settled, journal_lost }, effects)
}

fn has_grown(phase: &Phase, found: Found) -> bool {
    match phase {
        Phase::Downloading { bytes_at_start, .. } => found.part_bytes > *bytes_at_start,
        Phase::Idle
        | Phase::Verified { .. }
        | Phase::Activating { .. }
        | Phase::Trial { .. }
        | Phase::Returning { .. }
        | Phase::Ended { .. } => false,
    }
}
