//! The command line: one module for each command, and the one place where errors become words and exit codes.

mod enroll;
mod hint;
mod install;
mod once;
mod run;
mod status;

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use crate::config::{Config, Flags};

#[derive(Debug, Parser)]
#[command(name = "ota-agent", version, about = ABOUT, long_about = LONG_ABOUT, after_long_help = AFTER_HELP)]
struct Cli {
    #[command(flatten)]
    flags: Flags,
    #[command(subcommand)]
    command: Command,
}

const ABOUT: &str = "Keeps this device's software up to date, from an update server";

const LONG_ABOUT: &str = "\
Keeps this device's software up to date, from an update server.

Enrol the device once, then let it run:

    ota-agent enroll ota1.… --server https://127.0.0.1:8443
    ota-agent run

A release is put beside the one that runs and takes its place in one step. It has to prove itself by its health \
check, or the device goes back by itself. Nothing is lost when the power goes, at any moment.";

const AFTER_HELP: &str = "\
Files, in the data directory:
  packages/<package>/current   what runs; start your service from here
  packages/<package>/logs/     what the hooks of a release wrote last
  enrollment.json, identity/   who the device is; identity/key.pem is secret

The release of a folder may bring the programs ota/hooks/stop, ota/hooks/start and ota/hooks/health. They get \
OTA_PACKAGE, OTA_VERSION, OTA_RELEASE_DIR and OTA_PREVIOUS_DIR, have deadlines, and may run twice after a crash. A \
start hook may leave a program running. What has to start at boot is the business of the system's service manager.

Every flag is also an environment variable. OTA_AGENT_LOG sets the log level, such as debug.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Join a fleet with an enrolment string from `otactl enroll-token create`
    Enroll(enroll::Args),
    /// Work until stopped: check in, download, install, report
    Run,
    /// Check in once, do what the server wants, and end
    Once(once::Args),
    /// Install what a file from `otactl export` has for this device, without a network
    Install(install::Args),
    /// Show what runs, what is being done and how the last work ended
    Status(status::Args),
}

/// Reads the command line, does what it says and returns the exit code.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let level = match &cli.command {
        Command::Run => "info",
        Command::Enroll(_) | Command::Once(_) | Command::Install(_) | Command::Status(_) => "warn",
    };
    let filter = EnvFilter::try_from_env("OTA_AGENT_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    // Colours are for people: not for files and journals, nor for people who said no.
    let has_colors =
        std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(has_colors)
        .with_target(false)
        .init();
    match try_main(cli) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {}", hint::chain(&error));
            if let Some(hint) = hint::hint(&error) {
                eprintln!("hint: {hint}");
            }
            ExitCode::FAILURE
        }
    }
}

fn try_main(cli: Cli) -> anyhow::Result<ExitCode> {
    let config = Config::load(&cli.flags)?;
    // Two threads: one may be busy with the disk while the other keeps the connection alive.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        match cli.command {
            Command::Enroll(args) => enroll::enroll(config, args).await,
            Command::Run => run::run(config).await,
            Command::Once(args) => once::once(config, args).await,
            Command::Install(args) => install::install(config, args).await,
            Command::Status(args) => status::status(&config, args),
        }
    })
}

/// Asks the agent to stop at the first SIGTERM or SIGINT. Lives as long as the returned set.
fn stop_on_signals() -> anyhow::Result<(CancellationToken, JoinSet<()>)> {
    let stop = CancellationToken::new();
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut tasks = JoinSet::new();
    let token = stop.clone();
    tasks.spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping at the next safe point");
        token.cancel();
    });
    Ok((stop, tasks))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }
}
