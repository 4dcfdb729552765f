//! What a machine is made of, by its own account.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::{text, violation::Violations};

/// Most disks, interfaces or attributes.
pub const MAX_ENTRIES: usize = 64;
/// Most bytes in any one text.
pub const MAX_TEXT_BYTES: usize = 256;

/// A machine's inventory. Sizes are in bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Inventory {
    /// Host name.
    pub hostname: String,
    /// Operating system's name.
    pub os_name: String,
    /// Operating system's version.
    pub os_version: String,
    /// Kernel release.
    pub kernel: String,
    /// Machine architecture as the kernel names it.
    pub architecture: String,
    /// Processor model.
    pub cpu_model: String,
    /// Logical cores.
    pub cpu_cores: i32,
    /// Main memory.
    pub memory_bytes: i64,
    /// Mounted disks.
    pub disks: Vec<Disk>,
    /// Network interfaces.
    pub interfaces: Vec<NetworkInterface>,
    /// When the machine booted; its uptime follows.
    pub boot_time: Option<DateTime<Utc>>,
    /// Anything else the device's configuration adds.
    pub attributes: BTreeMap<String, String>,
}

/// A mounted disk.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// Where it is mounted.
    pub mount_point: String,
    /// File system.
    pub file_system: String,
    /// Size.
    pub size_bytes: i64,
    /// Free bytes, rounded so that small changes do not count as news.
    pub available_bytes: i64,
}

/// A network interface.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkInterface {
    /// Name.
    pub name: String,
    /// Hardware address.
    pub mac: String,
    /// Addresses with prefix length.
    pub addresses: Vec<String>,
}

impl Inventory {
    /// Notes each field that holds too much or what cannot be kept, once, as `inventory.<field>`.
    pub fn check(&self, violations: &mut Violations) {
        let disks = self.disks.iter().flat_map(|disk| [&disk.mount_point, &disk.file_system]);
        let interfaces = self
            .interfaces
            .iter()
            .flat_map(|interface| [&interface.name, &interface.mac].into_iter().chain(interface.addresses.iter()));
        let attributes = self.attributes.iter().flat_map(|(key, value)| [key, value]);
        let addresses = self.interfaces.iter().map(|interface| interface.addresses.len()).max();
        let (disk_count, interface_count) = (self.disks.len(), self.interfaces.len().max(addresses.unwrap_or(0)));
        for (field, problem) in [
            ("hostname", of_text([&self.hostname])),
            ("os.name", of_text([&self.os_name])),
            ("os.version", of_text([&self.os_version])),
            ("os.kernel", of_text([&self.kernel])),
            ("architecture", of_text([&self.architecture])),
            ("cpu.model", of_text([&self.cpu_model])),
            ("cpu.cores", of_number([i64::from(self.cpu_cores)])),
            ("memory_bytes", of_number([self.memory_bytes])),
            ("disks", of_count(disk_count).or_else(|| of_text(disks))),
            ("disks", of_number(self.disks.iter().flat_map(|disk| [disk.size_bytes, disk.available_bytes]))),
            ("interfaces", of_count(interface_count).or_else(|| of_text(interfaces))),
            ("attributes", of_count(self.attributes.len()).or_else(|| of_text(attributes))),
        ] {
            if let Some(problem) = problem {
                violations.add(format!("inventory.{field}"), problem);
            }
        }
    }
}

fn of_count(count: usize) -> Option<String> {
    (count > MAX_ENTRIES).then(|| format!("must have at most {MAX_ENTRIES} entries, also within an entry"))
}

fn of_text<'a>(texts: impl IntoIterator<Item = &'a String>) -> Option<String> {
    texts.into_iter().find_map(|text| text::check_bytes(text, MAX_TEXT_BYTES).err()).map(|error| error.to_string())
}

fn of_number(numbers: impl IntoIterator<Item = i64>) -> Option<String> {
    numbers.into_iter().any(|number| number < 0).then(|| "must not be negative".to_owned())
}
