//! Standard error: what a person wants to know while data goes to standard output.

use std::io::{IsTerminal, Write};

use anstyle::AnsiColor;

use crate::text::clean;

/// Says things to the person, or nothing when asked to be quiet.
#[derive(Debug, Clone, Copy)]
pub struct Messages {
    quiet: bool,
}

impl Messages {
    /// Makes a speaker.
    pub fn new(quiet: bool) -> Self {
        Self { quiet }
    }

    /// Says something that helps and can be missed.
    pub fn say(self, text: &str) {
        if !self.quiet {
            Self::write(&clean(text));
        }
    }

    /// Says what the person has to do before it goes on.
    pub fn ask(self, text: &str) {
        Self::write(&clean(text));
    }

    /// Says something that must not be missed.
    pub fn warn(self, text: &str) {
        let style = AnsiColor::Yellow.on_default().bold();
        Self::write(&format!("{style}warning:{style:#} {}", clean(text)));
    }

    /// Tells whether a person sees this as it is written, and bars may move.
    pub fn is_live(self) -> bool {
        !self.quiet && std::io::stderr().is_terminal()
    }

    /// Tells whether to say nothing that can be missed.
    pub fn is_quiet(self) -> bool {
        self.quiet
    }

    /// Writes a line. Nobody is left to tell when standard error itself cannot be written.
    fn write(line: &str) {
        let _ = writeln!(anstream::stderr(), "{line}");
    }
}
