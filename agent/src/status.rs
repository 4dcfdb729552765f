//! What the device runs and does, read from the data directory without disturbing the agent that works in it.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use ota_domain::{DeploymentId, PackageName, Sha256Digest, Version};
use ota_trust::device::HeldVersions;
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::guard::{self, NotedFault};
use crate::identity::{self, Certificate, DeviceKey, Enrollment};
use crate::journal::{self, Found, Record};
use crate::machine::{Outcome, Phase, Settled};
use crate::releases::{self, Releases};
use crate::trust_store;

/// Why the status cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The enrolment cannot be read.
    #[error(transparent)]
    Identity(identity::Error),
    /// The data directory cannot be read.
    #[error("cannot read the data directory {path}")]
    Disk {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// The device's status.
#[derive(Debug, Serialize)]
pub struct Status {
    /// The agent's own version.
    pub agent_version: &'static str,
    /// The data directory.
    pub data_dir: PathBuf,
    /// Who the device is; nothing before it is enrolled.
    pub enrollment: Option<Enrollment>,
    /// What the device proves it with.
    pub identity: Option<Identity>,
    /// The agent's record is lost; what runs is not affected.
    pub is_journal_lost: bool,
    /// What the device believes.
    pub trust: Trust,
    /// What runs.
    pub running: Vec<Running>,
    /// The work at hand.
    pub work: Option<Work>,
    /// How the last work ended.
    pub last: Option<Last>,
}

/// What a device proves itself with, and whom it believes. Nothing secret.
#[derive(Debug, Serialize)]
pub struct Identity {
    /// SHA-256 of the public key, as the server shows it.
    pub key_sha256: Option<Sha256Digest>,
    /// When the certificate ends.
    pub certificate_expires_at: Option<DateTime<Utc>>,
    /// SHA-256 of the certificate of the server's authority.
    pub authority_sha256: Option<Sha256Digest>,
}

/// One release that runs.
#[derive(Debug, Serialize)]
pub struct Running {
    /// The package.
    pub package: PackageName,
    /// The version.
    pub version: Version,
    /// The payload.
    pub payload_sha256: Sha256Digest,
    /// When it was unpacked.
    pub installed_at: DateTime<Utc>,
    /// The version to go back to.
    pub previous: Option<Version>,
}

/// What the device believes.
#[derive(Debug, Serialize)]
pub struct Trust {
    /// Whether there is something to believe in.
    pub state: TrustState,
    /// The metadata it holds.
    pub versions: Option<Versions>,
    /// When the server last proved that it is the newest.
    pub fresh_at: Option<DateTime<Utc>>,
    /// Release counters that the device does not go below.
    pub floors: BTreeMap<PackageName, i64>,
    /// What it last did not believe.
    pub last_fault: Option<NotedFault>,
}

/// The state of the record of trust.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TrustState {
    /// The device is not enrolled.
    None,
    /// In order.
    Held,
    /// Damaged: nothing new is installed until the device is enrolled again.
    Lost,
}

/// Versions of the metadata that a device holds; 0 for none.
#[derive(Debug, Serialize)]
pub struct Versions {
    /// The image repository's root.
    pub image_root: u64,
    /// The image repository's timestamp.
    pub image_timestamp: u64,
    /// The image repository's snapshot.
    pub image_snapshot: u64,
    /// The director repository's root.
    pub director_root: u64,
    /// The director's documents for this device.
    pub director: u64,
}

/// The work at hand.
#[derive(Debug, Serialize)]
pub struct Work {
    /// The deployment.
    pub deployment: DeploymentId,
    /// Its attempt.
    pub attempt: u32,
    /// The package.
    pub package: PackageName,
    /// The version to come to.
    pub version: Version,
    /// Where the work is.
    pub phase: &'static str,
    /// Bytes downloaded.
    pub bytes_done: u64,
    /// Bytes to download.
    pub size_bytes: u64,
}

/// How the last work ended.
#[derive(Debug, Serialize)]
pub struct Last {
    /// The deployment.
    pub deployment: DeploymentId,
    /// Its attempt.
    pub attempt: u32,
    /// The package.
    pub package: PackageName,
    /// The version that it was about.
    pub version: Version,
    /// The end and, if it was a bad one, why.
    pub outcome: Outcome,
}

