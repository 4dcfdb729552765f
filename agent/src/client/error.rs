//! What a call can come back with, sorted by what the agent can do about it.

use std::error::Error as _;
use std::time::Duration;

use ota_domain::device;
use ota_proto::device::v1::ErrorReason;
use ota_tls::ConnectError;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::identity::KeyError;

/// Why a call did not do what it should.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No answer: no connection, or it broke.
    #[error("cannot reach the server: {reason}")]
    Unreachable {
        /// The innermost cause.
        reason: String,
    },
    /// What answers is not the server, or not over TLS as it should.
    #[error("cannot connect safely: {0}")]
    Connect(ConnectError),
    /// The device's own key or certificates cannot be used.
    #[error("cannot set up the connection: {reason}")]
    Setup {
        /// What is wrong.
        reason: String,
    },
    /// The server said no.
    #[error("the server refused: {message}")]
    Refused {
        /// The status code.
        code: Code,
        /// The reason, if it is one this agent knows.
        reason: Option<ErrorReason>,
        /// The server's words.
        message: String,
        /// When the server wants to be asked again.
        retry_after: Option<Duration>,
    },
    /// The answer makes no sense.
    #[error("the server sent {what}")]
    Nonsense {
        /// What it sent.
        what: String,
    },
}

/// What can be done about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Try again: the server or the way to it is down.
    Unreachable,
    /// Try again, but not for ever: the server has a fault.
    Faulty,
    /// Do not try again: the answer will be the same.
    Permanent,
    /// The device may not work: it waits for approval, or was kept or taken out.
    NotAdmitted(device::State),
    /// The server does not know the credential.
    Unknown,
}

impl Error {
    pub(super) fn nonsense(what: impl Into<String>) -> Self {
        Self::Nonsense { what: what.into() }
    }

    /// Returns the reason that the server gave.
    pub fn reason(&self) -> Option<ErrorReason> {
        match self {
            Self::Refused { reason, .. } => *reason,
            Self::Unreachable { .. } | Self::Connect(_) | Self::Setup { .. } | Self::Nonsense { .. } => None,
        }
    }

    /// Returns when the server wants to be asked again.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after, .. } => *retry_after,
            Self::Unreachable { .. } | Self::Connect(_) | Self::Setup { .. } | Self::Nonsense { .. } => None,
        }
    }

    /// Sorts the error.
    pub fn class(&self) -> Class {
        let code = match self {
            Self::Unreachable { .. } | Self::Connect(_) => return Class::Unreachable,
            Self::Setup { .. } => return Class::Permanent,
            Self::Nonsense { .. } => return Class::Faulty,
            Self::Refused { reason: Some(ErrorReason::DevicePending), .. } => {
                return Class::NotAdmitted(device::State::Pending);
            }
            Self::Refused { reason: Some(ErrorReason::DeviceRejected), .. } => {
                return Class::NotAdmitted(device::State::Rejected);
            }
            Self::Refused { reason: Some(ErrorReason::DeviceDecommissioned), .. } => {
                return Class::NotAdmitted(device::State::Decommissioned);
            }
            Self::Refused { code, .. } => *code,
        };
        match code {
            Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Aborted | Code::ResourceExhausted => {
                Class::Unreachable
            }
            Code::Unauthenticated => Class::Unknown,
            Code::Ok | Code::Unknown | Code::Internal | Code::DataLoss => Class::Faulty,
            Code::InvalidArgument
            | Code::NotFound
            | Code::AlreadyExists
            | Code::PermissionDenied
            | Code::FailedPrecondition
            | Code::OutOfRange
            | Code::Unimplemented => Class::Permanent,
        }
    }
}

impl From<KeyError> for Error {
    fn from(error: KeyError) -> Self {
        Self::Setup { reason: format!("the device's key cannot be used: {error}") }
    }
}

impl From<Status> for Error {
    fn from(status: Status) -> Self {
        // A status with a source was made on this side, out of a broken connection.
        if let Some(mut cause) = status.source() {
            if let Some(error) = ConnectError::find(cause) {
                return Self::Connect(error);
            }
            while let Some(inner) = cause.source() {
                cause = inner;
            }
            return Self::Unreachable { reason: cause.to_string() };
        }
        let reason = status
            .get_details_error_info()
            .and_then(|info| ErrorReason::from_str_name(&format!("ERROR_REASON_{}", info.reason)));
        let retry_after = status.get_details_retry_info().and_then(|info| info.retry_delay);
        let mut message = status.message().to_owned();
        for violation in status.get_details_bad_request().into_iter().flat_map(|bad| bad.field_violations) {
            message = format!("{message}; {}: {}", violation.field, violation.description);
        }
        if message.is_empty() {
            message = status.code().description().to_owned();
        }
        Self::Refused { code: status.code(), reason, message, retry_after }
    }
}

#[cfg(test)]
mod tests {
    use tonic_types::ErrorDetails;

    use super::*;

    fn refusal(code: Code, reason: &str) -> Error {
        let details = ErrorDetails::with_error_info(reason, "ota", std::collections::HashMap::new());
        Status::with_error_details(code, "no", details).into()
    }

    #[test]
    fn admission_is_told_apart_from_other_refusals() {
        for (reason, state) in [
            ("DEVICE_PENDING", device::State::Pending),
            ("DEVICE_REJECTED", device::State::Rejected),
            ("DEVICE_DECOMMISSIONED", device::State::Decommissioned),
        ] {
            assert_eq!(refusal(Code::PermissionDenied, reason).class(), Class::NotAdmitted(state));
        }
        assert_eq!(refusal(Code::PermissionDenied, "ROLE_INSUFFICIENT").class(), Class::Permanent);
        assert_eq!(refusal(Code::Unauthenticated, "CREDENTIAL_INVALID").class(), Class::Unknown);
    }

    #[test]
    fn a_server_that_is_away_is_not_a_server_that_says_no() {
        assert_eq!(refusal(Code::Unavailable, "DATABASE_UNAVAILABLE").class(), Class::Unreachable);
        assert_eq!(refusal(Code::NotFound, "PAYLOAD_NOT_ASSIGNED").class(), Class::Permanent);
        assert_eq!(refusal(Code::Internal, "INTERNAL").class(), Class::Faulty);
        assert_eq!(refusal(Code::NotFound, "A_REASON_OF_LATER").reason(), None);
    }

    #[test]
    fn all_fields_at_fault_are_told() {
        let mut details = ErrorDetails::with_bad_request_violation("hardware", "is too long");
        details.add_bad_request_violation("credential", "is too short");
        let error: Error = Status::with_error_details(Code::InvalidArgument, "bad fields", details).into();
        let text = error.to_string();
        assert_eq!(text, "the server refused: bad fields; hardware: is too long; credential: is too short");
    }
}
