//! Tells the server how the work ended. The end is decided and on disk: no answer changes it, and none is waited for
//! before other things that run on the device, but the next work waits for it.

use std::time::Duration;

use ota_domain::DeploymentId;
use tokio::time::sleep;

use super::{Driver, Error};
use crate::backoff::Backoff;
use crate::client::{self, Class, Report, Stage};
use crate::machine::{Event, Outcome, Phase, Settled};
use crate::release::{Job, Release};
use crate::releases;

/// Bounds of the wait between two tries.
const WAIT: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

impl Driver {
    /// Reports the end until the server has heard it. Returns nothing when the agent itself is stopping, or when the
    /// server does not listen to this device. Without a network the report is put off.
    pub(super) async fn announce(&self, job: &Job) -> Option<Event> {
        let Phase::Ended { outcome, .. } = &self.record.state.phase else { return None };
        if self.is_offline() {
            return Some(Event::PutOff);
        }
        let mut backoff = Backoff::new(WAIT.0, WAIT.1);
        loop {
            let told = self.report_end(job.deployment, job.attempt, &job.release, outcome).await;
            let Err(error) = told else { return Some(Event::Acknowledged) };
            match error.class() {
                Class::Permanent => {
                    tracing::warn!(deployment.id = %job.deployment, "the server does not take the report: {error}");
                    return Some(Event::Acknowledged);
                }
                // The next check-in says so too, and how long to wait; the report is tried again before the one after.
                Class::NotAdmitted(_) | Class::Unknown => return None,
                Class::Unreachable | Class::Faulty => {
                    tracing::info!(deployment.id = %job.deployment, "cannot report the end yet: {error}");
                }
            }
            let wait = backoff.next_after(error.retry_after(), &mut rand::rng());
            tokio::select! {
                () = sleep(wait) => {}
                () = self.stop.cancelled() => return None,
            }
        }
    }

    /// Tells the server, once each, of the ends that were put off. What does not get through is tried the next time.
    pub async fn tell_untold(&mut self) -> Result<(), Error> {
        let untold: Vec<_> = self.record.state.settled.iter().filter(|known| known.is_untold).cloned().collect();
        for Settled { deployment, attempt, release, outcome, .. } in untold {
            match self.report_end(deployment, attempt, &release, &outcome).await {
                Ok(()) => {}
                Err(error) if error.class() == Class::Permanent => {
                    tracing::warn!(deployment.id = %deployment, "the server does not take the report: {error}");
                }
                Err(error) => {
                    tracing::info!(deployment.id = %deployment, "cannot report the end yet: {error}");
                    return Ok(());
                }
            }
            self.take_in(Event::Told { deployment }).await?;
        }
        Ok(())
    }

    async fn report_end(
        &self,
        deployment: DeploymentId,
        attempt: u32,
        release: &Release,
        outcome: &Outcome,
    ) -> Result<(), client::Error> {
        // Read from the disk each time: what is reported is what runs, not what should.
        let running = match releases::running(self.data()) {
            Ok(running) => running.iter().map(Release::running).collect::<Vec<_>>(),
            Err(error) => {
                tracing::error!("cannot read what runs: {error}");
                Vec::new()
            }
        };
        let size_bytes = release.payload.size_bytes;
        let (stage, bytes_done) = match outcome {
            Outcome::Committed => (Stage::Succeeded(&running), size_bytes),
            Outcome::RolledBack(failure) => (Stage::RolledBack(failure, &running), size_bytes),
            Outcome::Failed(failure) => (Stage::Failed(failure), 0),
            Outcome::Rejected(failure) => (Stage::Rejected(failure), 0),
            // It was the server that said so.
            Outcome::Canceled => return Ok(()),
        };
        let report = Report { deployment, attempt, sequence: self.sequence(), stage, bytes_done };
        self.client.report(&report).await.map(|_| ())
    }
}
