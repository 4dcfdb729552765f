//! Packages, releases, payloads and uploads.

use std::fmt::Display;

use ota_domain::{
    Hardware, PackageName, Sha256Digest, Version, Violation, Violations,
    package::{MAX_DESCRIPTION, Package},
    payload::{Payload, Stored},
    release::{Draft, Installer, MAX_HARDWARE, MAX_NOTES_BYTES, Release, State},
    text,
    upload::Upload,
};

use super::name;
use crate::{admin::v1, convert};

/// How an error writes a package's name.
pub const PACKAGE: &str = "packages/{package}";
/// How an error writes a payload's name.
pub const PAYLOAD: &str = "payloads/{sha256}";
/// How an error writes an upload's name.
pub const UPLOAD: &str = "uploads/{upload}";

impl From<Installer> for v1::Installer {
    fn from(installer: Installer) -> Self {
        match installer {
            Installer::Directory => Self::Directory,
            Installer::File => Self::File,
        }
    }
}

impl From<State> for v1::ReleaseState {
    fn from(state: State) -> Self {
        match state {
            State::Published => Self::Published,
            State::Yanked => Self::Yanked,
        }
    }
}

/// A package for the wire.
#[must_use]
pub fn package(package: Package) -> v1::Package {
    v1::Package {
        name: format!("packages/{}", package.name),
        description: package.description,
        create_time: Some(convert::timestamp(package.created_at)),
        etag: package.revision.to_string(),
        release_count: package.release_count,
        latest_version: package.latest_version.map(|version| version.to_string()).unwrap_or_default(),
    }
}

/// A release for the wire.
#[must_use]
pub fn release(release: Release) -> v1::Release {
    v1::Release {
        name: name::release(&release.package, &release.version),
        release_counter: release.counter,
        hardware: release.hardware.iter().map(ToString::to_string).collect(),
        installer: v1::Installer::from(release.installer).into(),
        payload: format!("payloads/{}", release.payload.sha256),
        payload_size_bytes: release.payload.size_bytes.cast_signed(),
        unpacked_size_bytes: release.unpacked_size_bytes.cast_signed(),
        notes: release.notes,
        state: v1::ReleaseState::from(release.state).into(),
        create_time: Some(convert::timestamp(release.created_at)),
        creator: release.creator,
        etag: release.revision.to_string(),
        is_signed: release.is_signed,
    }
}

/// A payload for the wire.
#[must_use]
pub fn payload(stored: Stored) -> v1::Payload {
    v1::Payload {
        name: format!("payloads/{}", stored.payload.sha256),
        size_bytes: stored.payload.size_bytes.cast_signed(),
        create_time: Some(convert::timestamp(stored.created_at)),
    }
}

/// An upload for the wire.
#[must_use]
pub fn upload(upload: Upload) -> v1::Upload {
    v1::Upload {
        name: format!("uploads/{}", upload.id),
        sha256: upload.payload.sha256.to_string(),
        size_bytes: upload.payload.size_bytes.cast_signed(),
        offset: upload.received_bytes.cast_signed(),
        expire_time: Some(convert::timestamp(upload.expires_at)),
    }
}

/// The payload that is announced, from the wire.
///
/// # Errors
/// Every field at fault.
pub fn announced(request: v1::CreateUploadRequest) -> Result<Payload, Vec<Violation>> {
    let mut violations = Violations::default();
    let upload = request.upload.unwrap_or_default();
    let sha256 = violations.take("upload.sha256", upload.sha256.parse::<Sha256Digest>());
    let size_bytes =
        violations.take("upload.size_bytes", u64::try_from(upload.size_bytes).map_err(|_| "must not be negative"));
    violations.require(
        size_bytes != Some(0),
        "upload.size_bytes",
        "must be at least 1: an empty payload installs nothing",
    );
    let payload = sha256.zip(size_bytes).map(|(sha256, size_bytes)| Payload { sha256, size_bytes });
    violations.finish(payload)
}

