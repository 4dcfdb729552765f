//! How releases are shown.

use chrono::{DateTime, Utc};
use ota_proto::admin::v1::{Installer, Release, ReleaseState};

use crate::{
    output::{Cell, Column, Document, Fact, Resource, Tone},
    reference::{short, short_release},
    text, time,
};

impl Resource for Release {
    const PLURAL: &'static str = "releases";

    fn name(&self) -> &str {
        &self.name
    }

    fn document(&self) -> Document {
        Document::new("ota.admin.v1.Release", self)
    }

    fn columns() -> Vec<Column<Self>> {
        vec![
            Column::new("RELEASE", |release, _| short_release(&release.name).into()),
            Column::new("STATE", |release, _| state(release.state())),
            Column::new("SIGNED", |release, _| signed(release)),
            Column::new("INSTALLER", |release, _| installer(release.installer()).into()),
            Column::new("HARDWARE", |release, _| hardware(release).into()),
            Column::new("SIZE", |release, _| text::bytes(release.payload_size_bytes).into()),
            Column::age("AGE", |release, now| time::age(release.create_time.as_ref(), now).into()),
            Column::wide("COUNTER", |release, _| release.release_counter.to_string().into()),
            Column::wide("CREATOR", |release, _| release.creator.as_str().into()),
            Column::wide("PAYLOAD", |release, _| short(&release.payload).into()),
        ]
    }

    fn facts(&self, now: DateTime<Utc>) -> Vec<Fact> {
        let published = format!("{} ago by {}", time::age(self.create_time.as_ref(), now), self.creator);
        let mut facts = vec![
            Fact::new("Release", short_release(&self.name)),
            Fact::new("State", state(self.state())),
            Fact::new("Signed", signed(self)),
            Fact::new("Counter", self.release_counter.to_string()),
            Fact::new("Installer", installer(self.installer())),
            Fact::new("Hardware", hardware(self)),
            Fact::new("Size", size_of(self.payload_size_bytes)),
            Fact::new("Unpacked", size_of(self.unpacked_size_bytes)),
            Fact::new("SHA-256", short(&self.payload)),
            Fact::new("Published", published),
        ];
        if !self.notes.is_empty() {
            facts.push(Fact::new("Notes", self.notes.as_str()));
        }
        facts
    }
}

/// Writes a size for people and exactly.
pub fn size_of(bytes: i64) -> String {
    format!("{} ({bytes} bytes)", text::bytes(bytes))
}

fn hardware(release: &Release) -> String {
    if release.hardware.is_empty() { "any".to_owned() } else { release.hardware.join(",") }
}

fn state(state: ReleaseState) -> Cell {
    match state {
        ReleaseState::Unspecified => "unknown".into(),
        ReleaseState::Published => Cell::toned("published", Tone::Good),
        ReleaseState::Yanked => Cell::toned("yanked", Tone::Bad),
    }
}

/// Tells whether devices believe the release. One that was taken out of use need not be signed.
fn signed(release: &Release) -> Cell {
    match (release.is_signed, release.state()) {
        (true, _) => Cell::toned("yes", Tone::Good),
        (false, ReleaseState::Yanked) => "no".into(),
        (false, ReleaseState::Published | ReleaseState::Unspecified) => Cell::toned("no", Tone::Busy),
    }
}

fn installer(installer: Installer) -> &'static str {
    match installer {
        Installer::Unspecified => "unknown",
        Installer::Directory => "directory",
        Installer::File => "file",
        Installer::Slot => "slot",
        Installer::Module => "module",
        Installer::Mcu => "mcu",
    }
}
