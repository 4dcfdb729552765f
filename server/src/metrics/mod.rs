//! What this replica counts, and the page on which Prometheus reads it.
//!
//! Counting costs a call a few additions and no lock. No label is a device, a release or anything else that there can be
//! any number of.

use std::sync::atomic::AtomicU64;

mod calls;
mod messages;
mod page;
mod phases;
mod updates;

pub use calls::{Calls, OpenCall};
pub use messages::Messages;
pub use page::{CONTENT_TYPE, Facts, Stored, page};
pub use phases::Phases;
pub use updates::Updates;

/// What this replica has counted since it started.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Calls of every RPC.
    pub calls: Calls,
    /// Updates that ended.
    pub updates: Updates,
    /// Phases of updates that ended.
    pub phases: Phases,
    /// Bytes of payloads that were sent.
    pub artifact_bytes: AtomicU64,
}
