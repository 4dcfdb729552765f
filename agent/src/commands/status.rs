//! `ota-agent status`: shows what the device runs and does.

use std::io::Write;
use std::process::ExitCode;

use crate::config::Config;
use crate::status::Status;

/// What `status` takes.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// How to write it
    #[arg(short, long, env = "OTA_AGENT_OUTPUT", value_enum, default_value = "text")]
    output: Output,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Output {
    Text,
    Json,
}

pub(super) fn status(config: &Config, args: Args) -> anyhow::Result<ExitCode> {
    let status = Status::read(&config.data_dir)?;
    let mut stdout = std::io::stdout().lock();
    match args.output {
        Output::Text => write!(stdout, "{status}")?,
        Output::Json => {
            serde_json::to_writer_pretty(&mut stdout, &status)?;
            writeln!(stdout)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
