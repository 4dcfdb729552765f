//! The command line: all commands and what `--help` says about them.

use clap::{Parser, Subcommand};

use crate::{commands, error::Failure, options::GlobalOptions, session::Session};

const ROOT_EXAMPLES: &str = "\
Examples:
  otactl login https://127.0.0.1:8443 --ca-file ca.pem --token-file admin-token
  otactl upload ./build --package gateway-fw --version 1.2.0 --hardware rpi4
  otactl assign gateway-fw@1.2.0 -l site=lab --wait
  otactl device list -o json | jq -r '.devices[].name'

Exit codes:
  0 done    1 failed    2 wrong usage    4 not logged in    5 ended with failures    8 still pending    130 interrupted";

/// Run a fleet of devices: upload releases, assign them, see what happens
#[derive(Debug, Parser)]
#[command(name = "otactl", version, after_help = ROOT_EXAMPLES, max_term_width = 110)]
#[command(arg_required_else_help = true, subcommand_required = true)]
pub struct Cli {
    /// Options of every command.
    #[command(flatten)]
    pub options: GlobalOptions,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Save a server and a token
    Login(commands::login::Login),
    /// Forget a server and its token
    Logout(commands::login::Logout),
    /// Show the server's state and what needs a person
    Status(commands::status::Status),
    /// Ask whether a server is ready; needs no login
    Health(commands::health::Health),
    /// Publish a file or a folder as a release
    Upload(commands::upload::Upload),
    /// Bring a release to devices
    Assign(commands::assign::Assign),
    /// Look after devices
    #[command(subcommand, alias = "devices")]
    Device(commands::device::DeviceCommand),
    /// Look after packages, the lines of software
    #[command(subcommand, alias = "packages")]
    Package(commands::package::PackageCommand),
    /// Look after releases, the versions of packages
    #[command(subcommand, alias = "releases")]
    Release(commands::release::ReleaseCommand),
    /// Follow rollouts, the campaigns that bring a release to devices
    #[command(subcommand, alias = "rollouts")]
    Rollout(commands::rollout::RolloutCommand),
    /// Follow deployments, the journeys of single devices
    #[command(subcommand, alias = "deployments")]
    Deployment(commands::deployment::DeploymentCommand),
    /// Write what devices should run to a file, for devices without a network
    Export(commands::export::Export),
    /// Look after the keys that devices trust
    #[command(subcommand)]
    Keys(commands::keys::KeysCommand),
    /// Read what happened and who did it
    #[command(subcommand, alias = "events")]
    Event(commands::event::EventCommand),
    /// Let machines join the fleet
    #[command(subcommand, alias = "enroll-tokens")]
    EnrollToken(commands::enroll_token::EnrollTokenCommand),
    /// Let people and programs use this API
    #[command(subcommand, alias = "tokens")]
    Token(commands::token::TokenCommand),
    /// Choose between saved servers
    #[command(subcommand, alias = "contexts")]
    Context(commands::context::ContextCommand),
    /// Write a completion script for a shell
    Completion(commands::completion::Completion),
    /// Write manual pages
    Man(commands::man::Man),
}

impl Command {
    /// Does it.
    pub async fn run(self, session: &mut Session) -> Result<(), Failure> {
        match self {
            Self::Login(command) => command.run(session).await,
            Self::Logout(command) => command.run(session),
            Self::Status(command) => command.run(session).await,
            Self::Health(command) => command.run(session).await,
            Self::Upload(command) => command.run(session).await,
            Self::Assign(command) => command.run(session).await,
            Self::Device(command) => command.run(session).await,
            Self::Package(command) => command.run(session).await,
            Self::Release(command) => command.run(session).await,
            Self::Rollout(command) => command.run(session).await,
            Self::Deployment(command) => command.run(session).await,
            Self::Export(command) => command.run(session).await,
            Self::Keys(command) => command.run(session).await,
            Self::Event(command) => command.run(session).await,
            Self::EnrollToken(command) => command.run(session).await,
            Self::Token(command) => command.run(session).await,
            Self::Context(command) => command.run(session),
            Self::Completion(command) => command.run(session),
            Self::Man(command) => command.run(session),
        }
    }

    /// Returns what a person who presses Ctrl-C in the middle should know.
    pub fn interruption_hint(&self) -> Option<&'static str> {
        match self {
            Self::Upload(_) => Some("what was sent is kept: the same command goes on from there"),
            Self::Assign(_) => Some("a rollout that was started goes on by itself; see `otactl rollout list`"),
            Self::Keys(_) => Some("whatever was done holds: the same command does the rest"),
            Self::Export(_) => Some("payloads that were fetched are kept: the same command goes on from there"),
            Self::Login(_)
            | Self::Logout(_)
            | Self::Status(_)
            | Self::Health(_)
            | Self::Device(_)
            | Self::Package(_)
            | Self::Release(_)
            | Self::Rollout(_)
            | Self::Deployment(_)
            | Self::Event(_)
            | Self::EnrollToken(_)
            | Self::Token(_)
            | Self::Context(_)
            | Self::Completion(_)
            | Self::Man(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn verify_cli() {
        Cli::command().debug_assert();
    }

    /// Visits every command with its full name.
    fn each(command: &clap::Command, path: &str, visit: &mut impl FnMut(&str, &clap::Command)) {
        visit(path, command);
        for child in command.get_subcommands() {
            each(child, &format!("{path} {}", child.get_name()), visit);
        }
    }

    #[test]
    fn every_command_and_argument_says_what_it_is_for() {
        each(&Cli::command(), "otactl", &mut |path, command| {
            assert!(command.get_about().is_some(), "{path} has no description");
            for argument in command.get_arguments() {
                assert!(argument.get_help().is_some(), "{path}: {} has no help", argument.get_id());
            }
        });
    }

    #[test]
    fn every_command_that_does_something_has_an_example() {
        each(&Cli::command(), "otactl", &mut |path, command| {
            if !command.has_subcommands() {
                let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
                assert!(help.contains("otactl "), "{path} has no example");
            }
        });
    }

    #[test]
    fn no_option_takes_a_token_itself() {
        each(&Cli::command(), "otactl", &mut |path, command| {
            for argument in command.get_arguments() {
                let id = argument.get_id().as_str();
                assert!(!matches!(id, "token" | "password" | "secret"), "{path} takes a {id} that others can read");
            }
        });
    }
}
