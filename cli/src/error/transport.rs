//! Tells a broken connection from an answer, and finds the words for it.

use std::{error::Error, io};

use ota_proto::admin::v1::ErrorReason;
use ota_tls::ConnectError;
use tonic::{Code, Status};

use super::reason_of;

/// Returns the innermost cause that says something: an operating system's error before a library's wrapping of it.
pub fn root_cause(error: &(dyn Error + 'static)) -> String {
    let mut cause = error;
    loop {
        if let Some(io) = cause.downcast_ref::<io::Error>()
            && let Some(text) = describe_io(io)
        {
            return text;
        }
        match cause.source() {
            Some(deeper) => cause = deeper,
            None => return cause.to_string(),
        }
    }
}

/// What people know the system's most common errors by, in lower case and without a number.
const IO_WORDS: [(io::ErrorKind, &str); 14] = [
    (io::ErrorKind::NotFound, "no such file or folder"),
    (io::ErrorKind::PermissionDenied, "permission denied"),
    (io::ErrorKind::ConnectionRefused, "connection refused"),
    (io::ErrorKind::ConnectionReset, "the connection was reset"),
    (io::ErrorKind::ConnectionAborted, "the connection was reset"),
    (io::ErrorKind::BrokenPipe, "the connection was closed"),
    (io::ErrorKind::UnexpectedEof, "it ended early"),
    (io::ErrorKind::TimedOut, "no answer in time"),
    (io::ErrorKind::HostUnreachable, "no route to the host"),
    (io::ErrorKind::NetworkUnreachable, "the network is not reachable"),
    (io::ErrorKind::StorageFull, "no space left on the disk"),
    (io::ErrorKind::IsADirectory, "it is a folder"),
    (io::ErrorKind::NotADirectory, "it is not a folder"),
    (io::ErrorKind::ReadOnlyFilesystem, "the file system is read-only"),
];

/// Says what the system said. `None` for a wrapper around another error, which says more.
fn describe_io(error: &io::Error) -> Option<String> {
    if error.get_ref().is_some_and(|inner| inner.source().is_some()) {
        return None;
    }
    let known = IO_WORDS.iter().find(|(kind, _)| *kind == error.kind()).map(|(_, words)| (*words).to_owned());
    known.or_else(|| error.raw_os_error().map(|_| error.to_string()))
}

/// How a connection broke.
pub(super) struct Broken {
    /// In words.
    pub(super) cause: String,
    /// What to do next.
    pub(super) hint: &'static str,
}

/// Returns how the connection broke, when the status was made on this side and is no answer.
pub(super) fn broken_connection(status: &Status) -> Option<Broken> {
    let source = status.source()?;
    if let Some(reason) = ConnectError::find(source) {
        return Some(Broken { cause: reason.to_string(), hint: crate::client::tls_hint(&reason) });
    }
    let hint = if is_io(source) {
        "try again; `otactl status` says whether the server answers"
    } else {
        "does an ota server listen at this address? See `otactl context show`"
    };
    Some(Broken { cause: root_cause(source), hint })
}

/// Tells whether the system's network failed, rather than the talk over it.
fn is_io(error: &(dyn Error + 'static)) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.raw_os_error().is_some())
        || error.source().is_some_and(is_io)
}

/// Tells whether the same call may well work in a moment.
pub fn is_transient(status: &Status) -> bool {
    if status.source().is_some() {
        return true;
    }
    match reason_of(status) {
        Some(reason) => matches!(
            reason,
            ErrorReason::BlobStoreUnavailable
                | ErrorReason::DatabaseUnavailable
                | ErrorReason::ShuttingDown
                | ErrorReason::RateLimited
                | ErrorReason::UploadIncomplete
                | ErrorReason::UploadBusy
                | ErrorReason::OffsetMismatch
                | ErrorReason::ChunkCorrupt
        ),
        // Proxies and half-open connections know no reasons.
        None => matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled),
    }
}

/// Says so when the other side does not look like an ota server.
pub(super) fn foreign_server_hint(status: &Status) -> Option<&'static str> {
    let foreign = status.message().contains("grpc-status header missing")
        || status.message().contains("invalid compression")
        || status.message().contains("content-type");
    foreign.then_some("does an ota server listen at this address? See `otactl context show`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("transport error")]
    struct Wrapped(#[source] io::Error);

    #[test]
    fn a_refused_connection_is_called_so_however_deep_it_is() {
        let error = Wrapped(io::Error::from_raw_os_error(111));
        assert_eq!(root_cause(&error), "connection refused");
    }

    #[test]
    fn a_cause_without_a_system_error_keeps_its_own_words() {
        let error = Wrapped(io::Error::other("certificate has expired"));
        assert_eq!(root_cause(&error), "certificate has expired");
    }

    #[test]
    fn an_unavailable_server_is_worth_another_try_and_a_wrong_field_is_not() {
        assert!(is_transient(&Status::unavailable("x")));
        assert!(!is_transient(&Status::invalid_argument("x")));
        assert!(!is_transient(&Status::resource_exhausted("x")));
    }
}
