//! A line of software.

use chrono::{DateTime, Utc};

use crate::{PackageId, PackageName, Version};

/// Most characters in a package's description.
pub const MAX_DESCRIPTION: usize = 1_024;

/// A line of software.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Package {
    /// Its id, which outlives no rename because there is none.
    pub id: PackageId,
    /// Its name.
    pub name: PackageName,
    /// What it is.
    pub description: String,
    /// When it was created.
    pub created_at: DateTime<Utc>,
    /// Counts its changes.
    pub revision: i64,
    /// Number of its releases.
    pub release_count: i64,
    /// Version of the release with the highest counter that is not yanked.
    pub latest_version: Option<Version>,
}
