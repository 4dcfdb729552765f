//! `ota-agent once`: checks in once and does what the server wants, asking a person first if told to.

use std::io::IsTerminal;
use std::process::ExitCode;

use anyhow::{Context, bail};
use indicatif::HumanBytes;
use tokio::task::block_in_place;

use super::stop_on_signals;
use crate::agent::Agent;
use crate::client::{Gate, Offer};
use crate::config::Config;
use crate::machine::Outcome;
use crate::release::{Job, Release};

/// Exit code when the device went back to the release before.
const ROLLED_BACK: u8 = 5;

/// What `once` takes.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Show what would be done and ask before doing it. "No" refuses the deployment for good; Escape leaves it as it is
    #[arg(long, env = "OTA_AGENT_CONFIRM")]
    confirm: bool,
}

/// What a person said.
enum Consent {
    Yes,
    No,
    Later,
}

pub(super) async fn once(config: Config, args: Args) -> anyhow::Result<ExitCode> {
    if args.confirm && !std::io::stdin().is_terminal() {
        bail!("--confirm asks a question, but standard input is no terminal");
    }
    let (stop, _signals) = stop_on_signals()?;
    let mut agent = Agent::open(config, stop.clone())?;
    let mut code = ExitCode::SUCCESS;
    let work_was_open = agent.driver().is_busy();
    agent.recover().await?;
    if work_was_open {
        code = tell_end(&agent);
    }
    agent.renew_if_due().await;
    let answer = agent.check_in().await?;
    if answer.offers.is_empty() {
        println!("nothing to do");
    }
    for offer in answer.offers {
        if stop.is_cancelled() {
            bail!("stopped before all was done; the next run goes on");
        }
        match consent(&agent, &offer, args.confirm)? {
            Consent::Yes => agent.work_on(offer).await?,
            Consent::No => agent.refuse(offer).await?,
            Consent::Later => continue,
        }
        if agent.driver().is_busy() {
            bail!("stopped before all was done; the next run goes on");
        }
        let end = tell_end(&agent);
        if end != ExitCode::SUCCESS {
            code = end;
        }
    }
    Ok(code)
}

fn consent(agent: &Agent, offer: &Offer, confirm: bool) -> anyhow::Result<Consent> {
    let Offer::Job { job, gate, .. } = offer else { return Ok(Consent::Yes) };
    let running = agent.running(&job.release)?;
    println!("{}", describe(job, running.as_ref()));
    match (gate, confirm) {
        (Gate::Closed, _) => {
            println!("not now: the server has not opened the window for it");
            Ok(Consent::Later)
        }
        (Gate::Confirm, false) => {
            println!("waits for a person: run `ota-agent once --confirm`");
            Ok(Consent::Later)
        }
        (Gate::Open, false) => Ok(Consent::Yes),
        (Gate::Open | Gate::Confirm, true) => {
            let question =
                inquire::Confirm::new("Install it?").with_help_message("y installs, n refuses, Esc leaves it");
            let answer = block_in_place(|| question.prompt_skippable()).context("no answer; nothing was changed")?;
            Ok(match answer {
                Some(true) => Consent::Yes,
                Some(false) => Consent::No,
                None => Consent::Later,
            })
        }
    }
}

pub(super) fn describe(job: &Job, running: Option<&Release>) -> String {
    let Release { package, version, payload, installer, .. } = &job.release;
    let from = running.map_or_else(|| "nothing".to_owned(), |running| running.version.to_string());
    format!("{package}: {from} -> {version} ({}, installer {})", HumanBytes(payload.size_bytes), installer.as_str())
}

pub(super) fn tell_end(agent: &Agent) -> ExitCode {
    let Some(settled) = agent.driver().last_settled() else { return ExitCode::SUCCESS };
    println!("{}: {}", settled.release, settled.outcome);
    match &settled.outcome {
        Outcome::Committed | Outcome::Rejected(_) | Outcome::Canceled => ExitCode::SUCCESS,
        Outcome::Failed(_) => ExitCode::FAILURE,
        Outcome::RolledBack(failure) => {
            if !failure.log_tail.is_empty() {
                eprintln!("the last lines of the hook:\n{}", failure.log_tail.trim_end());
            }
            ExitCode::from(ROLLED_BACK)
        }
    }
}

#[cfg(test)]
mod tests {
    use ota_domain::release::{Installer, Payload};
    use ota_domain::{DeploymentId, Sha256Digest};
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_person_is_told_what_comes_in_place_of_what() {
        let release = Release {
            package: "app".parse().unwrap(),
            version: "2.0.0".parse().unwrap(),
            payload: Payload { sha256: Sha256Digest([1; 32]), size_bytes: 5 << 20 },
            release_counter: 2,
            installer: Installer::Directory,
        };
        let old = Release { version: "1.0.0".parse().unwrap(), ..release.clone() };
        let job = Job {
            deployment: DeploymentId(Uuid::nil()),
            attempt: 1,
            release,
            hardware: Vec::new(),
            unpacked_size_bytes: 0,
            bandwidth_limit: None,
            download_deadline: None,
            verify_deadline: None,
        };
        assert_eq!(describe(&job, Some(&old)), "app: 1.0.0 -> 2.0.0 (5.00 MiB, installer directory)");
        assert_eq!(describe(&job, None), "app: nothing -> 2.0.0 (5.00 MiB, installer directory)");
    }
}
