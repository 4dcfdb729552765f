//! Signs again what would run out.

use chrono::{DateTime, Utc};

use crate::app::{App, Result, trust};

/// Does a round. Several replicas may do theirs at once.
///
/// # Errors
/// When the database does not answer; the next round does it.
pub(super) async fn run_once(app: &App, now: DateTime<Utc>) -> Result<()> {
    trust::keep_fresh(app, now).await
}
