//! `ota-agent run`: works until stopped.

use std::process::ExitCode;

use super::stop_on_signals;
use crate::agent::Agent;
use crate::config::Config;

pub(super) async fn run(config: Config) -> anyhow::Result<ExitCode> {
    let (stop, _signals) = stop_on_signals()?;
    Agent::open(config, stop)?.run().await?;
    Ok(ExitCode::SUCCESS)
}
