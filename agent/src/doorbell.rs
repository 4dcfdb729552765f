//! Holds the stream on which the server rings when the device should check in before its time.
//!
//! Carries no state: a ring that is lost costs nothing but time, because the next check-in is due anyway.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::client::{Bell, Class, Client};

/// Bounds of the wait before the stream is opened again.
const WAIT: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// How long to wait when the device may not work, or somebody else holds its doorbell.
const UNWANTED_WAIT: Duration = Duration::from_secs(300);

/// How long a stream has to live to count as a success.
const STEADY: Duration = Duration::from_secs(10);

/// A doorbell that is held open until this is dropped.
#[derive(Debug)]
pub struct Doorbell {
    rings: mpsc::Receiver<Duration>,
    _task: JoinSet<()>,
}

impl Doorbell {
    /// Starts to hold the stream open.
    pub fn start(client: Client, stop: CancellationToken) -> Self {
        // One ring waits at most: two mean no more than one.
        let (sender, rings) = mpsc::channel(1);
        let mut task = JoinSet::new();
        task.spawn(async move { stop.run_until_cancelled(hold(client, sender)).await.unwrap_or_default() });
        Self { rings, _task: task }
    }

    /// Waits for a ring and returns how long to wait before the check-in.
    pub async fn rung(&mut self) -> Duration {
        match self.rings.recv().await {
            Some(delay) => delay,
            // The agent is stopping, nobody will ring.
            None => std::future::pending().await,
        }
    }
}

async fn hold(client: Client, rings: mpsc::Sender<Duration>) {
    let mut backoff = Backoff::new(WAIT.0, WAIT.1);
    let mut was_open = false;
    loop {
        let opened_at = Instant::now();
        let error = match client.watch().await {
            Ok(bell) => {
                if was_open {
                    // A ring may have been missed meanwhile. A full channel holds a ring that means the same.
                    rings.try_send(Duration::ZERO).ok();
                }
                was_open = true;
                listen(bell, &rings).await
            }
            Err(error) => Some(error),
        };
        if opened_at.elapsed() >= STEADY {
            backoff.reset();
        }
        let told = error.as_ref().and_then(crate::client::Error::retry_after);
        let wait = match error.as_ref().map(crate::client::Error::class) {
            Some(Class::Permanent | Class::NotAdmitted(_) | Class::Unknown) => UNWANTED_WAIT,
            Some(Class::Unreachable | Class::Faulty) | None => backoff.next_after(told, &mut rand::rng()),
        };
        tracing::debug!(wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX), "the doorbell is silent");
        sleep(wait).await;
    }
}

async fn listen(mut bell: Bell, rings: &mpsc::Sender<Duration>) -> Option<crate::client::Error> {
    loop {
        match bell.rung().await {
            Ok(Some(delay)) => {
                rings.try_send(delay).ok();
            }
            Ok(None) => return None,
            Err(error) => return Some(error),
        }
    }
}
