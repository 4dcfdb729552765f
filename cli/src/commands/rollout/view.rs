//! How rollouts are shown.

use chrono::{DateTime, Utc};
use ota_proto::admin::v1::{Rollout, RolloutState, target::Choice};

use crate::{
    output::{Cell, Column, Document, Fact, Resource, Tone},
    reference::{short, short_release},
    text, time,
};

impl Resource for Rollout {
    const PLURAL: &'static str = "rollouts";

    fn name(&self) -> &str {
        &self.name
    }

    fn document(&self) -> Document {
        Document::new("ota.admin.v1.Rollout", self)
    }

    fn columns() -> Vec<Column<Self>> {
        vec![
            Column::new("ROLLOUT", |rollout, _| short(&rollout.name).into()),
            Column::new("RELEASE", |rollout, _| short_release(&rollout.release).into()),
            Column::new("STATE", |rollout, _| state(rollout.state())),
            Column::new("TARGET", |rollout, _| target(rollout).into()),
            Column::new("SUCCEEDED", |rollout, _| succeeded(rollout)),
            Column::new("FAILED", |rollout, _| failed(rollout)),
            Column::age("AGE", |rollout, now| time::age(rollout.create_time.as_ref(), now).into()),
            Column::wide("CREATOR", |rollout, _| rollout.creator.as_str().into()),
            Column::wide_age("ENDED", |rollout, now| time::age(rollout.end_time.as_ref(), now).into()),
        ]
    }

    fn facts(&self, _now: DateTime<Utc>) -> Vec<Fact> {
        let counts = self.counts.unwrap_or_default();
        let mut facts = vec![
            Fact::new("Rollout", short(&self.name)),
            Fact::new("Release", short_release(&self.release)),
            Fact::new("State", state(self.state())),
            Fact::new("Target", target(self)),
            Fact::new("Devices", counts.total.to_string()),
            Fact::new("  Queued", counts.queued.to_string()),
            Fact::new("  In progress", counts.in_progress.to_string()),
            Fact::new("  Succeeded", counts.succeeded.to_string()),
            Fact::new("  Failed", failed(self)),
            Fact::new("  Canceled", counts.canceled.to_string()),
            Fact::new("Created", format!("{} by {}", time::exact(self.create_time.as_ref()), self.creator)),
            Fact::new("Ended", time::exact(self.end_time.as_ref())),
        ];
        if !self.waiting_on.is_empty() {
            facts.push(Fact::new("Waits for", self.waiting_on.join("\n")));
        }
        facts
    }
}

fn succeeded(rollout: &Rollout) -> Cell {
    let counts = rollout.counts.unwrap_or_default();
    let tone = if counts.total > 0 && counts.succeeded == counts.total { Tone::Good } else { Tone::Plain };
    Cell::toned(format!("{}/{}", counts.succeeded, counts.total), tone)
}

fn failed(rollout: &Rollout) -> Cell {
    let failed = rollout.counts.unwrap_or_default().failed;
    Cell::toned(failed.to_string(), if failed > 0 { Tone::Bad } else { Tone::Plain })
}

fn target(rollout: &Rollout) -> String {
    match rollout.target.as_ref().and_then(|target| target.choice.as_ref()) {
        // The server does not repeat thousands of names, but it counts them.
        Some(Choice::Devices(_)) => text::count(rollout.counts.unwrap_or_default().total, "device"),
        Some(Choice::Selector(selector)) => selector.clone(),
        Some(Choice::All(_)) => "all".to_owned(),
        Some(Choice::Group(group)) => group.clone(),
        None => "-".to_owned(),
    }
}

fn state(state: RolloutState) -> Cell {
    match state {
        RolloutState::Unspecified => "unknown".into(),
        RolloutState::Active => Cell::toned("active", Tone::Busy),
        RolloutState::Paused => Cell::toned("paused", Tone::Busy),
        RolloutState::Completed => Cell::toned("completed", Tone::Good),
        RolloutState::Canceled => Cell::toned("canceled", Tone::Faint),
    }
}