impl Status {
    /// Reads the status of a data directory.
    pub fn read(data: &Path) -> Result<Self, Error> {
        let disk = |source| Error::Disk { path: data.to_owned(), source };
        let (record, is_unreadable) = match journal::peek(data).map_err(disk)? {
            Found::Record(record) => (*record, false),
            Found::Nothing => (Record::default(), false),
            Found::Unreadable => (Record::default(), true),
        };
        let mut running = Vec::new();
        let packages = releases::packages(data).map_err(disk)?;
        for package in &packages {
            let releases = Releases::new(data, package);
            let Some(current) = releases.current().map_err(disk)? else { continue };
            let Some(record) = releases.record(current).map_err(disk)? else { continue };
            running.push(Running {
                package: package.clone(),
                version: record.release.version,
                payload_sha256: current,
                installed_at: record.installed_at,
                previous: releases.previous_release().map_err(disk)?.map(|release| release.version),
            });
        }
        let enrollment = Enrollment::load(data).map_err(Error::Identity)?;
        let trust = trust(data, packages, enrollment.is_some());
        Ok(Self {
            agent_version: env!("CARGO_PKG_VERSION"),
            data_dir: data.to_owned(),
            enrollment,
            identity: identity(data).map_err(Error::Identity)?,
            is_journal_lost: is_unreadable || record.state.journal_lost,
            trust,
            running,
            work: work(data, &record.state.phase),
            last: record.state.settled.into_iter().next_back().map(last),
        })
    }
}

fn trust(data: &Path, packages: Vec<PackageName>, is_enrolled: bool) -> Trust {
    let trusted = trust_store::peek(data);
    let state = match &trusted {
        Some(_) => TrustState::Held,
        None if is_enrolled => TrustState::Lost,
        None => TrustState::None,
    };
    let versions = trusted.as_ref().map(|trusted| {
        let HeldVersions { image, director } = trusted.versions();
        Versions {
            image_root: image.root,
            image_timestamp: image.timestamp,
            image_snapshot: image.snapshot,
            director_root: director.root,
            director: director.targets,
        }
    });
    let floor = |package| (trusted.as_ref().map_or(0, |trusted| trusted.floor(&package)), package);
    let floors = packages.into_iter().map(floor).filter(|(floor, _)| *floor > 0);
    let floors = floors.map(|(floor, package)| (package, floor)).collect();
    // The latest time that was verified is what a device with no clock at all would go by.
    let fresh_at = trusted.as_ref().map(|trusted| trusted.now(DateTime::UNIX_EPOCH));
    Trust {
        state,
        versions,
        fresh_at: fresh_at.filter(|&time| time > DateTime::UNIX_EPOCH),
        floors,
        last_fault: guard::noted_fault(data),
    }
}

/// Reads the identity. The key is secret, and a person who may not read it still gets the rest.
fn identity(data: &Path) -> Result<Option<Identity>, identity::Error> {
    let Some(authority) = identity::load_authority(data)? else { return Ok(None) };
    let key = match DeviceKey::load(data) {
        Err(identity::Error::Read { source, .. }) if source.kind() == io::ErrorKind::PermissionDenied => None,
        key => key?,
    };
    Ok(Some(Identity {
        key_sha256: key.map(|key| key.sha256()),
        certificate_expires_at: Certificate::load(data)?.map(|certificate| certificate.not_after),
        authority_sha256: Some(Sha256Digest(Sha256::digest(&authority).into())),
    }))
}

fn work(data: &Path, phase: &Phase) -> Option<Work> {
    let job = phase.job()?;
    let release = &job.release;
    let size_bytes = release.payload.size_bytes;
    let (name, bytes_done) = match phase {
        Phase::Idle => return None,
        Phase::Downloading { .. } => {
            let part = std::fs::metadata(Releases::new(data, &release.package).part(release.payload.sha256));
            ("downloading", part.map(|part| part.len()).unwrap_or(0))
        }
        Phase::Verified { .. } => ("installing", size_bytes),
        Phase::Activating { .. } => ("switching", size_bytes),
        Phase::Trial { .. } => ("verifying", size_bytes),
        Phase::Returning { .. } => ("rolling_back", size_bytes),
        Phase::Ended { .. } => ("reporting", size_bytes),
    };
    Some(Work {
        deployment: job.deployment,
        attempt: job.attempt,
        package: release.package.clone(),
        version: release.version.clone(),
        phase: name,
        bytes_done,
        size_bytes,
    })
}

