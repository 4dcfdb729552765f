//! `status`: how the server and the fleet are.

use chrono::{DateTime, Utc};
use clap::Args;
use ota_proto::admin::v1::{GetStatusRequest, GetStatusResponse, GetTrustStatusRequest, TrustMode};

use crate::{
    commands::keys::mode_cell,
    error::Failure,
    output::{Cell, Document, Fact, Tone},
    session::Session,
    text, time,
};

/// Arguments of `status`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  otactl status\n  otactl status -o json | jq .devices.online")]
pub struct Status {}

impl Status {
    /// Shows it.
    pub async fn run(self, session: &mut Session) -> Result<(), Failure> {
        let client = session.client().await?;
        let status = client.status().get_status(GetStatusRequest {}).await?.into_inner();
        let trust = client.trust().get_trust_status(GetTrustStatusRequest {}).await?.into_inner();
        let document = Document::new("ota.admin.v1.GetStatusResponse", &status);
        let facts = facts(&status, trust.mode(), session.now());
        session.printer.answer(&document, &status.server_version, &facts)
    }
}

fn facts(status: &GetStatusResponse, mode: TrustMode, now: DateTime<Utc>) -> Vec<Fact> {
    let devices = status.devices.unwrap_or_default();
    let pending = Cell::toned(devices.pending.to_string(), if devices.pending > 0 { Tone::Busy } else { Tone::Plain });
    let mut facts = vec![
        Fact::new("Server", format!("{}, up {}", status.server_version, time::age(status.start_time.as_ref(), now))),
        Fact::new(
            "Encryption",
            if status.tls { Cell::toned("TLS", Tone::Good) } else { Cell::toned("none", Tone::Busy) },
        ),
        Fact::new("Root keys", mode_cell(mode)),
        Fact::new("Database", status.database.as_str()),
        Fact::new("Payloads", format!("{} in {} store", text::bytes(status.payload_bytes), status.blob_store)),
        Fact::new("Devices", format!("{} accepted, {} online", devices.accepted, devices.online)),
        Fact::new("Waiting for approval", pending),
        Fact::new("Kept out", format!("{} rejected, {} decommissioned", devices.rejected, devices.decommissioned)),
        Fact::new(
            "Packages",
            format!("{}, with {}", status.package_count, text::count(status.release_count, "release")),
        ),
        Fact::new("Active rollouts", status.active_rollout_count.to_string()),
        Fact::new("Deployments in progress", status.deployments_in_progress.to_string()),
    ];
    if !status.warnings.is_empty() {
        facts.push(Fact::new("Warnings", Cell::toned(status.warnings.join("\n"), Tone::Busy)));
    }
    facts
}
