//! Errors of the use cases as gRPC has them: a code, `google.rpc.ErrorInfo` with the reason, and `BadRequest` with every
//! field at fault.

use std::{collections::HashMap, time::Duration};

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::{
    app::{Class, Dependency, Error, Reason},
    auth::current_request_id,
};

/// The `domain` of every `ErrorInfo`.
pub const DOMAIN: &str = "ota";

/// How long a caller should wait before it tries again what was unavailable.
const RETRY_AFTER: Duration = Duration::from_secs(2);

impl From<Class> for Code {
    fn from(class: Class) -> Self {
        match class {
            Class::InvalidArgument => Self::InvalidArgument,
            Class::Unauthenticated => Self::Unauthenticated,
            Class::PermissionDenied => Self::PermissionDenied,
            Class::NotFound => Self::NotFound,
            Class::AlreadyExists => Self::AlreadyExists,
            Class::FailedPrecondition => Self::FailedPrecondition,
            Class::Aborted => Self::Aborted,
            Class::OutOfRange => Self::OutOfRange,
            Class::ResourceExhausted => Self::ResourceExhausted,
            Class::DataLoss => Self::DataLoss,
            Class::Cancelled => Self::Cancelled,
            Class::Unavailable => Self::Unavailable,
            Class::Unimplemented => Self::Unimplemented,
            Class::Internal => Self::Internal,
        }
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        match error {
            Error::Invalid(violations) => {
                let mut details = details(Reason::FieldsInvalid);
                for violation in violations {
                    details.add_bad_request_violation(violation.field, violation.description);
                }
                Self::with_error_details(Code::InvalidArgument, message, details)
            }
            Error::Refused { reason, .. } => {
                let mut details = details(reason);
                if let Some(wait) = retry_after(reason) {
                    details.set_retry_info(Some(wait));
                }
                Self::with_error_details(reason.class().into(), message, details)
            }
            Error::RateLimited { retry_after } => {
                let reason = Reason::RateLimited;
                let mut details = details(reason);
                details.set_retry_info(Some(retry_after));
                Self::with_error_details(reason.class().into(), message, details)
            }
            Error::Unavailable { dependency, source } => {
                tracing::warn!(request_id = &*current_request_id(), error = %Chain(source.as_ref()), "{message}");
                let mut details = details(match dependency {
                    Dependency::Database => Reason::DatabaseUnavailable,
                    Dependency::BlobStore => Reason::BlobStoreUnavailable,
                    Dependency::IdentityProvider => Reason::IdentityProviderUnavailable,
                });
                details.set_retry_info(Some(RETRY_AFTER));
                Self::with_error_details(Code::Unavailable, message, details)
            }
            Error::Internal(source) => {
                let error = Chain(source.as_ref());
                tracing::error!(request_id = &*current_request_id(), %error, "a request failed by a fault of the server's own");
                Self::with_error_details(Code::Internal, message, details(Reason::Internal))
            }
        }
    }
}

/// How long a device that waits for approval should wait before it asks again.
const PENDING_RETRY_AFTER: Duration = Duration::from_secs(15);
/// How long to wait until an operator may have made room.
const EXHAUSTED_RETRY_AFTER: Duration = Duration::from_secs(60);

/// When the same request may go better. What is exhausted comes back; how soon is a guess, unless a limit knows it.
fn retry_after(reason: Reason) -> Option<Duration> {
    if reason == Reason::DevicePending {
        return Some(PENDING_RETRY_AFTER);
    }
    (reason.class() == Class::ResourceExhausted).then_some(EXHAUSTED_RETRY_AFTER)
}

fn details(reason: Reason) -> ErrorDetails {
    ErrorDetails::with_error_info(reason.as_str(), DOMAIN, HashMap::new())
}

/// The answer of every RPC whose shape is settled and whose work is not done yet.
pub fn not_implemented(what: &str) -> Status {
    Error::refused(Reason::NotImplemented, format!("{what} are not part of this server yet")).into()
}

/// An error with all its sources, in one line.
struct Chain<'a>(&'a (dyn std::error::Error + 'static));

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_exhausted_says_when_to_come_back() {
        let exhausted = Reason::ALL.iter().filter(|reason| reason.class() == Class::ResourceExhausted);
        let refusals = exhausted.map(|reason| Error::refused(*reason, "full"));
        let limited = Error::RateLimited { retry_after: Duration::from_millis(1) };
        let mut seen = 0;
        for status in refusals.chain([limited]).map(Status::from) {
            assert_eq!(status.code(), Code::ResourceExhausted);
            let wait = status.get_details_retry_info().and_then(|info| info.retry_delay);
            assert!(wait.is_some_and(|wait| !wait.is_zero()), "{status:?}");
            seen += 1;
        }
        assert!(seen >= 3, "{seen}");
    }
}
