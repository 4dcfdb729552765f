//! What is recorded of everything that happens.

use std::{collections::BTreeMap, fmt, str::FromStr};

use chrono::{DateTime, Utc};

use crate::{DeviceId, RolloutId, filter};

mod record;
pub mod seal;

pub use seal::{BrokenSeal, Head, Seal, verify_seal};

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Where it stands in the order of watching. Its `id` is the event's.
    pub cursor: Cursor,
    /// When.
    pub at: DateTime<Utc>,
    /// What: the text of a [`Kind`], perhaps of another version of the server.
    pub kind: String,
    /// Who, by resource name.
    pub actor: String,
    /// The actor's display name at that time.
    pub actor_display_name: String,
    /// The resource it happened to, by name.
    pub subject: String,
    /// The device it concerns.
    pub device: Option<DeviceId>,
    /// The rollout it concerns.
    pub rollout: Option<RolloutId>,
    /// Facts of this kind of event.
    pub details: BTreeMap<String, String>,
    /// The request that caused it. Empty when none did.
    pub request_id: String,
    /// The address that the request came from. Empty when no request caused it.
    pub source_address: String,
}

/// Where an event stands in the order of watching: that of transactions, then that of recording. Ids alone would not do,
/// because a transaction with a lower one may commit later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cursor {
    /// The transaction that recorded the event.
    pub transaction: u64,
    /// The event's id.
    pub id: i64,
}

/// The text is no cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be the cursor of an event, such as 1042.77")]
pub struct ParseCursorError;

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.transaction, self.id)
    }
}

impl FromStr for Cursor {
    type Err = ParseCursorError;

    fn from_str(text: &str) -> Result<Self, ParseCursorError> {
        // Digits alone: the numbers' own parsers would also take a sign.
        let number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then_some(text.parse().ok()?);
        let (transaction, id) = text.split_once('.').ok_or(ParseCursorError)?;
        let id = number(id).and_then(|id: u64| i64::try_from(id).ok()).ok_or(ParseCursorError)?;
        Ok(Self { transaction: number(transaction).ok_or(ParseCursorError)?, id })
    }
}

/// The fields by which events are listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// What happened.
    Kind,
    /// Who did it: the last part of their resource name, or their display name.
    Actor,
}

impl filter::Field for Field {
    const ALL: &'static [Self] = &[Self::Kind, Self::Actor];

    fn name(self) -> &'static str {
        match self {
            Self::Kind => "kind",
            Self::Actor => "actor",
        }
    }

    fn values(self) -> Option<Vec<&'static str>> {
        match self {
            Self::Kind => Some(Kind::ALL.iter().map(|kind| kind.as_str()).collect()),
            Self::Actor => None,
        }
    }
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident = $text:literal,)*) => {
        /// What happened. Its text is stored and shown; it never changes once released.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Kind {
            $($(#[$doc])* $kind,)*
        }

        impl Kind {
            /// All kinds.
            pub const ALL: &[Self] = &[$(Self::$kind,)*];

            /// The text that is stored and shown.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$kind => $text,)*
                }
            }
        }
    };
}

