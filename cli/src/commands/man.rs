//! `man`: manual pages made from the same text as `--help`.

use std::{fs, path::PathBuf};

use clap::{Args, CommandFactory};

use crate::{cli::Cli, error::Failure, session::Session};

const EXAMPLES: &str = "\
Examples:
  otactl man | man -l -
  otactl man --dir /usr/local/share/man/man1";

/// Arguments of `man`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Man {
    /// Write a page for each command into this folder; without it, the first page goes to standard output
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

impl Man {
    /// Writes the pages.
    pub fn run(self, session: &mut Session) -> Result<(), Failure> {
        let command = Cli::command();
        let Some(dir) = self.dir else {
            let mut page = Vec::new();
            clap_mangen::Man::new(command).render(&mut page).map_err(Failure::output)?;
            return session.printer.raw(&page);
        };
        let write = || {
            fs::create_dir_all(&dir)?;
            clap_mangen::generate_to(command, &dir)
        };
        write().map_err(|error| Failure::because(format!("cannot write manual pages to {}", dir.display()), &error))
    }
}
