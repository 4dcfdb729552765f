//! Follows a rollout until every device has ended, and judges how.

use std::time::Duration;

use indicatif::ProgressBar;
use ota_proto::admin::v1::{DeploymentCounts, GetRolloutRequest, Rollout, RolloutState};

use crate::{
    client::Client,
    commands::deployment::{self, Which},
    error::{Exit, Failure, is_transient, promised},
    listing,
    messages::Messages,
    reference::short,
    text,
};

/// Time between two looks. A person is waiting, and a look costs the server one query.
const INTERVAL: Duration = Duration::from_secs(1);

/// Failed devices named at the end.
const NAMED_FAILURES: u32 = 20;

/// Filter for deployments that count as failed.
const FAILED: &str = "state in (failed,rolled_back,rejected,timed_out)";

/// Returns the rollout when it has ended. Goes on through restarts of the server; the caller limits the time.
pub(super) async fn until_ended(client: &Client, messages: Messages, name: &str) -> Result<Rollout, Failure> {
    let line = Line::new(messages);
    let mut last = String::new();
    loop {
        let request = GetRolloutRequest { name: name.to_owned() };
        match client.rollouts().get_rollout(request).await {
            Ok(answer) => {
                let rollout = promised(answer.into_inner().rollout)?;
                if has_ended(&rollout) {
                    line.end();
                    return Ok(rollout);
                }
                let counts = describe(&rollout.counts.unwrap_or_default());
                if counts != last {
                    line.show(&counts);
                    last = counts;
                }
            }
            Err(status) if is_transient(&status) => line.show("the server does not answer; trying again"),
            Err(status) => return Err(status.into()),
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

fn has_ended(rollout: &Rollout) -> bool {
    let counts = rollout.counts.unwrap_or_default();
    match rollout.state() {
        RolloutState::Completed => true,
        // Devices at work finish.
        RolloutState::Canceled => counts.queued == 0 && counts.in_progress == 0,
        RolloutState::Unspecified | RolloutState::Active | RolloutState::Paused => false,
    }
}

/// Says in one line where a rollout stands.
fn describe(counts: &DeploymentCounts) -> String {
    let total = text::count(counts.total, "device");
    let mut line =
        format!("{} of {total} run it; {} queued, {} at work", counts.succeeded, counts.queued, counts.in_progress);
    if counts.failed > 0 {
        line.push_str(&format!(", {} failed", counts.failed));
    }
    line
}

/// Says in one word how a rollout ended.
pub(super) fn outcome(rollout: &Rollout) -> &'static str {
    let counts = rollout.counts.unwrap_or_default();
    if counts.failed > 0 {
        "ended with failures"
    } else if counts.succeeded < counts.total {
        "ended early"
    } else {
        "succeeded"
    }
}

/// Fails when a device did not come to run the release, and names the first of them.
pub(super) async fn judge(client: &Client, rollout: &Rollout) -> Result<(), Failure> {
    let counts = rollout.counts.unwrap_or_default();
    let missing = counts.total - counts.succeeded;
    if missing <= 0 {
        return Ok(());
    }
    let which = Which { rollout: rollout.name.clone(), filter: FAILED.to_owned(), ..Which::default() };
    let fetch = async |page| deployment::list(client, &which, page).await;
    // The rollout is judged by its counts; the names only help, so a failure to get them changes nothing.
    let failed = listing::fetch_all(Some(NAMED_FAILURES), fetch).await.unwrap_or_default();
    let what = format!("{missing} of {} did not come to run it", text::count(counts.total, "device"));
    Err(Failure::new(Exit::RolloutFailed, what)
        .details(failed.iter().map(deployment::failure_line))
        .hint(format!("see `otactl deployment list --rollout {} -o wide`", short(&rollout.name))))
}

/// One line that changes in place for a person, or a line for each change in a pipe.
struct Line {
    messages: Messages,
    spinner: Option<ProgressBar>,
}

impl Line {
    fn new(messages: Messages) -> Self {
        let spinner = messages.is_live().then(|| {
            let spinner = ProgressBar::new_spinner();
            spinner.enable_steady_tick(Duration::from_millis(120));
            spinner
        });
        Self { messages, spinner }
    }

    fn show(&self, text: &str) {
        match &self.spinner {
            Some(spinner) => spinner.set_message(text.to_owned()),
            None => self.messages.say(text),
        }
    }

    fn end(&self) {
        if let Some(spinner) = &self.spinner {
            spinner.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rollout(state: RolloutState, counts: DeploymentCounts) -> Rollout {
        Rollout { state: state.into(), counts: Some(counts), ..Rollout::default() }
    }

    #[test]
    fn a_canceled_rollout_has_ended_when_nobody_is_at_work() {
        let busy = DeploymentCounts { total: 2, in_progress: 1, canceled: 1, ..DeploymentCounts::default() };
        assert!(!has_ended(&rollout(RolloutState::Canceled, busy)));
        let idle = DeploymentCounts { total: 2, succeeded: 1, canceled: 1, ..DeploymentCounts::default() };
        assert!(has_ended(&rollout(RolloutState::Canceled, idle)));
    }

    #[test]
    fn only_a_rollout_that_reached_every_device_succeeded() {
        let counts = |succeeded, failed, canceled| DeploymentCounts {
            total: succeeded + failed + canceled,
            succeeded,
            failed,
            canceled,
            ..DeploymentCounts::default()
        };
        let table = [((3, 0, 0), "succeeded"), ((2, 1, 0), "ended with failures"), ((2, 0, 1), "ended early")];
        for ((succeeded, failed, canceled), word) in table {
            assert_eq!(outcome(&rollout(RolloutState::Completed, counts(succeeded, failed, canceled))), word);
        }
    }
}
