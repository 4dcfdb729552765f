//! `ota-agent install`: does what a bundle has for this device, without a network.

use std::fs::File;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use ota_bundle::Bundle;

use super::once::{describe, tell_end};
use super::stop_on_signals;
use crate::agent::{Agent, Error};
use crate::client::Offer;
use crate::config::Config;

/// What `install` takes.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The bundle, made by `otactl export`
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

pub(super) async fn install(config: Config, args: Args) -> anyhow::Result<ExitCode> {
    let file = File::open(&args.file).with_context(|| format!("cannot read {}", args.file.display()))?;
    let bundle = Bundle::open(file).map_err(Error::Bundle)?;
    let (stop, _signals) = stop_on_signals()?;
    let mut agent = Agent::open(config, stop.clone())?;
    let offers = agent.open_bundle(bundle).await?;
    if offers.is_empty() {
        println!("nothing to do");
    }
    let mut code = ExitCode::SUCCESS;
    for offer in offers {
        if stop.is_cancelled() {
            bail!("stopped before all was done; run it again to go on");
        }
        match &offer {
            Offer::Job { job, .. } => println!("{}", describe(job, agent.running(&job.release)?.as_ref())),
            Offer::Unusable { failure, .. } => {
                eprintln!("cannot do what the bundle asks for: {}", failure.message);
                code = ExitCode::FAILURE;
                continue;
            }
        }
        // A gate is for the server's windows; whoever carries the bundle here has decided.
        agent.work_on(offer).await?;
        if agent.driver().is_busy() {
            bail!("stopped before all was done; run it again to go on");
        }
        let end = tell_end(&agent);
        if end != ExitCode::SUCCESS {
            code = end;
        }
    }
    Ok(code)
}
