//! Why metadata is not believed.

use std::fmt;

pub use ota_domain::TrustFault as Fault;
use sigstore_tuf::Error as TufError;

use crate::metadata::ReadError;

/// A check failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustError {
    /// The attack that the check guards against.
    pub fault: Fault,
    /// What was found, for a person.
    pub message: String,
}

impl fmt::Display for TrustError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for TrustError {}

/// Makes errors of faults.
pub trait Because {
    /// An error of this kind.
    #[must_use]
    fn because(self, message: impl Into<String>) -> TrustError;
}

impl Because for Fault {
    fn because(self, message: impl Into<String>) -> TrustError {
        TrustError { fault: self, message: message.into() }
    }
}

impl TrustError {
    /// The same error, saying what was looked at.
    #[must_use]
    pub(crate) fn of(self, what: &str) -> Self {
        Self { fault: self.fault, message: format!("{what}: {}", self.message) }
    }
}

impl From<ReadError> for TrustError {
    fn from(error: ReadError) -> Self {
        let fault = match &error {
            ReadError::TooLarge { .. } | ReadError::TooMuch { .. } => Fault::Endless,
            ReadError::Malformed { .. } => Fault::Arbitrary,
        };
        fault.because(error.to_string())
    }
}

impl From<TufError> for TrustError {
    fn from(error: TufError) -> Self {
        let fault = match &error {
            TufError::Rollback { .. } | TufError::EqualVersion { .. } => Fault::Rollback,
            TufError::BadRootVersion { trusted, new } if new <= trusted => Fault::Rollback,
            TufError::BadRootVersion { .. } | TufError::IntegrityMismatch(_) | TufError::NotRefreshed => {
                Fault::MixAndMatch
            }
            TufError::Expired { .. } => Fault::Freeze,
            TufError::TargetNotFound(_) => Fault::Disagreement,
            TufError::Json(_)
            | TufError::Malformed(_)
            | TufError::NonIntegerNumber
            | TufError::UnusableKey { .. }
            | TufError::UnsupportedScheme { .. }
            | TufError::UnknownRole(_)
            | TufError::DuplicateSignature { .. }
            | TufError::ThresholdNotMet { .. }
            | TufError::Crypto(_)
            | TufError::Io { .. }
            | TufError::Transport { .. }
            | _ => Fault::Arbitrary,
        };
        let mut message = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            message = format!("{message}: {cause}");
            source = cause.source();
        }
        fault.because(message)
    }
}
