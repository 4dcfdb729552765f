//! `assign`: bring a release to devices. Starts a rollout of one phase; there is no other way.

mod wait;

use std::time::Duration;

use clap::{ArgGroup, Args};
use ota_domain::Selector;
use ota_proto::admin::v1::{
    CreateRolloutRequest, DeviceList, PreviewRolloutRequest, PreviewRolloutResponse, Rollout, Target, target::Choice,
};
use uuid::Uuid;

use crate::{
    backoff::patiently,
    client::Client,
    commands::device,
    consent::need,
    error::{Exit, Failure, promised},
    output::{Document, Fact},
    reference::{ReleaseRef, short},
    session::Session,
    text, time,
};

const EXAMPLES: &str = "\
Says first how many devices it is about. Asks above 10 devices, and wants the number typed above 1,000; --yes answers \
for you.

With --wait, the exit code is 5 when a device did not come to run the release, and 8 when --timeout passed first; the \
rollout goes on then.

Examples:
  otactl assign gateway-fw@1.2.0 4f21a0c3
  otactl assign gateway-fw@1.2.0 -l 'site=lab,ring=canary' --wait --timeout 30m
  otactl assign gateway-fw@1.2.0 --all --yes -o name
  otactl assign gateway-fw@1.2.0 -l site=lab --dry-run";

/// Arguments of `assign`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
#[command(
    override_usage = "otactl assign [OPTIONS] PACKAGE@VERSION DEVICE...\n       otactl assign [OPTIONS] PACKAGE@VERSION -l SELECTOR\n       otactl assign [OPTIONS] PACKAGE@VERSION --all"
)]
#[command(group = ArgGroup::new("target").args(["devices", "selector", "all"]).required(true))]
pub struct Assign {
    /// The release
    #[arg(value_name = "PACKAGE@VERSION")]
    release: ReleaseRef,
    /// These devices: UUIDs, or their beginnings or ends
    #[arg(value_name = "DEVICE")]
    devices: Vec<String>,
    /// All accepted devices whose labels match
    #[arg(short = 'l', long, value_name = "SELECTOR", value_parser = parse_selector)]
    selector: Option<String>,
    /// All accepted devices that the release fits
    #[arg(long)]
    all: bool,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
    /// Say what would happen, and change nothing
    #[arg(long, conflicts_with = "wait")]
    dry_run: bool,
    /// Follow the devices until all have ended
    #[arg(long)]
    wait: bool,
    /// Follow them no longer than this
    #[arg(long, value_name = "SPAN", default_value = "10m", value_parser = time::parse_span, requires = "wait")]
    timeout: Duration,
}

