//! `ota-agent enroll`: joins a fleet.

use std::fs;
use std::process::ExitCode;

use anyhow::{Context, bail};
use ota_domain::secret::EnrollmentString;
use ota_domain::{Hardware, device};

use crate::clock::Clock;
use crate::config::Config;
use crate::data_dir::DataDir;
use crate::enroll::{self, Machine};
use crate::identity::Enrollment;

/// What `enroll` takes.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The enrolment string, ota1.<id>.<secret>.<pin>
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
    match text.parse() {
        Ok(string) => Ok(string),
        Err(_) if text.starts_with("ota1.") && text.split('.').count() < 4 => {
            Err("it is not whole: the last part, the pin, is missing".to_owned())
        }
        Err(error) => Err(format!("{error}")),
    }
}

pub(super) async fn enroll(config: Config, args: Args) -> anyhow::Result<ExitCode> {
    let data = DataDir::open(&config.data_dir)?;
    let known = Enrollment::load(data.path())?;
    let Some(server) = config.server.clone().or_else(|| known.map(|known| known.server)) else {
        bail!("no server: say --server https://…, or set it in the configuration");
    };
    let hardware = match args.hardware.or_else(|| config.hardware.clone()) {
        Some(hardware) => hardware,
        None => std::env::consts::ARCH.parse().context("say the hardware type with --hardware")?,
    };
    let hardware_id = args.hardware_id.or_else(|| config.hardware_id.clone()).unwrap_or_else(device_tree_serial);

    let machine = Machine { hardware, hardware_id };
    let enrollment = enroll::enroll(&data, server, &config, &args.string, machine, &Clock::system()).await?;
    let Enrollment { device, state, .. } = enrollment;
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
    use ota_domain::EnrollTokenId;
    use ota_domain::secret::Secret;
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_string_that_was_not_copied_whole_is_told_from_one_that_is_none() {
        let string = EnrollmentString { token: EnrollTokenId(Uuid::nil()), secret: Secret([7; 32]), pin: [8; 32] };
        let text = string.to_string();
        assert_eq!(parse_string(&text), Ok(string));
        let (cut, _) = text.rsplit_once('.').unwrap();
        assert!(parse_string(cut).unwrap_err().contains("the pin, is missing"));
        let error = parse_string("ota1.x.y.z").unwrap_err();
        assert!(error.contains("ota1.<id>.<secret>.<pin>"), "{error}");
    }
}
