use super::*;
use tonic_types::ErrorDetails;

fn status(code: Code, message: &str, reason: &str) -> tonic::Status {
    let mut details = ErrorDetails::new();
    details.set_error_info(reason, "ota", std::collections::HashMap::new());
    tonic::Status::with_error_details(code, message, details)
}

#[test]
fn each_end_has_its_exit_code() {
    let table = [
        (Exit::ReaderGone, 0),
        (Exit::Failure, 1),
        (Exit::Usage, 2),
        (Exit::NotAuthenticated, 4),
        (Exit::RolloutFailed, 5),
        (Exit::StillPending, 8),
        (Exit::Interrupted, 130),
    ];
    for (exit, code) in table {
        assert_eq!(exit.code(), code, "{exit:?}");
    }
}

#[test]
fn only_a_refused_credential_exits_with_4() {
    for number in 1..=16 {
        let code = Code::from_i32(number);
        let expected = if code == Code::Unauthenticated { 4 } else { 1 };
        assert_eq!(Failure::from(tonic::Status::new(code, "x")).exit().code(), expected, "{code:?}");
    }
}

#[test]
fn every_wrong_field_has_a_line() {
    let mut details = ErrorDetails::new();
    details.set_error_info("FIELDS_INVALID", "ota", std::collections::HashMap::new());
    details.add_bad_request_violation("version", "must be semver 2.0.0");
    details.add_bad_request_violation("release.hardware[1]", "must start with a letter");
    let status = tonic::Status::with_error_details(Code::InvalidArgument, "2 fields are not valid", details);
    assert_eq!(
        Failure::from(status).to_string(),
        "error: the request is not valid\n  version: must be semver 2.0.0\n  release.hardware[1]: must start with a letter"
    );
}

#[test]
fn a_known_reason_brings_a_hint_and_the_request_id() {
    let mut refused = status(Code::Unauthenticated, "the API token has expired", "CREDENTIAL_INVALID");
    refused.metadata_mut().insert(REQUEST_ID_KEY, tonic::metadata::MetadataValue::from_static("r-1"));
    let text = Failure::from(refused).to_string();
    assert!(text.starts_with("error: the API token has expired\nhint: "), "{text}");
    assert!(text.ends_with("\nrequest id: r-1"), "{text}");
}

#[test]
fn control_characters_never_reach_the_terminal() {
    let text = Failure::failed("bad \u{1b}[2Jname").to_string();
    assert!(!text.contains('\u{1b}'), "{text}");
}

#[test]
fn a_reader_that_went_away_is_no_error() {
    let failure = Failure::output(io::Error::from(io::ErrorKind::BrokenPipe));
    assert_eq!(failure.exit().code(), 0);
}
