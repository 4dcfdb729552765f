//! Devices and changes to them.

use ota_domain::{
    Violation, Violations,
    device::{Device, LabelChange, State},
    inventory::Inventory,
};

use crate::{
    admin::v1,
    convert::{self, device::trust_fault},
};

/// How an error writes a device's name.
pub const DEVICE: &str = "devices/{device}";

impl From<State> for v1::DeviceState {
    fn from(state: State) -> Self {
        match state {
            State::Pending => Self::Pending,
            State::Accepted => Self::Accepted,
            State::Rejected => Self::Rejected,
            State::Decommissioned => Self::Decommissioned,
        }
    }
}

/// A device for the wire.
#[must_use]
pub fn device(device: Device, online: bool) -> v1::Device {
    let running = device.running.into_iter().map(|entry| v1::RunningRelease {
        package: entry.running.package.to_string(),
        version: entry.running.version.to_string(),
        payload: format!("payloads/{}", entry.running.payload),
        since_time: Some(convert::timestamp(entry.since)),
    });
    v1::Device {
        name: format!("devices/{}", device.id),
        state: v1::DeviceState::from(device.state).into(),
        hardware: device.hardware.to_string(),
        hardware_id: device.hardware_id,
        labels: device.labels.into_iter().collect(),
        running: running.collect(),
        online,
        last_seen_time: device.presence.as_ref().map(|presence| convert::timestamp(presence.last_seen_at)),
        agent_version: device.presence.map(|presence| presence.agent_version).unwrap_or_default(),
        inventory: device.inventory.map(inventory),
        inventory_time: device.inventory_at.map(convert::timestamp),
        create_time: Some(convert::timestamp(device.created_at)),
        enroll_token: format!("enrollTokens/{}", device.enroll_token),
        etag: device.revision.to_string(),
        key_sha256: device.key_sha256.map(|sha256| sha256.to_string()).unwrap_or_default(),
        certificate_expire_time: device.certificate_expires_at.map(convert::timestamp),
        identity_conflicts: device.identity_conflicts.iter().map(|other| format!("devices/{other}")).collect(),
        trust_fault: trust_fault::name(device.trust_fault),
    }
}

fn inventory(inventory: Inventory) -> v1::Inventory {
    let disks = inventory.disks.into_iter().map(|disk| v1::Disk {
        mount_point: disk.mount_point,
        file_system: disk.file_system,
        size_bytes: disk.size_bytes,
        available_bytes: disk.available_bytes,
    });
    let interfaces = inventory.interfaces.into_iter().map(|interface| v1::NetworkInterface {
        name: interface.name,
        mac: interface.mac,
        addresses: interface.addresses,
    });
    v1::Inventory {
        hostname: inventory.hostname,
        os_name: inventory.os_name,
        os_version: inventory.os_version,
        kernel: inventory.kernel,
        architecture: inventory.architecture,
        cpu_model: inventory.cpu_model,
        cpu_cores: inventory.cpu_cores,
        memory_bytes: inventory.memory_bytes,
        disks: disks.collect(),
        interfaces: interfaces.collect(),
        boot_time: inventory.boot_time.map(convert::timestamp),
        attributes: inventory.attributes.into_iter().collect(),
    }
}

/// What a change to a device with this update mask does to its labels.
///
/// # Errors
/// When the mask is empty or names what cannot be changed.
pub fn label_change(device: &v1::Device, mask: Option<&prost_types::FieldMask>) -> Result<LabelChange, Vec<Violation>> {
    let mut violations = Violations::default();
    let paths = mask.map(|mask| mask.paths.as_slice()).unwrap_or_default();
    violations.require(!paths.is_empty(), "update_mask", "must name `labels` or `labels.{key}`");
    let mut edits = Vec::new();
    for (index, path) in paths.iter().enumerate() {
        match path.strip_prefix("labels") {
            Some("") => {}
            // What follows the first dot is the key, whatever dots and slashes it has itself.
            Some(key) if key.starts_with('.') => {
                let key = &key[1..];
                edits.push((key.to_owned(), device.labels.get(key).cloned()));
            }
            Some(_) | None => violations.add(
                format!("update_mask.paths[{index}]"),
                format!("{path:?} cannot be changed; `labels` and `labels.{{key}}` can"),
            ),
        }
    }
    let change = if paths.iter().any(|path| path == "labels") {
        LabelChange::Replace(device.labels.clone().into_iter().collect())
    } else {
        LabelChange::Edit(edits)
    };
    violations.finish(Some(change))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(labels: &[(&str, &str)], paths: &[&str]) -> Result<LabelChange, Vec<String>> {
        let labels = labels.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect();
        let mask = prost_types::FieldMask { paths: paths.iter().map(|&path| path.to_owned()).collect() };
        label_change(&v1::Device { labels, ..Default::default() }, Some(&mask))
            .map_err(|violations| violations.into_iter().map(|violation| violation.field).collect())
    }

    #[test]
    fn a_masked_key_is_set_or_removed() {
        assert_eq!(
            change(&[("example.com/ring", "a"), ("unmasked", "b")], &["labels.example.com/ring", "labels.site"]),
            Ok(LabelChange::Edit(vec![
                ("example.com/ring".to_owned(), Some("a".to_owned())),
                ("site".to_owned(), None),
            ]))
        );
        assert_eq!(change(&[], &["labels"]), Ok(LabelChange::Replace(Default::default())));
    }

    #[test]
    fn only_labels_can_be_changed() {
        assert_eq!(change(&[], &[]), Err(vec!["update_mask".to_owned()]));
        assert_eq!(
            change(&[], &["labels.a", "state", "labelsx"]),
            Err(vec!["update_mask.paths[1]".to_owned(), "update_mask.paths[2]".to_owned()])
        );
    }
}
