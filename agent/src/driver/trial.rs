//! The effects in which the running release changes: the switch, the trial and the way back.

use super::Driver;
use crate::client::Stage;
use crate::failure::{Failure, FailureCode, failure, from_error};
use crate::hooks::{Deadlines, Hooks};
use crate::machine::Event;
use crate::release::{Job, Release};
use crate::releases::Releases;
use tokio::task::block_in_place;

impl Driver {
    /// Stops the old release and switches to the new one, if the device still believes that it may.
    pub(super) async fn activate(&self, releases: &Releases, job: &Job) -> Event {
        if let Some(failure) = block_in_place(|| self.forbids(releases, job)) {
            return Event::Forbidden(failure);
        }
        if let Some(from) = self.from() {
            let programs = self.package(from).programs;
            let hooks = Hooks::new(releases, from, None, &programs, self.deadlines(job));
            if let Err(failure) = hooks.stop().await {
                return Event::ActivationFailed { failure, switched: false };
            }
        }
        let payload = job.release.payload.sha256;
        match block_in_place(|| releases.switch(payload)) {
            Ok(()) => Event::Activated,
            Err(error) => {
                let failure = failure(FailureCode::Install, format!("cannot switch to {}: {error}", job.release));
                // A link that cannot be read counts as switched: going back is then done in full.
                let switched = releases.current().map_or(true, |current| current == Some(payload));
                Event::ActivationFailed { failure, switched }
            }
        }
    }

    /// Asks once more right before the switch: the download may have taken days. A release that is switched to already
    /// was allowed when that was done.
    fn forbids(&self, releases: &Releases, job: &Job) -> Option<Failure> {
        let payload = job.release.payload.sha256;
        if releases.current().is_ok_and(|current| current == Some(payload)) {
            return None;
        }
        let mut guard = self.guard.borrow_mut();
        if let Some(failure) = guard.forbids(job) {
            return Some(failure);
        }
        let kept = releases.keep_metadata(payload, &guard.evidence()?);
        kept.err().map(|error| from_error(FailureCode::Install, &error))
    }

    /// Starts the new release and waits for its health.
    pub(super) async fn try_release(&self, releases: &Releases, job: &Job) -> Event {
        let programs = self.package(&job.release).programs;
        let hooks = Hooks::new(releases, &job.release, self.from(), &programs, self.deadlines(job));
        let trial = async {
            hooks.start().await?;
            hooks.wait_until_healthy().await
        };
        // The server hears of the trial while it runs; nothing waits for the answer.
        tokio::pin!(trial);
        let report = self.report(job, Stage::Verifying, job.release.payload.size_bytes);
        let result = tokio::select! {
            result = &mut trial => result,
            _ = report => trial.await,
        };
        match result {
            Ok(()) => Event::Healthy,
            Err(failure) => Event::Unhealthy(failure),
        }
    }

    /// Stops the new release, switches back and starts the old one. What goes wrong with the hooks on the way is told,
    /// but does not keep the old release from being the current one.
    pub(super) async fn go_back(&self, releases: &Releases, job: &Job) -> Event {
        let mut trouble = Vec::new();
        let from = self.from();
        let payload = job.release.payload.sha256;
        if releases.current().is_ok_and(|current| current == Some(payload)) {
            let programs = self.package(&job.release).programs;
            let hooks = Hooks::new(releases, &job.release, from, &programs, self.deadlines(job));
            if let Err(failure) = hooks.stop().await {
                trouble.push(failure.message);
            }
        }
        if let Err(error) = block_in_place(|| releases.switch_back(from.map(|from| from.payload.sha256))) {
            tracing::error!(release = %job.release, "cannot switch back: {error}");
            return Event::ReturnFailed;
        }
        if let Some(from) = from {
            let programs = self.package(from).programs;
            let hooks = Hooks::new(releases, from, Some(&job.release), &programs, self.deadlines(job));
            if let Err(failure) = hooks.start().await {
                trouble.push(failure.message);
            }
        }
        let trouble = (!trouble.is_empty()).then(|| trouble.join("; "));
        if let Some(trouble) = &trouble {
            tracing::error!(release = %job.release, "trouble while going back: {trouble}");
        }
        Event::Returned { trouble }
    }

    fn from(&self) -> Option<&Release> {
        self.record.state.phase.from()
    }

    fn deadlines(&self, job: &Job) -> Deadlines {
        let configured = self.config.hooks;
        Deadlines { health: job.verify_deadline.unwrap_or(configured.health), ..configured }
    }
}
