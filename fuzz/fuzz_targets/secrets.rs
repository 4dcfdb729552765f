//! Enrolment strings, bearer tokens and pins: one spelling each.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ota_domain::secret::{BearerToken, EnrollmentString, parse_secret, parse_token_id};
use ota_trust::pin::Pin;

fuzz_target!(|text: &str| {
    if let Ok(string) = text.parse::<EnrollmentString>() {
        assert_eq!(string.to_string(), text);
    }
    if let Ok(token) = text.parse::<BearerToken>() {
        assert_eq!(token.to_string(), text);
    }
    if let Ok(pin) = text.parse::<Pin>() {
        assert_eq!(pin.to_string(), text);
    }
    let _ = (parse_token_id(text), parse_secret(text));
});
