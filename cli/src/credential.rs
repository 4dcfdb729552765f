//! The API token: where it may come from, and that it shows nowhere.
//!
//! Never an argument: other users of the machine can read those.

use std::{
    fmt, fs,
    io::{self, IsTerminal, Read},
    path::Path,
};

use serde::{Deserialize, Serialize};
use tonic::metadata::{Ascii, MetadataValue};

use crate::error::{Exit, Failure};

/// Environment variable that holds a token.
pub const TOKEN_VARIABLE: &str = "OTACTL_TOKEN";

/// Most bytes that are read in search of a token. Tokens are around a hundred.
const MAX_TOKEN_BYTES: u64 = 4096;

/// An API token. Its `Debug` does not show it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Token(String);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

impl Token {
    /// Takes a token as text, with the white space that files and pipes put around it.
    pub fn parse(text: &str) -> Result<Self, Failure> {
        let text = text.trim();
        if text.is_empty() {
            return Err(Failure::new(Exit::NotAuthenticated, "the token is empty"));
        }
        if !text.chars().all(|c| c.is_ascii_graphic()) {
            return Err(Failure::new(
                Exit::NotAuthenticated,
                "this is no token: it holds white space or special characters",
            ));
        }
        Ok(Self(text.to_owned()))
    }

    /// Reads a token from a file, or from standard input for `-`.
    pub fn read(path: &Path) -> Result<Self, Failure> {
        if path.as_os_str() == "-" {
            return Self::read_from(io::stdin(), "cannot read the token from standard input");
        }
        let what = format!("cannot read the token from {}", path.display());
        let file = fs::File::open(path).map_err(|error| Failure::because(&what, &error))?;
        Self::read_from(file, &what)
    }

    /// Gets a token for `login`: from standard input when something is piped in, else by asking.
    pub fn ask(may_ask: bool) -> Result<Self, Failure> {
        if !io::stdin().is_terminal() {
            return Self::read_from(io::stdin(), "cannot read the token from standard input");
        }
        if !may_ask {
            return Err(Failure::usage("no token given").hint("use --token-file FILE, or pipe the token in"));
        }
        let answer = inquire::Password::new("API token:").without_confirmation().prompt();
        match answer {
            Ok(text) => Self::parse(&text),
            Err(inquire::InquireError::OperationInterrupted | inquire::InquireError::OperationCanceled) => {
                Err(Failure::new(Exit::Interrupted, "interrupted; nothing was changed"))
            }
            Err(error) => Err(Failure::because("cannot ask for the token", &error)),
        }
    }

    fn read_from(reader: impl Read, what: &str) -> Result<Self, Failure> {
        let mut text = String::new();
        reader.take(MAX_TOKEN_BYTES).read_to_string(&mut text).map_err(|error| Failure::because(what, &error))?;
        Self::parse(&text)
    }

    /// Returns the token as the value of `authorization`, marked so that no log shows it.
    pub fn header(&self) -> MetadataValue<Ascii> {
        let mut value = MetadataValue::try_from(format!("Bearer {}", self.0))
            .expect("a token holds graphic ASCII characters alone, which any header may");
        value.set_sensitive(true);
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_end_of_a_file_is_not_part_of_the_token() {
        assert_eq!(Token::parse(" ota_a_b\r\n").unwrap().header(), "Bearer ota_a_b");
    }

    #[test]
    fn what_is_no_token_is_refused_before_it_is_sent() {
        for wrong in ["", "\n", "two words", "naïve", "a\u{0}b"] {
            assert_eq!(Token::parse(wrong).unwrap_err().exit().code(), 4, "{wrong:?}");
        }
    }

    #[test]
    fn debug_output_hides_the_token() {
        let token = Token::parse("ota_secret").unwrap();
        assert!(!format!("{token:?} {:?}", token.header()).contains("secret"));
    }
}
