//! How a command fails: what it tells the person, and its exit code.
//!
//! Everything that goes wrong becomes a [`Failure`] and is printed in one place. Never shows a backtrace or a bare
//! "transport error": a failure says what was attempted, and what to do next where that can be known.

mod reason;
mod transport;

use std::{error::Error, fmt, io};

use tonic::Code;
use tonic_types::StatusExt;
use uuid::Uuid;

pub use reason::reason_of;
pub use transport::{is_transient, root_cause};

use crate::text::clean;

/// Metadata key under which a request carries its id, and an answer repeats it.
pub const REQUEST_ID_KEY: &str = "x-request-id";

/// How otactl ends, as scripts see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// The reader of the output went away, as `head` does. No error.
    ReaderGone,
    /// It did not work.
    Failure,
    /// The command line or an answer to a question was wrong.
    Usage,
    /// There is no credential, or the server does not take it.
    NotAuthenticated,
    /// The rollout ended, but not every device runs the release.
    RolloutFailed,
    /// The rollout had not ended when the time was over.
    StillPending,
    /// Ctrl-C.
    Interrupted,
}

impl Exit {
    /// Returns the process exit code.
    pub fn code(self) -> u8 {
        match self {
            Self::ReaderGone => 0,
            Self::Failure => 1,
            Self::Usage => 2,
            Self::NotAuthenticated => 4,
            Self::RolloutFailed => 5,
            Self::StillPending => 8,
            Self::Interrupted => 130,
        }
    }
}

/// A command that did not do what was asked.
#[derive(Debug)]
pub struct Failure {
    exit: Exit,
    what: String,
    details: Vec<String>,
    hint: Option<String>,
    request_id: Option<String>,
    /// The server answered, so its log knows of the request.
    answered: bool,
}

impl Failure {
    /// Makes a failure from what went wrong, as a sentence without a full stop.
    pub fn new(exit: Exit, what: impl Into<String>) -> Self {
        Self { exit, what: what.into(), details: Vec::new(), hint: None, request_id: None, answered: false }
    }

    /// Makes a failure of the general kind.
    pub fn failed(what: impl Into<String>) -> Self {
        Self::new(Exit::Failure, what)
    }

    /// Makes a failure for a wrong command line.
    pub fn usage(what: impl Into<String>) -> Self {
        Self::new(Exit::Usage, what)
    }

    /// Makes a failure of something attempted, with the reason of `source` behind it.
    pub fn because(what: impl fmt::Display, source: &(dyn Error + 'static)) -> Self {
        Self::failed(format!("{what}: {}", root_cause(source)))
    }

    /// Makes a failure of writing to standard output. A reader that went away is none.
    pub fn output(source: io::Error) -> Self {
        if source.kind() == io::ErrorKind::BrokenPipe {
            Self::new(Exit::ReaderGone, "the reader of the output went away")
        } else {
            Self::because("cannot write the output", &source)
        }
    }

    /// Adds what the person can do next.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds lines below the first, such as one for each wrong field.
    pub fn details(mut self, details: impl IntoIterator<Item = String>) -> Self {
        self.details.extend(details);
        self
    }

    /// Adds the id that was sent, when the server answered without repeating it.
    pub fn request(mut self, id: Uuid) -> Self {
        if self.answered {
            self.request_id.get_or_insert_with(|| id.to_string());
        }
        self
    }

    /// Returns what went wrong, without the lines below.
    pub fn what(&self) -> &str {
        &self.what
    }

    /// Returns how otactl ends because of it.
    pub fn exit(&self) -> Exit {
        self.exit
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", clean(&self.what))?;
        for detail in &self.details {
            write!(f, "\n  {}", clean(detail))?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "\nhint: {}", clean(hint))?;
        }
        if let Some(id) = &self.request_id {
            write!(f, "\nrequest id: {}", clean(id))?;
        }
        Ok(())
    }
}

impl Error for Failure {}

/// Takes the part of an answer that the API promises.
pub fn promised<T>(part: Option<T>) -> Result<T, Failure> {
    part.ok_or_else(|| {
        Failure::failed("the server's answer is incomplete")
            .hint("are otactl and the server of about the same version? See `otactl status`")
    })
}

impl From<tonic::Status> for Failure {
    /// Translates the server's answer: its sentence, one line for each wrong field, a hint where the reason allows one.
    fn from(status: tonic::Status) -> Self {
        if let Some(broken) = transport::broken_connection(&status) {
            return Self::failed(format!("lost the connection to the server: {}", broken.cause)).hint(broken.hint);
        }
        let exit = exit_of(status.code());
        let reason = reason_of(&status);
        let violations = status.get_details_bad_request().map(|bad| bad.field_violations).unwrap_or_default();
        let what = match (status.message(), reason) {
            // The lines below say it all, and the message no more than they do.
            _ if !violations.is_empty() => describe(status.code()).to_owned(),
            ("", _) => describe(status.code()).to_owned(),
            (message, Some(_)) => message.to_owned(),
            // Not one of our server's errors: its words alone may say too little.
            (message, None) => format!("{}: {message}", describe(status.code())),
        };
        let details = violations.into_iter().map(|wrong| match wrong.field.as_str() {
            "" => wrong.description,
            field => format!("{field}: {}", wrong.description),
        });
        let hint = match reason {
            Some(reason) => reason::hint(reason),
            None => transport::foreign_server_hint(&status),
        };
        let request_id = status
            .metadata()
            .get(REQUEST_ID_KEY)
            .and_then(|value| value.to_str().ok())
            .map(str::to_owned)
            .or_else(|| status.get_details_request_info().map(|info| info.request_id));
        Self {
            exit,
            what,
            details: details.collect(),
            hint: hint.map(str::to_owned),
            request_id,
            answered: reason.is_some(),
        }
    }
}

/// Chooses the exit code for the server's code.
fn exit_of(code: Code) -> Exit {
    match code {
        Code::Unauthenticated => Exit::NotAuthenticated,
        Code::Ok
        | Code::Cancelled
        | Code::Unknown
        | Code::InvalidArgument
        | Code::DeadlineExceeded
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::ResourceExhausted
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unimplemented
        | Code::Internal
        | Code::Unavailable
        | Code::DataLoss => Exit::Failure,
    }
}

/// Says in plain words what a code means.
fn describe(code: Code) -> &'static str {
    match code {
        Code::Ok => "the server reported an error without one",
        Code::Cancelled => "the server ended the call",
        Code::Unknown => "the server reported an unknown error",
        Code::InvalidArgument => "the request is not valid",
        Code::DeadlineExceeded => "the server took too long",
        Code::NotFound => "there is no such thing",
        Code::AlreadyExists => "it exists already",
        Code::PermissionDenied => "this is not allowed",
        Code::ResourceExhausted => "a limit of the server is reached",
        Code::FailedPrecondition => "the current state does not allow this",
        Code::Aborted => "something else changed it at the same time",
        Code::OutOfRange => "a number is out of range",
        Code::Unimplemented => "this server does not know the call",
        Code::Internal => "the server has a fault",
        Code::Unavailable => "the server is not available",
        Code::DataLoss => "bytes were damaged on the way",
        Code::Unauthenticated => "the server does not take the credential",
    }
}

#[cfg(test)]
mod tests;
