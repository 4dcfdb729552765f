//! `completion`: scripts that let shells complete commands and options.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::{cli::Cli, error::Failure, session::Session};

const EXAMPLES: &str = "\
Examples:
  otactl completion bash > /etc/bash_completion.d/otactl
  otactl completion zsh > ~/.zfunc/_otactl
  otactl completion fish > ~/.config/fish/completions/otactl.fish";

/// Arguments of `completion`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Completion {
    /// The shell
    #[arg(value_enum, value_name = "SHELL")]
    shell: Shell,
}

impl Completion {
    /// Writes the script.
    pub fn run(self, session: &mut Session) -> Result<(), Failure> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "otactl", &mut script);
        session.printer.raw(&script)
    }
}
