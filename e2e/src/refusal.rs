//! What a refusal must say: the code, the reason a program can read, and every field at fault.

use tonic::{Code, Status};
use tonic_types::StatusExt;

/// The `domain` of every `ErrorInfo`, as the protos promise it.
const DOMAIN: &str = "ota";

/// Returns the reason a refusal gives, if it gives one.
#[must_use]
pub fn reason(status: &Status) -> Option<String> {
    status.get_details_error_info().filter(|info| info.domain == DOMAIN).map(|info| info.reason)
}

/// Returns the fields a refusal names, in its order.
#[must_use]
pub fn violated_fields(status: &Status) -> Vec<String> {
    let violations = status.get_details_bad_request().map(|bad| bad.field_violations).unwrap_or_default();
    violations.into_iter().map(|violation| violation.field).collect()
}

/// Asserts the code and the reason of a refusal, and that there is something for a person to read.
///
/// # Panics
/// When the refusal is another one.
#[track_caller]
pub fn assert_refused(status: &Status, code: Code, reason: &str) {
    assert_eq!((status.code(), self::reason(status).as_deref()), (code, Some(reason)), "{status:?}");
    assert!(!status.message().is_empty(), "{reason} comes without a message");
}

/// Asserts that a refusal names a field, and returns what it says of it.
///
/// # Panics
/// When it does not.
#[track_caller]
pub fn assert_violates(status: &Status, field: &str) -> String {
    assert_refused(status, Code::InvalidArgument, "FIELDS_INVALID");
    let violations = status.get_details_bad_request().map(|bad| bad.field_violations).unwrap_or_default();
    let found = violations.iter().find(|violation| violation.field == field);
    let found = found.unwrap_or_else(|| panic!("{field} is not among {violations:?}"));
    assert!(!found.description.is_empty(), "nothing is said of {field}");
    found.description.clone()
}
