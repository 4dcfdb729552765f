//! What an agent knows of a release, and the work that brings one onto the device.

use std::fmt;
use std::time::Duration;

use ota_domain::device::Running;
use ota_domain::release::{Installer, Payload};
use ota_domain::{DeploymentId, Hardware, PackageName, Version};
use serde::{Deserialize, Serialize};

/// One release of one package.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// The package.
    pub package: PackageName,
    /// The version.
    pub version: Version,
    /// The bytes that are installed; their SHA-256 names the release's folder.
    pub payload: Payload,
    /// Rises with every release of the package.
    pub release_counter: i64,
    /// How it is installed.
    pub installer: Installer,
}

impl Release {
    /// Returns what the server is told of a release that runs.
    pub fn running(&self) -> Running {
        Running { package: self.package.clone(), version: self.version.clone(), payload: self.payload.sha256 }
    }
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.package, self.version)
    }
}

/// One deployment as the server handed it out: the release to come to, and within which bounds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// The deployment's id.
    pub deployment: DeploymentId,
    /// Counts the deployment's tries on this device.
    pub attempt: u32,
    /// The release to run.
    pub release: Release,
    /// Hardware types that the release is for; empty means any.
    #[serde(default)]
    pub hardware: Vec<Hardware>,
    /// Size of the installed tree, 0 when not known.
    pub unpacked_size_bytes: u64,
    /// Most bytes a second to download, if the server sets a limit.
    pub bandwidth_limit: Option<u64>,
    /// How long the download may make no headway, if the server says so.
    pub download_deadline: Option<Duration>,
    /// How long the release may take to become healthy, if the server says so.
    pub verify_deadline: Option<Duration>,
}
