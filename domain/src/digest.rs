//! The name of a sequence of bytes: its SHA-256.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A SHA-256 (FIPS 180-4). Written as 64 lower-case hexadecimal digits, sent as 32 bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sha256Digest(pub [u8; 32]);

/// The text or the bytes are no SHA-256.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("must be a SHA-256: 32 bytes, written as 64 hexadecimal digits")]
pub struct ParseDigestError;

impl TryFrom<&[u8]> for Sha256Digest {
    type Error = ParseDigestError;

    fn try_from(bytes: &[u8]) -> Result<Self, ParseDigestError> {
        bytes.try_into().map(Self).map_err(|_| ParseDigestError)
    }
}

impl FromStr for Sha256Digest {
    type Err = ParseDigestError;

    fn from_str(text: &str) -> Result<Self, ParseDigestError> {
        let digits: &[u8; 64] = text.as_bytes().try_into().map_err(|_| ParseDigestError)?;
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
        }
        Ok(Self(bytes))
    }
}

fn nibble(digit: u8) -> Result<u8, ParseDigestError> {
    let value = char::from(digit).to_digit(16).ok_or(ParseDigestError)?;
    u8::try_from(value).map_err(|_| ParseDigestError)
}

impl fmt::Display for Sha256Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Sha256Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Sha256Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Sha256Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(feature = "sqlx")]
mod column {
    use sqlx::{
        Decode, Encode, Postgres, Type,
        encode::IsNull,
        error::BoxDynError,
        postgres::{PgArgumentBuffer, PgHasArrayType, PgTypeInfo, PgValueRef},
    };

    use super::Sha256Digest;

    impl Type<Postgres> for Sha256Digest {
        fn type_info() -> PgTypeInfo {
            <[u8] as Type<Postgres>>::type_info()
        }
    }

    impl PgHasArrayType for Sha256Digest {
        fn array_type_info() -> PgTypeInfo {
            <&[u8] as PgHasArrayType>::array_type_info()
        }
    }

    impl Encode<'_, Postgres> for Sha256Digest {
        fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
            Encode::<Postgres>::encode_by_ref(&self.0.as_slice(), buffer)
        }
    }

    impl Decode<'_, Postgres> for Sha256Digest {
        fn decode(value: PgValueRef<'_>) -> Result<Self, BoxDynError> {
            let bytes = <&[u8] as Decode<Postgres>>::decode(value)?;
            Ok(Self::try_from(bytes)?)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn written_and_read_it_is_the_same(bytes: [u8; 32]) {
            prop_assert_eq!(Sha256Digest(bytes).to_string().parse(), Ok(Sha256Digest(bytes)));
        }

        #[test]
        fn any_text_parses_or_is_refused(text in ".{0,70}") {
            if let Ok(digest) = text.parse::<Sha256Digest>() {
                prop_assert_eq!(digest.to_string(), text.to_lowercase());
            }
        }
    }
}
