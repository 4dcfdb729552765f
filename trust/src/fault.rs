//! Why metadata is not believed.

use std::fmt;

use serde::{Deserialize, Serialize};
use sigstore_tuf::Error as TufError;

use crate::metadata::ReadError;

/// The attack that a failed check guards against.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// A signature is missing or wrong, or a document is not what it should be.
    Arbitrary,
    /// A version, a release counter or a time is lower than one seen before.
    Rollback,
    /// A document has expired, or the answer to the nonce is wrong.
    Freeze,
    /// Documents do not belong together.
    MixAndMatch,
    /// The documents are another device's.
    OtherDevice,
    /// The release is not for this hardware.
    Hardware,
    /// The two repositories do not agree, or one of them does not know the release.
    Disagreement,
    /// A document is larger, or there are more of them, than allowed.
    Endless,
    /// The device's own record of trust is damaged.
    Store,
}

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

impl Fault {
    /// Its name in lower case.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Arbitrary => "arbitrary",
            Self::Rollback => "rollback",
            Self::Freeze => "freeze",
            Self::MixAndMatch => "mix_and_match",
            Self::OtherDevice => "other_device",
            Self::Hardware => "hardware",
            Self::Disagreement => "disagreement",
            Self::Endless => "endless",
            Self::Store => "store",
        }
    }

    /// An error of this kind.
    #[must_use]
    pub fn because(self, message: impl Into<String>) -> TrustError {
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
            ReadError::TooLarge { .. } => Fault::Endless,
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
