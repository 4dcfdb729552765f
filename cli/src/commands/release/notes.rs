//! Release notes from the command line.

use std::{fs, path::PathBuf};

use clap::Args;

use crate::error::Failure;

/// Where notes come from.
#[derive(Debug, Default, Args)]
#[group(multiple = false)]
pub struct Notes {
    /// What is new, at most 16 KiB
    #[arg(long, value_name = "TEXT")]
    notes: Option<String>,
    /// Read what is new from this file
    #[arg(long, value_name = "FILE")]
    notes_file: Option<PathBuf>,
}

impl Notes {
    /// Returns the notes, empty when there are none.
    pub fn read(self) -> Result<String, Failure> {
        match (self.notes, self.notes_file) {
            (Some(text), _) => Ok(text),
            (None, Some(path)) => fs::read_to_string(&path)
                .map_err(|error| Failure::because(format!("cannot read the notes from {}", path.display()), &error)),
            (None, None) => Ok(String::new()),
        }
    }

    /// Returns the notes, or fails when none were given.
    pub fn required(self) -> Result<String, Failure> {
        if self.notes.is_none() && self.notes_file.is_none() {
            return Err(
                Failure::usage("no notes given").hint("use --notes TEXT or --notes-file FILE; --notes '' removes them")
            );
        }
        self.read()
    }
}
