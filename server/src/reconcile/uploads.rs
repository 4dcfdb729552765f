//! Gives back the room of uploads that nobody goes on with and of payloads that were deleted.

use chrono::{DateTime, Utc};

use crate::app::{App, Result, payloads, uploads};

/// Does a round. Several replicas may do theirs at once.
///
/// # Errors
/// When the database or the blob store does not answer; the next round does the rest.
pub(super) async fn run_once(app: &App, now: DateTime<Utc>) -> Result<()> {
    uploads::expire(app, now).await?;
    payloads::collect_dropped(app).await
}
