//! An unfinished transfer of a payload to the server.

use chrono::{DateTime, TimeDelta, Utc};

use crate::{UploadId, release::Payload};

/// How long an upload waits to go on before it is forgotten: long enough for a person to come back the next day.
pub const LIFETIME: TimeDelta = TimeDelta::hours(24);

/// Most bytes in a piece.
pub const MAX_PIECE_BYTES: usize = 1 << 20;

/// An unfinished transfer of a payload to the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Upload {
    /// Its id.
    pub id: UploadId,
    /// What the bytes must come to.
    pub payload: Payload,
    /// How many of them the server has and keeps.
    pub received_bytes: u64,
    /// When it is forgotten unless it goes on.
    pub expires_at: DateTime<Utc>,
}
