//! The form in which a client stores a repository.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::{Chain, Floors, Held, TARGETS, fits, not_below, version_of, versions};
use crate::{fault::TrustError, metadata::Role};

/// Documents are kept as signed, as text: they are JSON.
#[derive(Serialize, Deserialize)]
pub(super) struct Stored {
    root: String,
    timestamp: Option<String>,
    snapshot: Option<String>,
    /// By role.
    targets: BTreeMap<String, StoredTargets>,
    floors: Floors,
}

#[derive(Serialize, Deserialize)]
struct StoredTargets {
    delegator: String,
    document: String,
}

impl From<Chain> for Stored {
    fn from(chain: Chain) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let targets = chain.targets.iter().chain(&chain.candidates);
        Self {
            root: text(chain.root_bytes()),
            timestamp: chain.timestamp.as_ref().map(|held| text(&held.bytes)),
            snapshot: chain.snapshot.as_ref().map(|held| text(&held.bytes)),
            targets: targets
                .map(|(role, held)| {
                    let document = text(&held.bytes);
                    (role.clone(), StoredTargets { delegator: held.delegator.clone(), document })
                })
                .collect(),
            floors: chain.floors,
        }
    }
}

impl TryFrom<Stored> for Chain {
    type Error = TrustError;

    fn try_from(stored: Stored) -> Result<Self, TrustError> {
        let whenever = DateTime::<Utc>::MIN_UTC;
        let mut chain = Self::from_root(stored.root.as_bytes())?;
        if let Some(timestamp) = &stored.timestamp {
            chain.update_timestamp(timestamp.as_bytes(), whenever)?;
        }
        for (role, targets) in stored.targets {
            let bytes = targets.document.into_bytes();
            fits(&bytes, Role::Targets)?;
            let delegator = if role == TARGETS { TARGETS.to_owned() } else { targets.delegator };
            chain.candidates.insert(role, Held { version: version_of(&bytes)?, bytes, delegator });
        }
        if let Some(snapshot) = &stored.snapshot {
            chain.restore_snapshot(snapshot.as_bytes(), whenever)?;
        }
        chain.raise_floors(stored.floors)?;
        Ok(chain)
    }
}

impl Chain {
    /// Takes a stored snapshot. The timestamp may name a newer one: then it only says below which versions nothing may go.
    fn restore_snapshot(&mut self, bytes: &[u8], whenever: DateTime<Utc>) -> Result<(), TrustError> {
        fits(bytes, Role::Snapshot)?;
        let document = self.verified::<sigstore_tuf::Snapshot>(bytes, Role::Snapshot)?;
        let named = self.snapshot_version();
        if named == Some(document.version) && self.update_snapshot(bytes, whenever).is_ok() {
            return Ok(());
        }
        not_below("snapshot named by the timestamp", named.unwrap_or(document.version), document.version)?;
        self.floors.targets = versions(&document);
        self.snapshot = Some(Held::new(Role::Snapshot, document.version, bytes));
        Ok(())
    }

    /// Takes the floors that were stored: they outlive the documents that set them.
    fn raise_floors(&mut self, floors: Floors) -> Result<(), TrustError> {
        for (what, held, stored) in [
            ("stored timestamp", &mut self.floors.timestamp, floors.timestamp),
            ("stored snapshot", &mut self.floors.snapshot, floors.snapshot),
        ] {
            if *held > 0 {
                not_below(what, *held, stored)?;
            }
            *held = stored.max(*held);
        }
        if self.snapshot.is_none() {
            self.floors.targets = floors.targets;
        }
        Ok(())
    }
}
