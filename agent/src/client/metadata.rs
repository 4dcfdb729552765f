//! The wire forms of what the trust in a release is made of.

use ota_proto::device::v1 as wire;
use ota_trust::Fault;
use ota_trust::device::{HeldVersions, Update};

/// What a check-in says of the device's trust.
#[derive(Debug, Default)]
pub struct Question {
    /// The metadata that the device holds; nothing when its record is damaged.
    pub versions: Option<HeldVersions>,
    /// Asks for a proof of freshness.
    pub nonce: Option<[u8; 16]>,
    /// Why the last answer was not believed.
    pub fault: Option<Fault>,
}

pub(super) fn versions_to_wire(versions: &HeldVersions) -> wire::MetadataVersions {
    let number = |version: u64| i64::try_from(version).unwrap_or(i64::MAX);
    wire::MetadataVersions {
        image_root: number(versions.image.root),
        image_timestamp: number(versions.image.timestamp),
        image_snapshot: number(versions.image.snapshot),
        director_root: number(versions.director.root),
        director: number(versions.director.targets),
    }
}

pub(super) fn update(update: wire::MetadataUpdate) -> Update {
    let some = |document: bytes::Bytes| (!document.is_empty()).then(|| document.to_vec());
    let all = |documents: Vec<bytes::Bytes>| documents.into_iter().map(|document| document.to_vec()).collect();
    Update {
        image_roots: all(update.image_roots),
        image_timestamp: some(update.image_timestamp),
        image_snapshot: some(update.image_snapshot),
        image_targets: update.image_targets.into_iter().map(|it| (it.role, it.document.to_vec())).collect(),
        director_roots: all(update.director_roots),
        director_timestamp: some(update.director_timestamp),
        director_snapshot: some(update.director_snapshot),
        director_targets: some(update.director_targets),
        freshness: some(update.freshness),
    }
}
