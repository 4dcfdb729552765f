//! What a machine says of itself when it asks to join the fleet.

use crate::{
    EnrollTokenId, Hardware, Violation, Violations,
    secret::{self, Secret},
};

/// Most characters in what a machine's maker calls it.
pub const MAX_HARDWARE_ID: usize = 128;

/// A machine's request to join, as it came.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The second part of the enrolment string.
    pub token_id: &'a str,
    /// The third part of the enrolment string.
    pub secret: &'a str,
    /// Its hardware type.
    pub hardware: &'a str,
    /// What its maker calls it.
    pub hardware_id: &'a str,
}

/// A machine's request to join. Every one of them keeps the rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Enrollment {
    /// Which token it shows.
    pub token: EnrollTokenId,
    /// The proof that it was given the token.
    pub secret: Secret,
    /// Its hardware type.
    pub hardware: Hardware,
    /// What its maker calls it. Empty when it does not know.
    pub hardware_id: String,
}

/// What a machine that joined is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// It waits for an operator.
    Pending,
    /// It is part of the fleet.
    Accepted,
}

impl TryFrom<Request<'_>> for Enrollment {
    type Error = Vec<Violation>;

    fn try_from(request: Request<'_>) -> Result<Self, Vec<Violation>> {
        let mut violations = Violations::default();
        let token = violations.take("token_id", secret::parse_token_id(request.token_id));
        let secret = violations.take("secret", secret::parse_secret(request.secret));
        let hardware = violations.take("hardware", request.hardware.parse::<Hardware>());
        violations.require(
            request.hardware_id.chars().count() <= MAX_HARDWARE_ID
                && !request.hardware_id.chars().any(char::is_control),
            "hardware_id",
            format!("must have at most {MAX_HARDWARE_ID} characters and no control characters"),
        );
        let enrollment = token.zip(secret).zip(hardware).map(|((token, secret), hardware)| Self {
            token,
            secret,
            hardware,
            hardware_id: request.hardware_id.to_owned(),
        });
        violations.finish(enrollment)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "01890a5dac96774bbcceb302099a8057";

    fn fields(request: Request<'_>) -> Vec<String> {
        match Enrollment::try_from(request) {
            Ok(_) => Vec::new(),
            Err(violations) => violations.into_iter().map(|violation| violation.field).collect(),
        }
    }

    #[test]
    fn every_field_at_fault_is_told() {
        let secret = "1".repeat(32);
        let good = Request { token_id: TOKEN, secret: &secret, hardware: "rpi4", hardware_id: "" };
        assert_eq!(fields(good), [""; 0]);
        let bad = Request { token_id: "", secret: "0", hardware: "a/b", hardware_id: "a\nb" };
        assert_eq!(fields(bad), ["token_id", "secret", "hardware", "hardware_id"]);
        assert_eq!(fields(Request { hardware_id: &"é".repeat(128), ..good }), [""; 0]);
        assert_eq!(fields(Request { hardware_id: &"x".repeat(129), ..good }), ["hardware_id"]);
    }
}
