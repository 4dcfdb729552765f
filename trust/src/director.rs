//! The director repository, as the server signs it: one small set of documents for each device.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use ota_domain::DeviceId;

use crate::{
    key::{SignError, Signer},
    metadata::{self, Role, Snapshot, Target, Targets, Timestamp, file_name},
};

/// How long the documents are good for, unless they have to travel.
pub const LIFETIME: TimeDelta = TimeDelta::days(1);

/// What one device should run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    /// Which device.
    pub device: DeviceId,
    /// Rises with every assignment of the device, and never falls.
    pub version: u64,
    /// The releases, each as the image repository lists it.
    pub targets: Vec<Target>,
}

/// An assignment, signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Documents {
    /// The timestamp.
    pub timestamp: Vec<u8>,
    /// The snapshot.
    pub snapshot: Vec<u8>,
    /// The targets.
    pub targets: Vec<u8>,
}

/// Signs an assignment. All three documents have its version.
///
/// # Errors
/// When the signer does not sign.
pub fn sign(
    assignment: &Assignment,
    now: DateTime<Utc>,
    lifetime: TimeDelta,
    signer: &dyn Signer,
) -> Result<Documents, SignError> {
    let version = assignment.version;
    let expires = now + lifetime;
    let targets = Targets {
        version,
        expires,
        targets: assignment.targets.iter().map(|target| (target.path(), target.clone())).collect(),
        delegations: None,
        device: Some(assignment.device),
    };
    let meta = BTreeMap::from([(file_name(Role::Targets.as_str()), version)]);
    Ok(Documents {
        timestamp: metadata::sign(&Timestamp { version, expires, snapshot_version: version }, &[signer])?,
        snapshot: metadata::sign(&Snapshot { version, expires, meta }, &[signer])?,
        targets: metadata::sign(&targets, &[signer])?,
    })
}
