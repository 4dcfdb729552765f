//! Names people give: of packages and of hardware types.
//!
//! A name becomes a folder on a device and a part of a resource name, so its alphabet has no separator, no upper case and
//! nothing that a shell or a path treats specially.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, de};

/// Most characters in a name: the limit of a DNS label and of a Kubernetes label value.
pub const MAX_LENGTH: usize = 63;

/// The text is no name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "must have 1 to 63 characters of a-z, 0-9, '.', '_' and '-', start and end with a letter or digit, and hold no '..'"
)]
pub struct ParseNameError;

fn is_name(text: &str) -> bool {
    let edge = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    let bytes = text.as_bytes();
    bytes.len() <= MAX_LENGTH
        && edge(bytes.first())
        && edge(bytes.last())
        && bytes.iter().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(byte))
        && !text.contains("..")
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        #[cfg_attr(feature = "sqlx", derive(sqlx::Type), sqlx(transparent))]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = ParseNameError;

            fn from_str(text: &str) -> Result<Self, ParseNameError> {
                if is_name(text) { Ok(Self(text.to_owned())) } else { Err(ParseNameError) }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
            }
        }
    };
}

name!(
    /// Name of a package, for example `gateway-fw`.
    PackageName
);
name!(
    /// A hardware type, for example `rpi4`.
    Hardware
);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_name_is_safe_as_a_folder_and_in_a_path() {
        for good in ["a", "gateway-fw", "app.v2", "0_x", &"a".repeat(63)] {
            assert_eq!(good.parse::<PackageName>().map(|name| name.to_string()), Ok(good.to_owned()));
        }
        for bad in ["", "..", "a..b", ".a", "a.", "-a", "a/b", "a\\b", "A", "é", "a\n", "a\0", "a b", &"a".repeat(64)]
        {
            assert_eq!(bad.parse::<PackageName>(), Err(ParseNameError), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn whatever_parses_has_no_separator(text in any::<String>()) {
            if let Ok(name) = text.parse::<PackageName>() {
                prop_assert!(!name.as_str().contains(['/', '\\', '\0']) && !name.as_str().contains(".."));
            }
        }
    }
}
