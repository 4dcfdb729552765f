//! One machine of the fleet, and its way in and out.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::{DeviceId, EnrollTokenId, Hardware, Labels, Sha256Digest, TrustFault, filter, inventory::Inventory};

/// One machine of the fleet, as operators see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Its id.
    pub id: DeviceId,
    /// Where it stands in its admission to the fleet.
    pub state: State,
    /// Its hardware type.
    pub hardware: Hardware,
    /// What its maker calls it. Empty when it did not say.
    pub hardware_id: String,
    /// The operators' labels.
    pub labels: Labels,
    /// What it runs, as it last said.
    pub running: Vec<RunningSince>,
    /// Its last sign of life.
    pub presence: Option<Presence>,
    /// What it is made of, as it last said. `None` also where nobody asked for it.
    pub inventory: Option<Inventory>,
    /// When it last said so.
    pub inventory_at: Option<DateTime<Utc>>,
    /// When it enrolled.
    pub created_at: DateTime<Utc>,
    /// The token it enrolled with.
    pub enroll_token: EnrollTokenId,
    /// Counts the operators' changes.
    pub revision: i64,
    /// SHA-256 of its key's SubjectPublicKeyInfo. `None` for a device from before keys, which has to enrol again.
    pub key_sha256: Option<Sha256Digest>,
    /// When its newest certificate runs out.
    pub certificate_expires_at: Option<DateTime<Utc>>,
    /// Others, pending or accepted, that say they are the same machine and have another key. Empty for a device that is
    /// neither.
    pub identity_conflicts: Vec<DeviceId>,
    /// Why it did not believe what the server last sent it, when it did not.
    pub trust_fault: Option<TrustFault>,
}

/// A device's last sign of life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Presence {
    /// When.
    pub last_seen_at: DateTime<Utc>,
    /// The agent's version, as it said.
    pub agent_version: String,
}

impl Presence {
    /// Whether the device counts as online at `now`, when that takes a sign of life `within` this long.
    #[must_use]
    pub fn is_online(&self, now: DateTime<Utc>, within: Duration) -> bool {
        // A negative age is a sign of life from a replica whose clock is ahead.
        (now - self.last_seen_at).to_std().is_ok_and(|age| age <= within) || now < self.last_seen_at
    }
}

/// Where a device stands in its admission to the fleet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "sqlx", derive(sqlx::Type), sqlx(type_name = "device_state", rename_all = "snake_case"))]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Waits for approval.
    Pending,
    /// Part of the fleet.
    Accepted,
    /// Kept out.
    Rejected,
    /// Taken out for good.
    Decommissioned,
}

/// What an operator can decide about a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Let it in.
    Approve,
    /// Keep it out.
    Reject,
    /// Take it out for good.
    Decommission,
}

impl State {
    /// All states.
    pub const ALL: [Self; 4] = [Self::Pending, Self::Accepted, Self::Rejected, Self::Decommissioned];

    /// The name the API, the database and the command line use.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Accepted => "accepted",
            Self::Rejected => "rejected",
            Self::Decommissioned => "decommissioned",
        }
    }

    /// The state after `decision`; `None` when this state does not allow it. Deciding the same again changes nothing.
    #[must_use]
    pub fn decide(self, decision: Decision) -> Option<Self> {
        match (self, decision) {
            (Self::Pending | Self::Rejected | Self::Accepted, Decision::Approve) => Some(Self::Accepted),
            (Self::Pending | Self::Rejected, Decision::Reject) => Some(Self::Rejected),
            (Self::Accepted | Self::Pending | Self::Rejected | Self::Decommissioned, Decision::Decommission) => {
                Some(Self::Decommissioned)
            }
            (Self::Accepted, Decision::Reject) | (Self::Decommissioned, Decision::Approve | Decision::Reject) => None,
        }
    }
}

/// A change to a device's labels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LabelChange {
    /// These and no others.
    Replace(Labels),
    /// Sets some keys and removes those without a value; the others stay.
    Edit(Vec<(String, Option<String>)>),
}

impl LabelChange {
    /// The labels after the change.
    #[must_use]
    pub fn apply(self, labels: &Labels) -> Labels {
        match self {
            Self::Replace(labels) => labels,
            Self::Edit(edits) => {
                let mut labels = labels.clone();
                for (key, value) in edits {
                    match value {
                        Some(value) => labels.insert(key, value),
                        None => labels.remove(&key),
                    };
                }
                labels
            }
        }
    }
}

/// The fields by which devices are listed, beside their labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// Where the device stands in its admission.
    State,
    /// Its hardware type.
    Hardware,
    /// What its maker calls it.
    HardwareId,
    /// Whether it is online.
    Online,
}

impl filter::Field for Field {
    const ALL: &'static [Self] = &[Self::State, Self::Hardware, Self::HardwareId, Self::Online];

    fn name(self) -> &'static str {
        match self {
            Self::State => "state",
            Self::Hardware => "hardware",
            Self::HardwareId => "hardware_id",
            Self::Online => "online",
        }
    }

    fn values(self) -> Option<Vec<&'static str>> {
        match self {
            Self::State => Some(State::ALL.map(State::as_str).to_vec()),
            Self::Online => Some(vec!["true", "false"]),
            Self::Hardware | Self::HardwareId => None,
        }
    }
}

/// One release that a device runs, and since when the server knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunningSince {
    /// The release.
    pub running: Running,
    /// Since when.
    pub since: DateTime<Utc>,
}

/// One release that a device runs, as it says itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Running {
    /// The package.
    pub package: crate::PackageName,
    /// The version.
    pub version: crate::Version,
    /// SHA-256 of the payload that was installed.
    pub payload: crate::Sha256Digest,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_online_for_as_long_as_it_may_be_silent() {
        let seen = Presence { last_seen_at: DateTime::UNIX_EPOCH, agent_version: String::new() };
        let (minute, second) = (Duration::from_secs(60), chrono::Duration::seconds(1));
        assert!(seen.is_online(seen.last_seen_at + minute, minute));
        assert!(!seen.is_online(seen.last_seen_at + minute + second, minute));
        assert!(seen.is_online(seen.last_seen_at - second, minute));
    }

    #[test]
    fn an_edit_of_labels_leaves_the_others() {
        let labels = Labels::from([("a", "1"), ("b", "2")].map(|(key, value)| (key.to_owned(), value.to_owned())));
        let edit = vec![("a".to_owned(), None), ("c".to_owned(), Some("3".to_owned()))];
        let after = LabelChange::Edit(edit).apply(&labels);
        assert_eq!(after.into_iter().map(|(key, value)| key + &value).collect::<Vec<_>>(), ["b2", "c3"]);
        assert!(LabelChange::Replace(Labels::new()).apply(&labels).is_empty());
    }

    #[test]
    fn a_decommissioned_device_never_comes_back() {
        assert_eq!(State::Decommissioned.decide(Decision::Approve), None);
        assert_eq!(State::Decommissioned.decide(Decision::Reject), None);
    }

    #[test]
    fn an_accepted_device_is_decommissioned_not_rejected() {
        assert_eq!(State::Accepted.decide(Decision::Reject), None);
        assert_eq!(State::Rejected.decide(Decision::Approve), Some(State::Accepted));
    }
}
