//! Payloads as the server keeps them.

use chrono::{DateTime, Utc};

pub use crate::release::Payload;

/// A payload whose bytes the server has in full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// Its name and size.
    pub payload: Payload,
    /// When the last byte arrived.
    pub created_at: DateTime<Utc>,
}
