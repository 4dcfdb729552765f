//! What can be signed with the keys that are online.

use bytes::Bytes;
use chrono::{DateTime, Utc};
use ota_trust::{
    image::OnlineKeys,
    metadata::{Role, Snapshot, Timestamp, sign},
    verify::Repository,
};

/// Signs a snapshot and a timestamp, above those that there are, that name a version of the list.
pub(crate) fn online(image: &Repository, keys: OnlineKeys<'_>, targets: u64, now: DateTime<Utc>) -> (Bytes, Bytes) {
    let versions = image.versions();
    let (version, timestamp) = (versions.snapshot + 1, versions.timestamp + 1);
    let meta = [("targets.json".to_owned(), targets)].into();
    let snapshot = Snapshot { version, expires: now + Role::Snapshot.lifetime(), meta };
    let timestamp =
        Timestamp { version: timestamp, expires: now + Role::Timestamp.lifetime(), snapshot_version: version };
    let snapshot = sign(&snapshot, &[keys.snapshot]).expect("a snapshot");
    let timestamp = sign(&timestamp, &[keys.timestamp]).expect("a timestamp");
    (snapshot.into(), timestamp.into())
}
