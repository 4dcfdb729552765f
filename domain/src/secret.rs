//! The strings that carry secrets: enrolment strings, sessions and API tokens.
//!
//! Each says what it is by its first letters, so that a secret found in a log or a commit can be recognised, and names its
//! row, so that the server looks one row up and compares one hash. The secret part is 32 random bytes in base58; random
//! secrets need no slow hash.

use std::{fmt, str::FromStr};

use data_encoding::{BASE32_NOPAD, BASE64URL_NOPAD};
use uuid::Uuid;

use crate::id::{ApiTokenId, DeviceId, EnrollTokenId};

/// Bytes in a secret.
pub const SECRET_BYTES: usize = 32;

/// Bytes in the pin of an enrolment string.
pub const PIN_BYTES: usize = 32;

/// Bytes behind a session's device: when it ends, and the proof.
const SESSION_BYTES: usize = 8 + SECRET_BYTES;

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
    #[error("must be an enrolment string: ota1.<id>.<secret>.<pin>")]
    EnrollmentString,
    /// Not the id in an enrolment string.
    #[error("must be the second part of an enrolment string: 32 hexadecimal digits")]
    TokenId,
    /// Not the secret in an enrolment string.
    #[error("must be the third part of an enrolment string: {SECRET_BYTES} bytes in base58")]
    Secret,
    /// Not a bearer token.
    #[error("must be a bearer token: otas_<device>_<proof> or ota_<token>_<secret>")]
    BearerToken,
}

/// What `ota-agent enroll` takes: `ota1.<token id>.<secret>.<pin>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnrollmentString {
    /// Which token.
    pub token: EnrollTokenId,
    /// The proof.
    pub secret: Secret,
    /// What the server has to show before it is told the secret. Written in base32 (RFC 4648), lower case, no padding.
    pub pin: [u8; PIN_BYTES],
}

impl fmt::Display for EnrollmentString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pin = BASE32_NOPAD.encode(&self.pin).to_ascii_lowercase();
        write!(f, "ota1.{}.{}.{pin}", self.token_id(), self.secret())
    }
}

impl FromStr for EnrollmentString {
    type Err = ParseSecretError;

    fn from_str(text: &str) -> Result<Self, ParseSecretError> {
        let parse = || {
            let (token, rest) = text.strip_prefix("ota1.")?.split_once('.')?;
            let (secret, pin) = rest.split_once('.')?;
            Some(Self { token: EnrollTokenId(simple(token)?), secret: decode(secret)?, pin: decode_pin(pin)? })
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
    /// `otas_<device>_<base64url of the end and the proof>`: a device's session. Nobody copies it by hand, and it is read
    /// with every call, for which base58 is too slow.
    Session(SessionToken),
    /// `ota_<token>_<secret>`: an operator's API token.
    Api {
        /// Which token.
        token: ApiTokenId,
        /// The proof.
        secret: Secret,
    },
}

/// What a device shows that has proven its key a while ago. The server keeps no record of it: the proof speaks for the
/// other two.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionToken {
    /// Which device.
    pub device: DeviceId,
    /// When it ends, in seconds since 1970.
    pub expires_at: u64,
    /// The server's own authentication code over the device and the end.
    pub proof: Secret,
}

impl fmt::Display for SessionToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = [0; SESSION_BYTES];
        bytes[..8].copy_from_slice(&self.expires_at.to_be_bytes());
        bytes[8..].copy_from_slice(&self.proof.0);
        write!(f, "otas_{}_{}", self.device.0.simple(), BASE64URL_NOPAD.encode_display(&bytes))
    }
}

impl fmt::Display for BearerToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Session(session) => session.fmt(f),
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
            let id = simple(id)?;
            match kind {
                "otas" => {
                    let (expires_at, proof) = decode_session(secret)?;
                    Some(Self::Session(SessionToken { device: DeviceId(id), expires_at, proof }))
                }
                "ota" => Some(Self::Api { token: ApiTokenId(id), secret: decode(secret)? }),
                _ => None,
            }
        };
        parse().ok_or(ParseSecretError::BearerToken)
    }
}

/// Reads the 32 digits of an id. In lower case alone, so that a string has one spelling.
fn simple(text: &str) -> Option<Uuid> {
    let is_simple = text.len() == 32 && !text.bytes().any(|byte| byte.is_ascii_uppercase());
    if is_simple { Uuid::try_parse(text).ok() } else { None }
}

