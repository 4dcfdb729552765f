//! `ota-agent enroll`: joins a fleet.

use std::fs;
use std::process::ExitCode;

use anyhow::{Context, bail};
use chrono::Utc;
use ota_domain::secret::EnrollmentString;
use ota_domain::{Hardware, device};

use crate::client;
use crate::config::Config;
use crate::data_dir::DataDir;
use crate::identity::{Credential, Enrollment};

/// What `enroll` takes.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The enrolment string, ota1.<id>.<secret>
    #[arg(env = "OTA_AGENT_ENROLLMENT", hide_env_values = true, value_name = "STRING", value_parser = parse_string)]
    string: EnrollmentString,
    /// Hardware type, such as rpi4; releases say which they fit [default: this machine's architecture]
    #[arg(long, env = "OTA_AGENT_HARDWARE", value_name = "TYPE")]
    hardware: Option<Hardware>,
    /// What the maker calls this one machine, such as a board serial [default: the device tree's serial number]
    #[arg(long, env = "OTA_AGENT_HARDWARE_ID", value_name = "ID")]
    hardware_id: Option<String>,
}

fn parse_string(text: &str) -> Result<EnrollmentString, String> {
    let too_new = "it has more parts than this agent knows; a newer agent may understand it";
    match text.parse() {
        Ok(string) => Ok(string),
        Err(_) if text.starts_with("ota1.") && text.split('.').count() > 3 => Err(too_new.to_owned()),
        Err(error) => Err(format!("{error}")),
    }
}

pub(super) async fn enroll(config: Config, args: Args) -> anyhow::Result<ExitCode> {
    let data = DataDir::open(&config.data_dir)?;
    let known = Enrollment::load(data.path())?;
    let Some(server) = config.server.or_else(|| known.as_ref().map(|known| known.server.clone())) else {
        bail!("no server: say --server http://…, or set it in the configuration");
    };
    if !server.is_loopback() && !config.insecure {
        return Err(crate::agent::Error::Insecure { server }.into());
    }
    if let Some(known) = known
        && Credential::load(data.path())?.is_none_or(|credential| credential.token != args.string.token)
    {
        bail!(
            "this data directory belongs to device {} already; to enrol another device, name another with --data-dir",
            known.device
        );
    }
    let hardware = match args.hardware.or(config.hardware) {
        Some(hardware) => hardware,
        None => std::env::consts::ARCH.parse().context("say the hardware type with --hardware")?,
    };
    let hardware_id = args.hardware_id.or(config.hardware_id).unwrap_or_else(device_tree_serial);

    // On disk before the server hears of it: an enrolment that is cut short can be repeated.
    let credential = Credential::for_token(data.path(), args.string.token, &mut rand::rng())?;
    let channel = client::channel(&server)?;
    let (device, state) = client::enroll(channel, &args.string, &credential, &hardware, &hardware_id)
        .await
        .with_context(|| format!("cannot enrol at {server}"))?;
    Enrollment { device, server, hardware, state, enrolled_at: Utc::now() }.save(data.path())?;

    println!("{device}");
    match state {
        device::State::Pending => eprintln!("enrolled; an operator has to approve it: otactl device approve {device}"),
        device::State::Accepted | device::State::Rejected | device::State::Decommissioned => {
            eprintln!("enrolled; start `ota-agent run` with the same data directory");
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Returns the serial number that a board's firmware tells, empty where there is none.
fn device_tree_serial() -> String {
    let text = fs::read_to_string("/sys/firmware/devicetree/base/serial-number").unwrap_or_default();
    text.trim_matches(['\0', '\n', ' ']).chars().take(128).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_string_with_a_part_of_later_is_refused_with_the_reason() {
        let id = "01890a5dac96774bbcceb302099a8057";
        let secret = bs58::encode([7; 32]).into_string();
        assert!(parse_string(&format!("ota1.{id}.{secret}")).is_ok());
        let error = parse_string(&format!("ota1.{id}.{secret}.pin")).unwrap_err();
        assert!(error.contains("more parts"), "{error}");
        let error = parse_string("ota1.x.y").unwrap_err();
        assert!(error.contains("ota1.<id>.<secret>"), "{error}");
    }
}
