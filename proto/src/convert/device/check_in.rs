//! Check-ins and what they answer.

use ota_domain::{
    Sha256Digest, Violation, Violations,
    device::Running,
    release::{Installer, Payload},
};

use crate::device::v1 as wire;

/// Most releases a device can run.
pub const MAX_RUNNING: usize = 64;
/// Most characters in an agent's version, a boot id or a time zone.
pub const MAX_TEXT: usize = 64;

/// Reads what a device says it runs: by package, each once.
pub fn running(told: &[wire::RunningRelease], violations: &mut Violations) -> Vec<Running> {
    // Texts are made for what is wrong only: every check-in of every device passes here.
    if told.len() > MAX_RUNNING {
        violations.add("running", format!("must have at most {MAX_RUNNING} entries"));
    }
    let mut running: Vec<Running> = told
        .iter()
        .take(MAX_RUNNING)
        .enumerate()
        .filter_map(|(index, release)| {
            let package = release.package.parse();
            let package = package.map_err(|error| violations.add(format!("running[{index}].package"), error)).ok();
            let version = release.version.parse();
            let version = version.map_err(|error| violations.add(format!("running[{index}].version"), error)).ok();
            let payload = Sha256Digest::try_from(release.payload_sha256.as_ref());
            let payload =
                payload.map_err(|error| violations.add(format!("running[{index}].payload_sha256"), error)).ok();
            Some(Running { package: package?, version: version?, payload: payload? })
        })
        .collect();
    running.sort_unstable();
    if running.windows(2).any(|pair| pair[0].package == pair[1].package) {
        violations.add("running", "must name each package once");
    }
    running
}

/// Reads the checksum of the inventory. Empty means none.
///
/// # Errors
/// When a field breaks its rule: all of them.
pub fn request(told: &wire::CheckInRequest) -> Result<(Vec<Running>, Option<Sha256Digest>), Vec<Violation>> {
    let mut violations = Violations::default();
    let running = running(&told.running, &mut violations);
    let inventory = match told.inventory_sha256.as_ref() {
        [] => None,
        bytes => violations.take("inventory_sha256", Sha256Digest::try_from(bytes)),
    };
    for (field, text) in
        [("agent_version", &told.agent_version), ("boot_id", &told.boot_id), ("time_zone", &told.time_zone)]
    {
        if text.len() > MAX_TEXT || text.chars().any(char::is_control) {
            violations.add(field, format!("must have at most {MAX_TEXT} characters and no control characters"));
        }
    }
    violations.require(matches!(told.nonce.len(), 0 | 16..=32), "nonce", "must be empty or have 16 to 32 bytes");
    if let Some(held) = &told.metadata {
        for (field, version) in [
            ("metadata.image_root", held.image_root),
            ("metadata.image_timestamp", held.image_timestamp),
            ("metadata.image_snapshot", held.image_snapshot),
            ("metadata.director_root", held.director_root),
            ("metadata.director", held.director),
        ] {
            violations.require(version >= 0, field, "must be a version, or 0 for none");
        }
    }
    violations.finish(Some((running, inventory)))
}

/// A payload for the wire.
#[must_use]
pub fn payload(payload: &Payload) -> wire::Payload {
    wire::Payload {
        sha256: payload.sha256.0.to_vec().into(),
        size_bytes: i64::try_from(payload.size_bytes).unwrap_or(i64::MAX),
    }
}

/// An installer for the wire.
#[must_use]
pub fn installer(installer: Installer) -> wire::Installer {
    match installer {
        Installer::Directory => wire::Installer::Directory,
        Installer::File => wire::Installer::File,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_of_a_check_in_is_told() {
        let told = wire::CheckInRequest {
            running: vec![wire::RunningRelease {
                package: "../x".into(),
                version: "1".into(),
                payload_sha256: "ab".into(),
            }],
            inventory_sha256: "x".into(),
            boot_id: "\n".into(),
            nonce: "short".into(),
            ..Default::default()
        };
        let fields: Vec<_> = request(&told).unwrap_err().into_iter().map(|violation| violation.field).collect();
        assert_eq!(
            fields,
            [
                "running[0].package",
                "running[0].version",
                "running[0].payload_sha256",
                "inventory_sha256",
                "boot_id",
                "nonce"
            ]
        );
    }

    #[test]
    fn a_package_runs_once() {
        let release = |version: &str| wire::RunningRelease {
            package: "app".into(),
            version: version.into(),
            payload_sha256: vec![0; 32].into(),
        };
        let told = wire::CheckInRequest { running: vec![release("1.0.0"), release("2.0.0")], ..Default::default() };
        assert_eq!(request(&told).unwrap_err()[0].field, "running");
    }
}
