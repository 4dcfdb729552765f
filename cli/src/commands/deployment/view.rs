//! How deployments are shown.

use chrono::{DateTime, Utc};
use ota_proto::admin::v1::{Deployment, DeploymentState};

use crate::{
    output::{Cell, Column, Document, Fact, Resource, Tone},
    reference::{short, short_release},
    text, time,
};

impl Resource for Deployment {
    const PLURAL: &'static str = "deployments";

    fn name(&self) -> &str {
        &self.name
    }

    fn document(&self) -> Document {
        Document::new("ota.admin.v1.Deployment", self)
    }

    fn columns() -> Vec<Column<Self>> {
        vec![
            Column::new("DEPLOYMENT", |deployment, _| short(&deployment.name).into()),
            Column::new("DEVICE", |deployment, _| short(&deployment.device).into()),
            Column::new("RELEASE", |deployment, _| short_release(&deployment.release).into()),
            Column::new("STATE", |deployment, _| state(deployment.state())),
            Column::new("PROGRESS", |deployment, _| progress(deployment).into()),
            Column::new("FAILURE", |deployment, _| code(deployment)),
            Column::age("AGE", |deployment, now| time::age(deployment.create_time.as_ref(), now).into()),
            Column::wide("ATTEMPT", |deployment, _| deployment.attempt.to_string().into()),
            Column::wide_age("CHANGED", |deployment, now| time::age(deployment.update_time.as_ref(), now).into()),
            Column::wide("ROLLOUT", |deployment, _| short(&deployment.rollout).into()),
            Column::wide("MESSAGE", |deployment, _| message(deployment).into()),
        ]
    }

    fn facts(&self, _now: DateTime<Utc>) -> Vec<Fact> {
        let bytes = format!("{} of {}", text::bytes(self.bytes_done), text::bytes(self.bytes_total));
        let mut facts = vec![
            Fact::new("Deployment", short(&self.name)),
            Fact::new("Device", short(&self.device)),
            Fact::new("Release", short_release(&self.release)),
            Fact::new("Rollout", short(&self.rollout)),
            Fact::new("State", state(self.state())),
            Fact::new("Attempt", self.attempt.to_string()),
            Fact::new("Downloaded", bytes),
            Fact::new("Created", time::exact(self.create_time.as_ref())),
            Fact::new("Changed", time::exact(self.update_time.as_ref())),
            Fact::new("Ended", time::exact(self.end_time.as_ref())),
        ];
        if let Some(failure) = &self.failure {
            facts.push(Fact::new("Failure", Cell::toned(failure.code.as_str(), Tone::Bad)));
            facts.push(Fact::new("  Message", failure.message.as_str()));
            facts.push(Fact::new("  Log", failure.log_tail.as_str()));
        }
        facts
    }
}

/// Says in one line how a device's deployment went wrong.
pub fn failure_line(deployment: &Deployment) -> String {
    let failure = deployment.failure.clone().unwrap_or_default();
    let state = state(deployment.state());
    format!("{} {}: {} {}", short(&deployment.device), state.text(), failure.code, failure.message)
        .trim_end()
        .to_owned()
}

fn progress(deployment: &Deployment) -> String {
    let percent = deployment.bytes_done.saturating_mul(100).checked_div(deployment.bytes_total);
    percent.map_or_else(|| "-".to_owned(), |percent| format!("{percent} %"))
}

fn code(deployment: &Deployment) -> Cell {
    deployment.failure.as_ref().map_or_else(|| "-".into(), |failure| Cell::toned(failure.code.as_str(), Tone::Bad))
}

fn message(deployment: &Deployment) -> String {
    deployment.failure.as_ref().map(|failure| failure.message.clone()).unwrap_or_default()
}

fn state(state: DeploymentState) -> Cell {
    match state {
        DeploymentState::Unspecified => "unknown".into(),
        DeploymentState::Queued => Cell::toned("queued", Tone::Faint),
        DeploymentState::Granted => Cell::toned("granted", Tone::Busy),
        DeploymentState::Downloading => Cell::toned("downloading", Tone::Busy),
        DeploymentState::Installing => Cell::toned("installing", Tone::Busy),
        DeploymentState::Rebooting => Cell::toned("rebooting", Tone::Busy),
        DeploymentState::Verifying => Cell::toned("verifying", Tone::Busy),
        DeploymentState::Succeeded => Cell::toned("succeeded", Tone::Good),
        DeploymentState::Failed => Cell::toned("failed", Tone::Bad),
        DeploymentState::RolledBack => Cell::toned("rolled back", Tone::Bad),
        DeploymentState::Rejected => Cell::toned("rejected", Tone::Bad),
        DeploymentState::TimedOut => Cell::toned("timed out", Tone::Bad),
        DeploymentState::Canceled => Cell::toned("canceled", Tone::Faint),
        DeploymentState::Superseded => Cell::toned("superseded", Tone::Faint),
    }
}
