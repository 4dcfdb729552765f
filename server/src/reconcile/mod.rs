//! What no request asks for: work that follows from the state of the database, done again and again.
//!
//! A reconciler is told only that something may have changed, reads what is so, and may run twice or on several replicas
//! at once. It never retries by itself: it just runs again.

use std::{error::Error as _, time::Duration};

use chrono::Utc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::app::{App, Result};

mod rollouts;
mod seals;
mod trust;
mod uploads;

/// How often room is looked for that can be given back. Nobody waits for it.
const UPLOADS_INTERVAL: Duration = Duration::from_secs(60);

/// How often documents are looked at that may run out: a small part of the half day that the shortest-lived has left then.
const TRUST_INTERVAL: Duration = Duration::from_secs(600);

/// Runs every reconciler until `stop`. A round in progress is finished.
pub async fn run(app: App, stop: CancellationToken) {
    let mut tasks = JoinSet::new();
    tasks.spawn(complete_rollouts(app.clone(), stop.clone()));
    tasks.spawn(seal_events(app.clone(), stop.clone()));
    tasks.spawn(keep_trust_fresh(app.clone(), stop.clone()));
    tasks.spawn(give_back_room(app, stop));
    while tasks.join_next().await.is_some() {}
}

async fn complete_rollouts(app: App, stop: CancellationToken) {
    repeat("completing rollouts", &stop, || rollouts::run_once(&app, Utc::now()), || rollouts::due(&app)).await;
}

async fn seal_events(app: App, stop: CancellationToken) {
    repeat("sealing events", &stop, || seals::run_once(&app, Utc::now()), || seals::due(&app)).await;
}

async fn keep_trust_fresh(app: App, stop: CancellationToken) {
    let due = || tokio::time::sleep(TRUST_INTERVAL);
    repeat("signing metadata again", &stop, || trust::run_once(&app, Utc::now()), due).await;
}

async fn give_back_room(app: App, stop: CancellationToken) {
    let due = || tokio::time::sleep(UPLOADS_INTERVAL);
    repeat("giving back room", &stop, || uploads::run_once(&app, Utc::now()), due).await;
}

/// Does a `round` of `work` whenever it is `due`, until `stop`. A failure is told when it begins and when it is over, not
/// at every round between.
async fn repeat<R, D>(work: &str, stop: &CancellationToken, round: impl Fn() -> R, due: impl Fn() -> D)
where
    R: Future<Output = Result<()>>,
    D: Future<Output = ()>,
{
    let mut failing = false;
    loop {
        match round().await {
            Ok(()) => {
                if failing {
                    tracing::info!(work, "a reconciler works again");
                }
                failing = false;
            }
            Err(error) => {
                if !failing {
                    let source = error.source().map(ToString::to_string);
                    tracing::warn!(work, %error, source, "a reconciler fails; it goes on trying");
                }
                failing = true;
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = due() => {}
        }
    }
}