/// A package to create, from the wire: its name and its description.
///
/// # Errors
/// Every field at fault.
pub fn new_package(request: v1::CreatePackageRequest) -> Result<(PackageName, String), Vec<Violation>> {
    let mut violations = Violations::default();
    let name = violations.take("package_id", request.package_id.parse());
    let description = request.package.unwrap_or_default().description;
    violations.take("package.description", text::check(&description, MAX_DESCRIPTION));
    violations.finish(name.map(|name| (name, description)))
}

/// A change to a package.
#[derive(Debug)]
pub struct PackageChange {
    /// Which one.
    pub name: PackageName,
    /// What it was when it was read. Empty when the caller does not mind.
    pub etag: String,
    /// Its new description.
    pub description: String,
}

/// A change to a package, from the wire.
///
/// # Errors
/// Every field at fault.
pub fn package_change(request: v1::UpdatePackageRequest) -> Result<PackageChange, Vec<Violation>> {
    let mut violations = Violations::default();
    let v1::Package { name, description, etag, .. } = request.package.unwrap_or_default();
    let name = violations.take("package.name", name::parse(&name, PACKAGE));
    violations.take("package.description", text::check(&description, MAX_DESCRIPTION));
    only("description", request.update_mask.as_ref(), &mut violations);
    violations.finish(name.map(|name| PackageChange { name, etag, description }))
}

/// A change to a release.
#[derive(Debug)]
pub struct ReleaseChange {
    /// Its package.
    pub package: PackageName,
    /// Its version.
    pub version: Version,
    /// What it was when it was read. Empty when the caller does not mind.
    pub etag: String,
    /// Its new notes.
    pub notes: String,
}

/// A change to a release, from the wire.
///
/// # Errors
/// Every field at fault.
pub fn release_change(request: v1::UpdateReleaseRequest) -> Result<ReleaseChange, Vec<Violation>> {
    let mut violations = Violations::default();
    let v1::Release { name, notes, etag, .. } = request.release.unwrap_or_default();
    let name = violations.take("release.name", name::parse_release(&name));
    violations.take("release.notes", text::check_bytes(&notes, MAX_NOTES_BYTES));
    only("notes", request.update_mask.as_ref(), &mut violations);
    violations.finish(name.map(|(package, version)| ReleaseChange { package, version, etag, notes }))
}

/// Notes what an update mask names beside `field`, the only one that can be changed. No mask means all that can.
fn only(field: &str, mask: Option<&prost_types::FieldMask>, violations: &mut Violations) {
    for (index, path) in mask.into_iter().flat_map(|mask| &mask.paths).enumerate() {
        violations.require(
            path == field || path == "*",
            format!("update_mask.paths[{index}]"),
            format!("{path:?} cannot be changed; `{field}` can"),
        );
    }
}

/// A release to publish, from the wire.
///
/// # Errors
/// Every field at fault.
pub fn draft(request: v1::CreateReleaseRequest) -> Result<Draft, Vec<Violation>> {
    let mut violations = Violations::default();
    let wire = request.release.unwrap_or_default();
    let package = violations.take("parent", name::parse::<PackageName>(&request.parent, PACKAGE));
    let version = violations.take("version", request.version.parse::<Version>());
    let hardware = hardware(&wire.hardware, &mut violations);
    let installer = violations.take("release.installer", installer(wire.installer));
    let payload = violations.take("release.payload", name::parse::<Sha256Digest>(&wire.payload, PAYLOAD));
    let unpacked = u64::try_from(wire.unpacked_size_bytes).map_err(|_| "must not be negative");
    let unpacked_size_bytes = violations.take("release.unpacked_size_bytes", unpacked);
    violations.take("release.notes", text::check_bytes(&wire.notes, MAX_NOTES_BYTES));
    let draft = || {
        Some(Draft {
            package: package?,
            version: version?,
            hardware,
            installer: installer?,
            payload: payload?,
            unpacked_size_bytes: unpacked_size_bytes?,
            notes: wire.notes,
        })
    };
    violations.finish(draft())
}

/// Reads hardware types. Naming one twice is naming it once.
fn hardware(names: &[String], violations: &mut Violations) -> Vec<Hardware> {
    violations.require(
        names.len() <= MAX_HARDWARE,
        "release.hardware",
        format!("must name at most {MAX_HARDWARE} hardware types"),
    );
    let mut hardware = Vec::new();
    for (index, name) in names.iter().take(MAX_HARDWARE).enumerate() {
        if let Some(name) = violations.take(format!("release.hardware[{index}]"), name.parse())
            && !hardware.contains(&name)
        {
            hardware.push(name);
        }
    }
    hardware
}

