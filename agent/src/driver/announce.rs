//! Tells the server how the work ended. The end is decided and on disk: no answer changes it, and none is waited for
//! before other things that run on the device, but the next work waits for it.

use std::time::Duration;

use tokio::time::sleep;

use super::Driver;
use crate::backoff::Backoff;
use crate::client::{Class, Report, Stage};
use crate::machine::{Event, Outcome, Phase};
use crate::release::Job;
use crate::releases;

/// Bounds of the wait between two tries.
const WAIT: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

impl Driver {
    /// Reports the end until the server has heard it. Returns nothing when the agent itself is stopping, or when the
    /// server does not listen to this device.
    pub(super) async fn announce(&self, job: &Job) -> Option<Event> {
        let Phase::Ended { outcome, .. } = &self.record.state.phase else { return None };
        let mut backoff = Backoff::new(WAIT.0, WAIT.1);
        loop {
            // Read from the disk each time: what is reported is what runs, not what should.
            let running = match releases::running(self.data()) {
                Ok(running) => running.iter().map(crate::release::Release::running).collect::<Vec<_>>(),
                Err(error) => {
                    tracing::error!("cannot read what runs: {error}");
                    Vec::new()
                }
            };
            let size_bytes = job.release.payload.size_bytes;
            let (stage, bytes_done) = match outcome {
                Outcome::Committed => (Stage::Succeeded(&running), size_bytes),
                Outcome::RolledBack(failure) => (Stage::RolledBack(failure, &running), size_bytes),
                Outcome::Failed(failure) => (Stage::Failed(failure), 0),
                Outcome::Rejected(failure) => (Stage::Rejected(failure), 0),
                // It was the server that said so.
                Outcome::Canceled => return Some(Event::Acknowledged),
            };
            let (deployment, attempt) = (job.deployment, job.attempt);
            let report = Report { deployment, attempt, sequence: self.sequence(), stage, bytes_done };
            let error = match self.client.report(&report).await {
                Ok(_) => return Some(Event::Acknowledged),
                Err(error) => error,
            };
            match error.class() {
                Class::Permanent => {
                    tracing::warn!(deployment.id = %deployment, "the server does not take the report: {error}");
                    return Some(Event::Acknowledged);
                }
                // The next check-in says so too, and how long to wait; the report is tried again before the one after.
                Class::NotAdmitted(_) | Class::Unknown => return None,
                Class::Unreachable | Class::Faulty => {
                    tracing::info!(deployment.id = %deployment, "cannot report the end yet: {error}");
                }
            }
            let wait = backoff.next(&mut rand::rng()) + error.retry_after().unwrap_or_default().min(WAIT.1);
            tokio::select! {
                () = sleep(wait) => {}
                () = self.stop.cancelled() => return None,
            }
        }
    }
}
