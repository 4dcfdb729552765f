//! Completes rollouts of which no deployment is open any more.

use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::{
    app::{self, App, Result},
    auth::Caller,
};

/// How often to look without being told: deployments also end on other replicas.
const INTERVAL: Duration = Duration::from_secs(2);
/// How long to rest after each round, so that many deployments that end together cost one.
const REST: Duration = Duration::from_millis(100);

/// Does a round. Several replicas may do theirs at once.
///
/// # Errors
/// When the database does not answer; the next round does the rest.
pub(super) async fn run_once(app: &App, now: DateTime<Utc>) -> Result<()> {
    app::rollouts::complete(app, &Caller::server(), now).await
}

/// Waits until another round is due: told that a deployment has ended, or not.
pub(super) async fn due(app: &App) {
    tokio::time::sleep(REST).await;
    let told = app.fleet.reconcile_rollouts.notified();
    tokio::time::timeout(INTERVAL, told).await.unwrap_or_default();
}