fn installer(wire: i32) -> Result<Installer, impl Display> {
    match v1::Installer::try_from(wire) {
        Ok(v1::Installer::Directory) => Ok(Installer::Directory),
        Ok(v1::Installer::File) => Ok(Installer::File),
        Ok(v1::Installer::Unspecified) => Err("must be set: INSTALLER_DIRECTORY or INSTALLER_FILE".to_owned()),
        Ok(later @ (v1::Installer::Slot | v1::Installer::Module | v1::Installer::Mcu)) => Err(format!(
            "{} is not part of this server yet; it knows INSTALLER_DIRECTORY and INSTALLER_FILE",
            later.as_str_name()
        )),
        Err(_) => Err(format!("{wire} is no installer; this server knows INSTALLER_DIRECTORY and INSTALLER_FILE")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields<T: std::fmt::Debug>(result: Result<T, Vec<Violation>>) -> Vec<String> {
        result.unwrap_err().into_iter().map(|violation| violation.field).collect()
    }

    fn request() -> v1::CreateReleaseRequest {
        v1::CreateReleaseRequest {
            parent: "packages/app".to_owned(),
            version: "1.2.3".to_owned(),
            release: Some(v1::Release {
                hardware: vec!["rpi4".to_owned(), "rpi4".to_owned(), "rpi5".to_owned()],
                installer: v1::Installer::Directory.into(),
                payload: format!("payloads/{}", Sha256Digest([7; 32])),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    #[test]
    fn hardware_named_twice_is_named_once() {
        let draft = draft(request()).unwrap();
        assert_eq!(draft.hardware.iter().map(Hardware::as_str).collect::<Vec<_>>(), ["rpi4", "rpi5"]);
    }

    #[test]
    fn every_field_at_fault_is_told_at_once() {
        let request = v1::CreateReleaseRequest {
            parent: "packages/../etc".to_owned(),
            version: "latest".to_owned(),
            release: Some(v1::Release {
                hardware: vec!["rpi4".to_owned(), "RPI".to_owned()],
                installer: 99,
                payload: "payloads/1234".to_owned(),
                unpacked_size_bytes: -1,
                notes: "\0".to_owned(),
                ..Default::default()
            }),
            ..Default::default()
        };
        assert_eq!(
            fields(draft(request)),
            [
                "parent",
                "version",
                "release.hardware[1]",
                "release.installer",
                "release.payload",
                "release.unpacked_size_bytes",
                "release.notes"
            ]
        );
    }

    #[test]
    fn an_installer_of_a_later_server_is_refused_by_name() {
        let mut request = request();
        request.release.as_mut().unwrap().installer = v1::Installer::Mcu.into();
        let violations = draft(request).unwrap_err();
        assert_eq!(violations[0].field, "release.installer");
        assert!(violations[0].description.contains("INSTALLER_MCU"), "{violations:?}");
    }

    #[test]
    fn only_the_notes_of_a_release_can_be_changed() {
        let change = |paths: &[&str]| {
            release_change(v1::UpdateReleaseRequest {
                release: Some(v1::Release { name: "packages/app/releases/1.0.0".to_owned(), ..Default::default() }),
                update_mask: Some(prost_types::FieldMask {
                    paths: paths.iter().map(|&path| path.to_owned()).collect(),
                }),
            })
        };
        assert!(change(&[]).is_ok() && change(&["notes"]).is_ok());
        assert_eq!(fields(change(&["notes", "payload"])), ["update_mask.paths[1]"]);
    }

    #[test]
    fn an_empty_payload_cannot_be_announced() {
        let request = |size_bytes| v1::CreateUploadRequest {
            upload: Some(v1::Upload { sha256: "x".to_owned(), size_bytes, ..Default::default() }),
        };
        assert_eq!(fields(announced(request(0))), ["upload.sha256", "upload.size_bytes"]);
        assert_eq!(fields(announced(request(-1))), ["upload.sha256", "upload.size_bytes"]);
    }
}