fn last(settled: Settled) -> Last {
    Last {
        deployment: settled.deployment,
        attempt: settled.attempt,
        package: settled.release.package,
        version: settled.release.version,
        outcome: settled.outcome,
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.enrollment {
            Some(enrollment) => {
                writeln!(f, "Device:   {} ({})", enrollment.device, enrollment.state.as_str())?;
                writeln!(f, "Server:   {}", enrollment.server)?;
                writeln!(f, "Hardware: {}", enrollment.hardware)?;
            }
            None => writeln!(f, "Device:   not enrolled")?,
        }
        if let Some(identity) = &self.identity {
            if let Some(key) = identity.key_sha256 {
                writeln!(f, "Key:      SHA-256 {key}")?;
            }
            if let Some(end) = identity.certificate_expires_at {
                writeln!(f, "Identity: certificate until {end}")?;
            }
            if let Some(authority) = identity.authority_sha256 {
                writeln!(f, "Server's authority: SHA-256 {authority}")?;
            }
        }
        writeln!(f, "Data:     {}", self.data_dir.display())?;
        if self.is_journal_lost {
            writeln!(f, "Record:   lost; the device stays with what runs until its next deployment")?;
        }
        write!(f, "{}", self.trust)?;
        if self.running.is_empty() {
            writeln!(f, "Running:  nothing")?;
        }
        for running in &self.running {
            write!(f, "Running:  {} {}", running.package, running.version)?;
            match &running.previous {
                Some(previous) => writeln!(f, " (before: {previous})")?,
                None => writeln!(f)?,
            }
        }
        match &self.work {
            Some(work) => {
                write!(f, "Work:     {} {}: {}", work.package, work.version, work.phase)?;
                let percent = work.bytes_done.saturating_mul(100).checked_div(work.size_bytes).unwrap_or(100);
                writeln!(f, ", {} of {} bytes ({percent} %)", work.bytes_done, work.size_bytes)?;
            }
            None => writeln!(f, "Work:     none")?,
        }
        if let Some(last) = &self.last {
            writeln!(f, "Last:     {} {}: {}", last.package, last.version, last.outcome)?;
        }
        Ok(())
    }
}

impl fmt::Display for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.state {
            TrustState::None => return Ok(()),
            TrustState::Lost => writeln!(f, "Trust:    the record is damaged; nothing new is installed")?,
            TrustState::Held => match self.fresh_at {
                Some(time) => writeln!(f, "Trust:    proven fresh at {}", time.format("%F %T UTC"))?,
                None => writeln!(f, "Trust:    the server's roots; nothing else was verified yet")?,
            },
        }
        if let Some(versions) = &self.versions {
            let Versions { image_root, image_timestamp, image_snapshot, director_root, director } = versions;
            write!(f, "Metadata: root {image_root}, snapshot {image_snapshot}, timestamp {image_timestamp}; ")?;
            writeln!(f, "director root {director_root}, orders {director}")?;
        }
        for (package, floor) in &self.floors {
            writeln!(f, "Floor:    {package} {floor}")?;
        }
        if let Some(NotedFault { fault, message, at, is_current }) = &self.last_fault {
            let since = if *is_current { "not believed since" } else { "last not believed" };
            writeln!(f, "Fault:    {}, {since} {}: {message}", fault.as_str(), at.format("%F %T UTC"))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_data_directory_that_does_not_exist_has_a_status() {
        let folder = tempfile::tempdir().unwrap();
        let status = Status::read(&folder.path().join("none")).unwrap();
        assert!(status.enrollment.is_none() && status.running.is_empty() && status.work.is_none());
        assert!(status.to_string().contains("not enrolled"));
    }
}
