//! Why a device does not believe what the server sends it.

use serde::{Deserialize, Serialize};

/// The attack that a failed check of signed metadata guards against.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "sqlx", derive(sqlx::Type), sqlx(type_name = "TEXT", rename_all = "snake_case"))]
#[serde(rename_all = "snake_case")]
pub enum TrustFault {
    /// A signature is missing or wrong, or a document is not what it should be.
    Arbitrary,
    /// A version, a release counter or a time is lower than one seen before.
    Rollback,
    /// A document has expired, or the answer to the nonce is wrong.
    Freeze,
    /// Documents do not belong together.
    MixAndMatch,
    /// The documents are another device's.
    OtherDevice,
    /// The release is not for this hardware.
    Hardware,
    /// The two repositories do not agree, or one of them does not know the release.
    Disagreement,
    /// A document is larger, or there are more of them, than allowed.
    Endless,
    /// The device's own record of trust is damaged.
    Store,
}

impl TrustFault {
    /// The name that the database, events and the command line use.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Arbitrary => "arbitrary",
            Self::Rollback => "rollback",
            Self::Freeze => "freeze",
            Self::MixAndMatch => "mix_and_match",
            Self::OtherDevice => "other_device",
            Self::Hardware => "hardware",
            Self::Disagreement => "disagreement",
            Self::Endless => "endless",
            Self::Store => "store",
        }
    }
}
