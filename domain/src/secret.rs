//! The strings that carry secrets: enrolment strings, device credentials and API tokens.
//!
//! Each says what it is by its first letters, so that a secret found in a log or a commit can be recognised, and names its
//! row, so that the server looks one row up and compares one hash. The secret part is 32 random bytes in base58; random
//! secrets need no slow hash.

use std::{fmt, str::FromStr};

use uuid::Uuid;

use crate::id::{ApiTokenId, DeviceId, EnrollTokenId};

/// Bytes in a secret.
pub const SECRET_BYTES: usize = 32;

/// 32 random bytes. Never shown by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub [u8; SECRET_BYTES]);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// The text is not what it should be. Says nothing of the text, which may hold a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ParseSecretError {
    /// Not an enrolment string.
    #[error("must be an enrolment string: ota1.<id>.<secret>")]
    EnrollmentString,
    /// Not the id in an enrolment string.
    #[error("must be the second part of an enrolment string: 32 hexadecimal digits")]
    TokenId,
    /// Not the secret in an enrolment string.
    #[error("must be the third part of an enrolment string: {SECRET_BYTES} bytes in base58")]
    Secret,
    /// Not a bearer token.
    #[error("must be a bearer token: otad_<device>_<secret> or ota_<token>_<secret>")]
    BearerToken,
}

/// What `ota-agent enroll` takes: `ota1.<token id>.<secret>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnrollmentString {
    /// Which token.
    pub token: EnrollTokenId,
    /// The proof.
    pub secret: Secret,
}

impl fmt::Display for EnrollmentString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ota1.{}.{}", self.token_id(), self.secret())
    }
}

impl FromStr for EnrollmentString {
    type Err = ParseSecretError;

    fn from_str(text: &str) -> Result<Self, ParseSecretError> {
        let parse = || {
            let (token, secret) = text.strip_prefix("ota1.")?.split_once('.')?;
            Some(Self { token: EnrollTokenId(simple(token)?), secret: decode(secret)? })
        };
        parse().ok_or(ParseSecretError::EnrollmentString)
    }
}

impl EnrollmentString {
    /// The second part of the string.
    #[must_use]
    pub fn token_id(&self) -> String {
        self.token.0.simple().to_string()
    }

    /// The third part of the string.
    #[must_use]
    pub fn secret(&self) -> String {
        encode(&self.secret)
    }
}

/// Reads the second part of an enrolment string.
///
/// # Errors
/// When it is no id.
pub fn parse_token_id(text: &str) -> Result<EnrollTokenId, ParseSecretError> {
    simple(text).map(EnrollTokenId).ok_or(ParseSecretError::TokenId)
}

/// Reads the third part of an enrolment string.
///
/// # Errors
/// When it is no secret.
pub fn parse_secret(text: &str) -> Result<Secret, ParseSecretError> {
    decode(text).ok_or(ParseSecretError::Secret)
}

/// What stands behind `authorization: Bearer`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BearerToken {
    /// `otad_<device>_<secret>`: a device's credential.
    Device {
        /// Which device.
        device: DeviceId,
        /// The proof.
        secret: Secret,
    },
    /// `ota_<token>_<secret>`: an operator's API token.
    Api {
        /// Which token.
        token: ApiTokenId,
        /// The proof.
        secret: Secret,
    },
}

impl fmt::Display for BearerToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device { device, secret } => write!(f, "otad_{}_{}", device.0.simple(), encode(secret)),
            Self::Api { token, secret } => write!(f, "ota_{}_{}", token.0.simple(), encode(secret)),
        }
    }
}

impl FromStr for BearerToken {
    type Err = ParseSecretError;

    fn from_str(text: &str) -> Result<Self, ParseSecretError> {
        let parse = || {
            let (kind, rest) = text.split_once('_')?;
            let (id, secret) = rest.split_once('_')?;
            let (id, secret) = (simple(id)?, decode(secret)?);
            match kind {
                "otad" => Some(Self::Device { device: DeviceId(id), secret }),
                "ota" => Some(Self::Api { token: ApiTokenId(id), secret }),
                _ => None,
            }
        };
        parse().ok_or(ParseSecretError::BearerToken)
    }
}

fn simple(text: &str) -> Option<Uuid> {
    if text.len() == 32 { Uuid::try_parse(text).ok() } else { None }
}

/// Reads the base58 form of a secret.
fn decode(text: &str) -> Option<Secret> {
    // 32 bytes are at most 44 digits; decoding more would cost quadratic time.
    if text.len() > 44 {
        return None;
    }
    let mut bytes = [0; SECRET_BYTES];
    let length = bs58::decode(text).onto(&mut bytes).ok()?;
    (length == SECRET_BYTES).then_some(Secret(bytes))
}

/// Writes a secret in base58 (Bitcoin's alphabet): letters and digits that survive any shell, URL and double click.
fn encode(secret: &Secret) -> String {
    bs58::encode(secret.0).into_string()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_read_back(bytes: [u8; 32], id: u128) {
            let (id, secret) = (Uuid::from_u128(id), Secret(bytes));
            let string = EnrollmentString { token: EnrollTokenId(id), secret: secret.clone() };
            prop_assert_eq!(string.to_string().parse(), Ok(string.clone()));
            prop_assert_eq!(parse_token_id(&string.token_id()), Ok(string.token));
            prop_assert_eq!(parse_secret(&string.secret()), Ok(string.secret));
            for token in [
                BearerToken::Device { device: DeviceId(id), secret: secret.clone() },
                BearerToken::Api { token: ApiTokenId(id), secret },
            ] {
                prop_assert_eq!(token.to_string().parse(), Ok(token));
            }
        }

        #[test]
        fn any_text_is_read_or_refused(text in "(ota|otad|ota1)?[_.]?[0-9a-f]{0,33}[_.]?[1-9A-Za-z]{0,46}") {
            if let Ok(token) = text.parse::<BearerToken>() {
                prop_assert_eq!(token.to_string(), text.clone());
            }
            if let Ok(string) = text.parse::<EnrollmentString>() {
                prop_assert_eq!(string.to_string(), text);
            }
        }
    }

    #[test]
    fn debug_hides_the_secret() {
        assert_eq!(format!("{:?}", Secret([7; 32])), "Secret(..)");
    }
}
