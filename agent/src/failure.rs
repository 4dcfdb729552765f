//! Puts what went wrong into the words of a report.

use std::error::Error;
use std::io;

pub use ota_domain::deployment::FailureCode;
use ota_trust::Fault;
use serde::{Deserialize, Serialize};

/// Longest message that a report may carry is 1,024 characters; bytes are never fewer.
const MAX_MESSAGE_BYTES: usize = 1024;

/// Why work did not come to a good end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Its class.
    pub code: FailureCode,
    /// One sentence for a person.
    pub message: String,
    /// The last lines that a hook wrote.
    pub log_tail: String,
    /// The check that failed. Only with [`FailureCode::Trust`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trust_fault: Option<Fault>,
}

/// Makes a failure without a log.
pub fn failure(code: FailureCode, message: impl Into<String>) -> Failure {
    let mut message = message.into();
    message.truncate(message.floor_char_boundary(MAX_MESSAGE_BYTES));
    Failure { code, message, log_tail: String::new(), trust_fault: None }
}

/// Makes a failure from an error and everything that caused it.
pub fn from_error(code: FailureCode, error: &dyn Error) -> Failure {
    failure(code, chain(error))
}

/// Writes an error and its causes in one line.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        // Some libraries repeat the cause in their own message.
        if !text.ends_with(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

/// Tells whether an error means that the disk, or this user's share of it, is full.
pub fn is_disk_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
