//! Renews the device's certificate in time, beside all other work.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::client::Access;

/// Bounds of the wait after a renewal that did not work. Half the certificate's life is left for it.
const WAIT: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(900));

/// How often to look at the clock, which may be set meanwhile.
const LOOK: Duration = Duration::from_secs(600);

/// Shortest time between two renewals: a server that gives certificates of no length must not keep the device busy.
const SHORTEST: Duration = Duration::from_secs(1);

/// Renewal that goes on until this is dropped.
#[derive(Debug)]
pub struct Renewal {
    _task: JoinSet<()>,
}

impl Renewal {
    /// Starts to watch over the certificate.
    pub fn start(access: Arc<Access>, stop: CancellationToken) -> Self {
        let mut task = JoinSet::new();
        task.spawn(async move { stop.run_until_cancelled(keep(&access)).await.unwrap_or_default() });
        Self { _task: task }
    }
}

async fn keep(access: &Access) {
    let mut troubles = Backoff::new(WAIT.0, WAIT.1);
    loop {
        let left = access.renewal_in();
        let wait = if !left.is_zero() {
            left.min(LOOK)
        } else {
            match access.renew().await {
                Ok(()) => {
                    troubles.reset();
                    SHORTEST
                }
                Err(error) => {
                    let wait = troubles.next_after(error.retry_after(), &mut rand::rng()).max(SHORTEST);
                    let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
                    tracing::warn!(wait_ms, "cannot renew the certificate: {error}");
                    wait
                }
            }
        };
        sleep(wait).await;
    }
}
