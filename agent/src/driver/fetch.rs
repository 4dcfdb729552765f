//! The effects in which nothing that runs is changed yet, and the server may still call the work off.

use std::time::Duration;

use ota_domain::deployment::Verdict;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::Driver;
use crate::client::{Class, Report, Stage};
use crate::download::{Download, End};
use crate::machine::Event;
use crate::progress;
use crate::release::Job;

/// How often the server is told how far a download is, and asked whether to go on.
const REPORT_INTERVAL: Duration = Duration::from_secs(2);

/// How long the install waits for the server to hear of it. The install does not depend on it.
const REPORT_PATIENCE: Duration = Duration::from_secs(5);

impl Driver {
    /// Fetches the payload. Returns nothing when the agent itself is stopping.
    pub(super) async fn download(&self, job: &Job) -> Option<Event> {
        let releases = self.releases(&job.release);
        let (sender, receiver) = watch::channel(0);
        let stop = self.stop.child_token();
        let download = Download {
            client: &self.client,
            releases: &releases,
            job,
            reserve_bytes: self.config.limits.reserve_bytes,
            bandwidth: self.config.limits.bandwidth,
            slow: self.config.limits.slow,
            stall: job.download_deadline.unwrap_or(self.config.limits.download_stall),
            stop: &stop,
            progress: &sender,
        };
        let label = job.release.to_string();
        let fetched = async {
            match &self.bundle {
                Some(bundle) => download.copy(&mut *bundle.lock().await).await,
                None => download.run().await,
            }
        };
        let end = tokio::select! {
            end = fetched => end,
            () = self.report_download(job, receiver.clone(), &stop) => End::Stopped,
            () = progress::show(receiver, job.release.payload.size_bytes, &label) => End::Stopped,
        };
        match end {
            End::Complete => Some(Event::Downloaded),
            End::Failed(failure) => Some(Event::DownloadFailed(failure)),
            End::Stopped if self.stop.is_cancelled() => None,
            End::Stopped => Some(Event::Aborted),
        }
    }

    /// Tells the server every two seconds how far the download is; stops the download when the server says so. Never
    /// ends by itself.
    async fn report_download(&self, job: &Job, progress: watch::Receiver<u64>, stop: &CancellationToken) {
        loop {
            let bytes = *progress.borrow();
            if self.report(job, Stage::Downloading, bytes).await == Verdict::Abort {
                stop.cancel();
            }
            sleep(REPORT_INTERVAL).await;
        }
    }

    /// Tells the server that the install begins; it may still call it off.
    pub(super) async fn report_installing(&self, job: &Job) -> Option<Event> {
        let report =
            timeout(REPORT_PATIENCE, self.report(job, Stage::Installing, job.release.payload.size_bytes)).await;
        (report == Ok(Verdict::Abort)).then_some(Event::Aborted)
    }

    /// Sends a report that may get lost. A deployment that the server does not know is called off.
    pub(super) async fn report(&self, job: &Job, stage: Stage<'_>, bytes_done: u64) -> Verdict {
        if self.is_offline() {
            return Verdict::Continue;
        }
        let (deployment, attempt) = (job.deployment, job.attempt);
        let report = Report { deployment, attempt, sequence: self.sequence(), stage, bytes_done };
        match self.client.report(&report).await {
            Ok(verdict) => verdict,
            Err(error) => {
                tracing::debug!(deployment.id = %deployment, "cannot report: {error}");
                match error.class() {
                    Class::Permanent => Verdict::Abort,
                    Class::Unreachable | Class::Faulty | Class::NotAdmitted(_) | Class::Unknown => Verdict::Continue,
                }
            }
        }
    }
}
