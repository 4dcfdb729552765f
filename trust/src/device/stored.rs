//! The form in which a device stores what it trusts.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use ota_domain::{DeviceId, Hardware, PackageName};
use serde::{Deserialize, Serialize};

use super::Trusted;
use crate::{
    fault::{Because as _, Fault, TrustError},
    verify::Repository,
};

/// Documents are kept as signed, as text: they are JSON.
#[derive(Serialize, Deserialize)]
pub(super) struct Stored {
    device: DeviceId,
    hardware: Hardware,
    image: StoredRepository,
    director: StoredRepository,
    floors: BTreeMap<PackageName, i64>,
    latest_time: Option<DateTime<Utc>>,
    updated_at: Option<DateTime<Utc>>,
}

#[derive(Serialize, Deserialize)]
struct StoredRepository {
    root: String,
    timestamp: Option<String>,
    snapshot: Option<String>,
    targets: BTreeMap<String, String>,
}

impl From<&Repository> for StoredRepository {
    fn from(repository: &Repository) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let document = |role: &str| repository.bytes(role).map(text);
        Self {
            root: text(repository.root_bytes()),
            timestamp: document("timestamp"),
            snapshot: document("snapshot"),
            targets: repository
                .targets_roles()
                .filter_map(|(role, _)| Some((role.to_owned(), document(role)?)))
                .collect(),
        }
    }
}

impl StoredRepository {
    fn restore(&self) -> Result<Repository, TrustError> {
        Repository::restore(
            self.root.as_bytes(),
            self.timestamp.as_deref().map(str::as_bytes),
            self.snapshot.as_deref().map(str::as_bytes),
            self.targets.iter().map(|(role, document)| (role.as_str(), document.as_bytes())),
        )
    }
}

impl From<Trusted> for Stored {
    fn from(trusted: Trusted) -> Self {
        Self {
            device: trusted.device,
            hardware: trusted.hardware,
            image: StoredRepository::from(&trusted.image),
            director: StoredRepository::from(&trusted.director),
            floors: trusted.floors,
            latest_time: trusted.latest_time,
            updated_at: trusted.updated_at,
        }
    }
}

impl TryFrom<Stored> for Trusted {
    type Error = TrustError;

    fn try_from(stored: Stored) -> Result<Self, TrustError> {
        let damaged = |what: &str, error: TrustError| Fault::Store.because(format!("{what}: {}", error.message));
        let trusted = Self {
            device: stored.device,
            hardware: stored.hardware,
            image: stored.image.restore().map_err(|error| damaged("image", error))?,
            director: stored.director.restore().map_err(|error| damaged("director", error))?,
            floors: stored.floors,
            latest_time: stored.latest_time,
            updated_at: stored.updated_at,
        };
        trusted.check_assignment().map_err(|error| damaged("director", error))?;
        Ok(trusted)
    }
}