/// Checks a selector where it is typed, and keeps it as it was.
pub fn parse_selector(text: &str) -> Result<String, String> {
    if text.trim().is_empty() {
        return Err("an empty selector chooses nothing; say --all to mean all devices".to_owned());
    }
    match text.parse::<Selector>() {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

impl Assign {
    /// Says what it is about, gets consent, starts the rollout and follows it.
    pub async fn run(self, session: &mut Session) -> Result<(), Failure> {
        let client = session.client().await?;
        let choice = choose(&client, &self).await?;
        let wanted = Rollout {
            release: self.release.name(),
            target: Some(Target { choice: Some(choice) }),
            ..Rollout::default()
        };
        let request = PreviewRolloutRequest { rollout: Some(wanted.clone()) };
        let preview = client.rollouts().preview_rollout(request).await?.into_inner();
        if self.dry_run {
            return say_what_would_happen(session, &self.release, &preview);
        }
        session.messages.say(&describe(&self.release, &preview));
        let devices = text::count(preview.device_count, "device");
        let question = format!("Assign {} to {devices}?", self.release);
        session.asker.obtain(&question, need(preview.device_count, self.yes))?;

        // Chosen here, so that the same call sent twice starts one rollout alone.
        let request = CreateRolloutRequest { rollout_id: Uuid::now_v7().to_string(), rollout: Some(wanted) };
        let starting = async || client.rollouts().create_rollout(request.clone()).await;
        let rollout = promised(patiently(session.messages, "the start", starting).await?.into_inner().rollout)?;
        if !self.wait {
            return session.printer.done(&rollout, "started");
        }
        session.messages.say(&format!("rollout {} started", short(&rollout.name)));
        let followed = tokio::time::timeout(self.timeout, wait::until_ended(&client, session.messages, &rollout.name));
        match followed.await {
            Ok(ended) => {
                let ended = ended?;
                session.printer.done(&ended, wait::outcome(&ended))?;
                wait::judge(&client, &ended).await
            }
            Err(_) => {
                session.printer.done(&rollout, "still going on")?;
                let span = humantime::format_duration(self.timeout);
                Err(Failure::new(Exit::StillPending, format!("not all devices had ended after {span}"))
                    .hint(format!("the rollout goes on; see `otactl rollout get {}`", short(&rollout.name))))
            }
        }
    }
}

async fn choose(client: &Client, command: &Assign) -> Result<Choice, Failure> {
    if let Some(selector) = &command.selector {
        return Ok(Choice::Selector(selector.clone()));
    }
    if command.all {
        return Ok(Choice::All(true));
    }
    let mut names = device::resolve_all(client, &command.devices).await?;
    names.sort();
    names.dedup();
    Ok(Choice::Devices(DeviceList { names }))
}

/// Says in one line what an assignment is about.
fn describe(release: &ReleaseRef, preview: &PreviewRolloutResponse) -> String {
    let mut line = format!("{release} goes to {}", text::count(preview.device_count, "device"));
    if preview.current_count > 0 {
        line.push_str(&format!(", of which {} run it already", preview.current_count));
    }
    if preview.unfit_count > 0 {
        line.push_str(&format!("; it does not fit {} more", preview.unfit_count));
    }
    if preview.download_bytes > 0 {
        line.push_str(&format!("; at most {} to download in all", text::bytes(preview.download_bytes)));
    }
    line
}

fn say_what_would_happen(
    session: &mut Session,
    release: &ReleaseRef,
    preview: &PreviewRolloutResponse,
) -> Result<(), Failure> {
    let samples: Vec<_> = preview.samples.iter().map(|name| short(name)).collect();
    let facts = [
        Fact::new("Would assign", release.to_string()),
        Fact::new("Devices", preview.device_count.to_string()),
        Fact::new("  Run it already", preview.current_count.to_string()),
        Fact::new("Does not fit", preview.unfit_count.to_string()),
        Fact::new("To download", format!("at most {}", text::bytes(preview.download_bytes))),
        Fact::new("For example", samples.join("\n")),
    ];
    let document = Document::new("ota.admin.v1.PreviewRolloutResponse", preview);
    session.printer.answer(&document, &preview.samples.join("\n"), &facts)?;
    session.messages.say("dry run: nothing was changed");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_preview_is_said_in_one_line() {
        let release: ReleaseRef = "gateway-fw@1.2.0".parse().unwrap();
        let mut preview = PreviewRolloutResponse { device_count: 1, ..PreviewRolloutResponse::default() };
        assert_eq!(describe(&release, &preview), "gateway-fw@1.2.0 goes to 1 device");
        preview = PreviewRolloutResponse {
            device_count: 42,
            current_count: 3,
            unfit_count: 2,
            download_bytes: 1 << 30,
            ..preview
        };
        assert_eq!(
            describe(&release, &preview),
            "gateway-fw@1.2.0 goes to 42 devices, of which 3 run it already; it does not fit 2 more; \
             at most 1.00 GiB to download in all"
        );
    }

    #[test]
    fn an_empty_selector_means_nothing_and_not_all() {
        assert!(parse_selector(" ").unwrap_err().contains("--all"));
        assert!(parse_selector("site in (").is_err());
        assert_eq!(parse_selector("site=lab").as_deref(), Ok("site=lab"));
    }
}
