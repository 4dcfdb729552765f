//! Seals the record of events.

use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::app::{App, Result, event_seals};

/// How often to look without being told: an event may have to wait for an older transaction, whose end nobody announces.
const INTERVAL: Duration = Duration::from_secs(5);
/// How long to rest after each round, so that a seal covers many events.
const REST: Duration = Duration::from_secs(1);

/// Does a round. Several replicas may do theirs at once: one of them seals.
///
/// # Errors
/// When the database does not answer; the next round does the rest.
pub(super) async fn run_once(app: &App, now: DateTime<Utc>) -> Result<()> {
    event_seals::seal(app, now).await?;
    Ok(())
}

/// Waits until another round is due: told that events were recorded, or not.
pub(super) async fn due(app: &App) {
    let mut told = app.fleet.events();
    told.mark_unchanged();
    tokio::time::sleep(REST).await;
    if tokio::time::timeout(INTERVAL, told.changed()).await.is_ok_and(|told| told.is_err()) {
        // The listener is gone, so nobody will tell.
        tokio::time::sleep(INTERVAL).await;
    }
}
