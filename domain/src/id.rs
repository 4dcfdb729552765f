//! Identifiers, one type for each kind of thing, so that one cannot be passed for another.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The text is no UUID.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("must be a UUID such as 01890a5d-ac96-774b-bcce-b302099a8057")]
pub struct ParseIdError;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[cfg_attr(feature = "sqlx", derive(sqlx::Type), sqlx(transparent))]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            /// Accepts the hyphenated form in lower case alone, so that a name has one spelling.
            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                let is_hyphenated = text.len() == 36 && !text.bytes().any(|byte| byte.is_ascii_uppercase());
                if is_hyphenated { Uuid::try_parse(text).map(Self).map_err(|_| ParseIdError) } else { Err(ParseIdError) }
            }
        }
    };
}

id!(
    /// One machine of the fleet.
    DeviceId
);
id!(
    /// One line of software.
    PackageId
);
id!(
    /// One immutable version of a package.
    ReleaseId
);
id!(
    /// One campaign.
    RolloutId
);
id!(
    /// One device's journey in one rollout.
    DeploymentId
);
id!(
    /// One token with which machines join the fleet.
    EnrollTokenId
);
id!(
    /// One token that stands for a person or a program.
    ApiTokenId
);
id!(
    /// One unfinished transfer of a payload to the server.
    UploadId
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_has_one_spelling() {
        let text = "01890a5d-ac96-774b-bcce-b302099a8057";
        assert_eq!(text.parse::<DeviceId>().unwrap().to_string(), text);
        for other in [
            "01890a5dac96774bbcceb302099a8057",
            "01890A5D-ac96-774b-bcce-b302099a8057",
            "{01890a5d-ac96-774b-bcce-b302099a8057}",
            "",
            "x",
            "../etc",
        ] {
            assert_eq!(other.parse::<DeviceId>(), Err(ParseIdError), "{other}");
        }
    }
}
