//! How devices are shown.

use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, Utc};
use ota_proto::admin::v1::{Device, DeviceState, Inventory};

use crate::{
    output::{Cell, Column, Document, Fact, Resource, Tone},
    reference::short,
    text, time,
};

impl Resource for Device {
    const PLURAL: &'static str = "devices";

    fn name(&self) -> &str {
        &self.name
    }

    fn document(&self) -> Document {
        Document::new("ota.admin.v1.Device", self)
    }

    fn columns() -> Vec<Column<Self>> {
        vec![
            Column::new("DEVICE", |device, _| short(&device.name).into()),
            Column::new("STATE", |device, _| state(device.state())),
            Column::new("ONLINE", |device, _| online(device)),
            Column::new("HARDWARE", |device, _| device.hardware.as_str().into()),
            Column::new("RUNNING", |device, _| running(device).join(",").into()),
            Column::age("SEEN", |device, now| time::age(device.last_seen_time.as_ref(), now).into()),
            Column::age("AGE", |device, now| time::age(device.create_time.as_ref(), now).into()),
            Column::wide("LABELS", |device, _| pairs(&device.labels).join(",").into()),
            Column::wide("HARDWARE-ID", |device, _| device.hardware_id.as_str().into()),
            Column::wide("AGENT", |device, _| device.agent_version.as_str().into()),
        ]
    }

    fn facts(&self, now: DateTime<Utc>) -> Vec<Fact> {
        let mut facts = vec![
            Fact::new("Device", short(&self.name)),
            Fact::new("State", state(self.state())),
            Fact::new("Online", online(self)),
            Fact::new("Last seen", ago(time::age(self.last_seen_time.as_ref(), now))),
            Fact::new("Hardware", self.hardware.as_str()),
            Fact::new("Hardware id", self.hardware_id.as_str()),
            Fact::new("Running", running(self).join("\n")),
            Fact::new("Labels", pairs(&self.labels).join("\n")),
            Fact::new("Agent", self.agent_version.as_str()),
            Fact::new("Enrolled", format!("{} with {}", time::exact(self.create_time.as_ref()), self.enroll_token)),
        ];
        if let Some(inventory) = &self.inventory {
            facts.extend(inventory_facts(inventory, now));
        }
        facts
    }
}

fn inventory_facts(inventory: &Inventory, now: DateTime<Utc>) -> Vec<Fact> {
    let disks = inventory.disks.iter().map(|disk| {
        let (free, size) = (text::bytes(disk.available_bytes), text::bytes(disk.size_bytes));
        format!("{} {} {free} free of {size}", disk.mount_point, disk.file_system)
    });
    let interfaces = inventory
        .interfaces
        .iter()
        .map(|interface| format!("{} {} {}", interface.name, interface.mac, interface.addresses.join(" ")));
    let mut facts = vec![
        Fact::new("Host name", inventory.hostname.as_str()),
        Fact::new("System", format!("{} {}", inventory.os_name, inventory.os_version)),
        Fact::new("Kernel", format!("{} {}", inventory.kernel, inventory.architecture)),
        Fact::new("Processor", format!("{} × {}", inventory.cpu_cores, inventory.cpu_model)),
        Fact::new("Memory", text::bytes(inventory.memory_bytes)),
        Fact::new("Disks", disks.collect::<Vec<_>>().join("\n")),
        Fact::new("Network", interfaces.collect::<Vec<_>>().join("\n")),
        Fact::new("Booted", ago(time::age(inventory.boot_time.as_ref(), now))),
    ];
    if !inventory.attributes.is_empty() {
        facts.push(Fact::new("Attributes", pairs(&inventory.attributes).join("\n")));
    }
    facts
}

fn ago(age: String) -> String {
    if age == "-" { age } else { format!("{age} ago") }
}

fn running(device: &Device) -> Vec<String> {
    device.running.iter().map(|release| format!("{}@{}", release.package, release.version)).collect()
}

/// Writes a map as `key=value`, by key: maps arrive in no order.
pub fn pairs(map: &HashMap<String, String>) -> Vec<String> {
    let sorted: BTreeMap<_, _> = map.iter().collect();
    sorted.into_iter().map(|(key, value)| format!("{key}={value}")).collect()
}

fn online(device: &Device) -> Cell {
    if device.online { Cell::toned("yes", Tone::Good) } else { Cell::toned("no", Tone::Faint) }
}

fn state(state: DeviceState) -> Cell {
    match state {
        DeviceState::Unspecified => "unknown".into(),
        DeviceState::Pending => Cell::toned("pending", Tone::Busy),
        DeviceState::Accepted => Cell::toned("accepted", Tone::Good),
        DeviceState::Rejected => Cell::toned("rejected", Tone::Bad),
        DeviceState::Decommissioned => Cell::toned("decommissioned", Tone::Faint),
    }
}