/// Reads the end and the proof of a session. There is one way to write each.
fn decode_session(text: &str) -> Option<(u64, Secret)> {
    let mut bytes = [0; SESSION_BYTES];
    if text.len() != BASE64URL_NOPAD.encode_len(SESSION_BYTES) {
        return None;
    }
    BASE64URL_NOPAD.decode_mut(text.as_bytes(), &mut bytes).ok()?;
    let (expires_at, proof) = bytes.split_first_chunk()?;
    Some((u64::from_be_bytes(*expires_at), Secret(proof.try_into().ok()?)))
}

/// Reads the base58 form of a secret.
fn decode(text: &str) -> Option<Secret> {
    // A digit carries more than 5.8 bits; decoding more digits than that makes would cost quadratic time.
    if text.len() > SECRET_BYTES * 8 * 10 / 58 + 1 {
        return None;
    }
    let mut bytes = [0; SECRET_BYTES];
    let length = bs58::decode(text).onto(&mut bytes).ok()?;
    (length == SECRET_BYTES).then_some(Secret(bytes))
}

/// Reads the base32 form of a pin. There is one way to write each.
fn decode_pin(text: &str) -> Option<[u8; PIN_BYTES]> {
    if text.len() != BASE32_NOPAD.encode_len(PIN_BYTES) || text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return None;
    }
    BASE32_NOPAD.decode(text.to_ascii_uppercase().as_bytes()).ok()?.try_into().ok()
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
        fn what_is_written_is_read_back(bytes: [u8; 32], pin: [u8; 32], id: u128, expires_at: u64) {
            let (id, secret) = (Uuid::from_u128(id), Secret(bytes));
            let string = EnrollmentString { token: EnrollTokenId(id), secret: secret.clone(), pin };
            prop_assert_eq!(string.to_string().parse(), Ok(string.clone()));
            prop_assert_eq!(parse_token_id(&string.token_id()), Ok(string.token));
            prop_assert_eq!(parse_secret(&string.secret()), Ok(string.secret));
            for token in [
                BearerToken::Session(SessionToken { device: DeviceId(id), expires_at, proof: secret.clone() }),
                BearerToken::Api { token: ApiTokenId(id), secret },
            ] {
                prop_assert_eq!(token.to_string().parse(), Ok(token));
            }
        }

        #[test]
        fn any_text_is_read_or_refused(text in "(ota|otas|ota1)?[_.]?[0-9a-f]{0,33}[_.]?[-_0-9A-Za-z]{0,56}[.]?[a-z2-7]{0,53}") {
            if let Ok(token) = text.parse::<BearerToken>() {
                prop_assert_eq!(token.to_string(), text.clone());
            }
            if let Ok(string) = text.parse::<EnrollmentString>() {
                prop_assert_eq!(string.to_string(), text);
            }
        }
    }

    #[test]
    fn a_pin_has_one_spelling() {
        let string = EnrollmentString { token: EnrollTokenId(Uuid::nil()), secret: Secret([1; 32]), pin: [0xab; 32] };
        let text = string.to_string();
        let (rest, pin) = text.rsplit_once('.').unwrap();
        assert_eq!(pin.len(), 52);
        // The last letter carries four bits too many.
        let other = format!("{}{}", &pin[..51], char::from(pin.as_bytes()[51] + 1));
        for bad in [pin.to_uppercase(), format!("{pin}a"), pin[1..].to_owned(), String::new(), other] {
            assert!(format!("{rest}.{bad}").parse::<EnrollmentString>().is_err(), "{bad}");
        }
    }

    #[test]
    fn an_id_in_capitals_is_refused() {
        let string =
            EnrollmentString { token: EnrollTokenId(Uuid::from_u128(0xabc)), secret: Secret([7; 32]), pin: [8; 32] };
        assert!(string.to_string().replace("abc", "aBc").parse::<EnrollmentString>().is_err());
        assert_eq!(parse_token_id("00000000000000000000000000000ABC"), Err(ParseSecretError::TokenId));
    }

    #[test]
    fn debug_hides_the_secret() {
        assert_eq!(format!("{:?}", Secret([7; 32])), "Secret(..)");
    }
}
