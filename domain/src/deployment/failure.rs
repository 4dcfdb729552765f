//! Why a deployment did not work.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::violation::Violations;

/// Most characters in a failure's message.
pub const MAX_MESSAGE_CHARS: usize = 1024;
/// Most bytes in a failure's log tail.
pub const MAX_LOG_TAIL_BYTES: usize = 8 * 1024;

/// Why a deployment did not work, as a class programs can act on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureCode {
    /// Not known: the device did not say, or named a class that came after this program.
    Unspecified,
    /// The bytes could not be fetched.
    Download,
    /// The bytes do not hash to the payload.
    Checksum,
    /// No space left on the device.
    NoSpace,
    /// The archive breaks a rule.
    Archive,
    /// The install itself failed.
    Install,
    /// A hook failed.
    Hook,
    /// The release did not become healthy in time.
    Health,
    /// A part of the work passed its deadline.
    Deadline,
    /// The release does not fit this hardware.
    Hardware,
    /// The device does not know the installer.
    Installer,
    /// A signature or a floor forbids the release.
    Trust,
    /// The agent lost its record of the work and went back to what runs.
    JournalLost,
    /// The trial was interrupted too often.
    TriesExhausted,
    /// A person at the device refused.
    Refused,
}

impl FailureCode {
    /// All classes.
    pub const ALL: [Self; 15] = [
        Self::Unspecified,
        Self::Download,
        Self::Checksum,
        Self::NoSpace,
        Self::Archive,
        Self::Install,
        Self::Hook,
        Self::Health,
        Self::Deadline,
        Self::Hardware,
        Self::Installer,
        Self::Trust,
        Self::JournalLost,
        Self::TriesExhausted,
        Self::Refused,
    ];

    /// The name the API uses, without the enum's prefix.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unspecified => "UNSPECIFIED",
            Self::Download => "DOWNLOAD",
            Self::Checksum => "CHECKSUM",
            Self::NoSpace => "NO_SPACE",
            Self::Archive => "ARCHIVE",
            Self::Install => "INSTALL",
            Self::Hook => "HOOK",
            Self::Health => "HEALTH",
            Self::Deadline => "DEADLINE",
            Self::Hardware => "HARDWARE",
            Self::Installer => "INSTALLER",
            Self::Trust => "TRUST",
            Self::JournalLost => "JOURNAL_LOST",
            Self::TriesExhausted => "TRIES_EXHAUSTED",
            Self::Refused => "REFUSED",
        }
    }
}

/// The text names no class of failure.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no class of failure")]
pub struct ParseFailureCodeError;

impl FromStr for FailureCode {
    type Err = ParseFailureCodeError;

    fn from_str(text: &str) -> Result<Self, ParseFailureCodeError> {
        Self::ALL.into_iter().find(|code| code.as_str() == text).ok_or(ParseFailureCodeError)
    }
}

/// Why a deployment did not work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Its class.
    pub code: FailureCode,
    /// One sentence for a person.
    pub message: String,
    /// The last lines that hooks or modules wrote.
    pub log_tail: String,
}
impl Failure {
    /// Notes every text that is too long or cannot be stored, as `field.<part>`.
    pub fn check(&self, field: &str, violations: &mut Violations) {
        violations.require(
            self.message.chars().count() <= MAX_MESSAGE_CHARS && !self.message.contains('\0'),
            format!("{field}.message"),
            format!("must have at most {MAX_MESSAGE_CHARS} characters and no NUL"),
        );
        violations.require(
            self.log_tail.len() <= MAX_LOG_TAIL_BYTES && !self.log_tail.contains('\0'),
            format!("{field}.log_tail"),
            format!("must have at most {MAX_LOG_TAIL_BYTES} bytes and no NUL"),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_read_as_it_is_written() {
        assert!(FailureCode::ALL.into_iter().all(|code| code.as_str().parse() == Ok(code)));
        assert_eq!("no_space".parse::<FailureCode>(), Err(ParseFailureCodeError));
    }

    #[test]
    fn texts_are_held_to_their_limits() {
        let told = |message: &str, log_tail: &str| {
            let failure =
                Failure { code: FailureCode::Hook, message: message.to_owned(), log_tail: log_tail.to_owned() };
            let mut violations = Violations::default();
            failure.check("failure", &mut violations);
            violations.finish(Some(())).map_err(|told| told.into_iter().map(|it| it.field).collect::<Vec<_>>())
        };
        assert_eq!(told(&"é".repeat(MAX_MESSAGE_CHARS), &"x".repeat(MAX_LOG_TAIL_BYTES)), Ok(()));
        let both = vec!["failure.message".to_owned(), "failure.log_tail".to_owned()];
        assert_eq!(told(&"é".repeat(MAX_MESSAGE_CHARS + 1), &"x".repeat(MAX_LOG_TAIL_BYTES + 1)), Err(both.clone()));
        assert_eq!(told("\0", "\0"), Err(both));
    }
}