kinds! {
    /// A machine joined.
    DeviceEnrolled = "device.enrolled",
    /// A machine joined that says it is another device's, and has another key.
    DeviceIdentityConflict = "device.identity_conflict",
    /// An operator let a device in.
    DeviceApproved = "device.approved",
    /// An operator kept a device out.
    DeviceRejected = "device.rejected",
    /// An operator took a device out.
    DeviceDecommissioned = "device.decommissioned",
    /// A device's record was deleted.
    DeviceDeleted = "device.deleted",
    /// An operator changed a device's labels.
    DeviceLabeled = "device.labeled",
    /// A device runs another release than it did.
    DeviceRunningChanged = "device.running_changed",
    /// A device does not believe what the server sent it.
    DeviceTrustFault = "device.trust_fault",
    /// A device believes the server again.
    DeviceTrustRestored = "device.trust_restored",
    /// An enrolment token was made.
    EnrollTokenCreated = "enroll_token.created",
    /// An enrolment token was revoked.
    EnrollTokenRevoked = "enroll_token.revoked",
    /// An API token was made.
    ApiTokenCreated = "api_token.created",
    /// An API token was revoked.
    ApiTokenRevoked = "api_token.revoked",
    /// A package was made.
    PackageCreated = "package.created",
    /// A package's description changed.
    PackageUpdated = "package.updated",
    /// A package was deleted.
    PackageDeleted = "package.deleted",
    /// A payload's last byte arrived.
    PayloadStored = "payload.stored",
    /// A payload was deleted.
    PayloadDeleted = "payload.deleted",
    /// A release was published.
    ReleasePublished = "release.published",
    /// A release's notes changed.
    ReleaseUpdated = "release.updated",
    /// A release was taken out of use.
    ReleaseYanked = "release.yanked",
    /// A release was deleted.
    ReleaseDeleted = "release.deleted",
    /// A rollout started.
    RolloutCreated = "rollout.created",
    /// All of a rollout's deployments have ended.
    RolloutCompleted = "rollout.completed",
    /// A person ended a rollout.
    RolloutCanceled = "rollout.canceled",
    /// A device was told of its deployment.
    DeploymentGranted = "deployment.granted",
    /// A device fetches bytes.
    DeploymentDownloading = "deployment.downloading",
    /// A device unpacks and switches.
    DeploymentInstalling = "deployment.installing",
    /// A device reboots.
    DeploymentRebooting = "deployment.rebooting",
    /// A release runs on trial.
    DeploymentVerifying = "deployment.verifying",
    /// A device runs its release.
    DeploymentSucceeded = "deployment.succeeded",
    /// A release was never switched to.
    DeploymentFailed = "deployment.failed",
    /// A release was switched to, failed and was undone.
    DeploymentRolledBack = "deployment.rolled_back",
    /// A device or a person at it refused.
    DeploymentRejected = "deployment.rejected",
    /// A person ended a deployment.
    DeploymentCanceled = "deployment.canceled",
    /// A newer deployment took its place.
    DeploymentSuperseded = "deployment.superseded",
    /// A failed deployment was queued again.
    DeploymentRetried = "deployment.retried",
    /// Operators signed what may be installed.
    TargetsPublished = "targets.published",
    /// A repository has another root.
    RootPublished = "root.published",
    /// The operators took the root keys over.
    RootAdopted = "root.adopted",
    /// A key may sign targets from then on.
    TargetsKeyAdded = "targets_key.added",
    /// A key of the server's was made that waits for a root of the operators.
    ServerKeyPrepared = "server_key.prepared",
    /// A key of the server's was replaced.
    ServerKeyRotated = "server_key.rotated",
    /// What a device should run was signed for the road.
    DeviceMetadataExported = "device.metadata_exported",
}

impl From<crate::deployment::Progress> for Kind {
    fn from(progress: crate::deployment::Progress) -> Self {
        use crate::deployment::Progress;
        match progress {
            Progress::Downloading => Self::DeploymentDownloading,
            Progress::Installing => Self::DeploymentInstalling,
            Progress::Rebooting => Self::DeploymentRebooting,
            Progress::Verifying => Self::DeploymentVerifying,
            Progress::Succeeded => Self::DeploymentSucceeded,
            Progress::Failed => Self::DeploymentFailed,
            Progress::RolledBack => Self::DeploymentRolledBack,
            Progress::Rejected => Self::DeploymentRejected,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_has_one_spelling() {
        let cursor = Cursor { transaction: u64::MAX, id: i64::MAX };
        assert_eq!(cursor.to_string().parse(), Ok(cursor));
        for bad in ["", ".", "1", "1.", ".1", "+1.1", "1.-1", "1.1.1", "x.1", "1.9223372036854775808"] {
            assert_eq!(bad.parse::<Cursor>(), Err(ParseCursorError), "{bad}");
        }
    }
}
