//! The version of a release.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Most characters in a version.
pub const MAX_LENGTH: usize = 64;

/// A version in Semantic Versioning 2.0.0 (<https://semver.org>), without build metadata: two releases that differ in
/// that alone would have the same precedence.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(semver::Version);

/// The text is no version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseVersionError {
    /// Over-long.
    #[error("must have at most {MAX_LENGTH} characters")]
    TooLong,
    /// Not semver.
    #[error("must be a semantic version such as 1.4.0 or 2.0.0-rc.1: {0}")]
    NotSemver(String),
    /// Has build metadata.
    #[error("must have no build metadata ('+{0}'); put it into the notes")]
    BuildMetadata(String),
}

impl FromStr for Version {
    type Err = ParseVersionError;

    fn from_str(text: &str) -> Result<Self, ParseVersionError> {
        if text.len() > MAX_LENGTH {
            return Err(ParseVersionError::TooLong);
        }
        let version = semver::Version::parse(text).map_err(|error| ParseVersionError::NotSemver(error.to_string()))?;
        if version.build.is_empty() {
            Ok(Self(version))
        } else {
            Err(ParseVersionError::BuildMetadata(version.build.to_string()))
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for Version {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Version {
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
        postgres::{PgArgumentBuffer, PgTypeInfo, PgValueRef},
    };

    use super::Version;

    impl Type<Postgres> for Version {
        fn type_info() -> PgTypeInfo {
            <str as Type<Postgres>>::type_info()
        }

        fn compatible(info: &PgTypeInfo) -> bool {
            <str as Type<Postgres>>::compatible(info)
        }
    }

    impl Encode<'_, Postgres> for Version {
        fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
            Encode::<Postgres>::encode_by_ref(&self.to_string(), buffer)
        }
    }

    impl Decode<'_, Postgres> for Version {
        fn decode(value: PgValueRef<'_>) -> Result<Self, BoxDynError> {
            Ok(<&str as Decode<Postgres>>::decode(value)?.parse()?)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_semver_without_build_metadata_is_a_version() {
        for good in ["0.0.0", "1.2.3", "1.0.0-rc.1"] {
            assert_eq!(good.parse::<Version>().unwrap().to_string(), good);
        }
        for bad in [
            "",
            "1",
            "1.2",
            "v1.2.3",
            "1.2.3.4",
            "01.2.3",
            "1.2.3+build",
            "latest",
            &format!("1.0.0-{}", "a".repeat(64)),
        ] {
            assert!(bad.parse::<Version>().is_err(), "{bad}");
        }
    }
}
