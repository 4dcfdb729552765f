//! What the machine is made of, in a form that stays the same until something of note changes.

use std::collections::BTreeMap;
use std::fs;

use chrono::DateTime;
use ota_domain::Sha256Digest;
use ota_domain::inventory::{Disk, Inventory, MAX_ENTRIES, MAX_TEXT_BYTES, NetworkInterface};
use sha2::{Digest, Sha256};
use sysinfo::{Disks, Networks, System};

/// Free space is told in this many steps of a disk's size.
const SPACE_STEPS: u64 = 20;

/// Returns what changes with every boot.
pub fn boot_id() -> String {
    // Without it, on a system that is no Linux, a reboot is noticed by the boot time in the inventory.
    fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|id| id.trim().to_owned()).unwrap_or_default()
}

/// Returns the IANA name of the machine's time zone, empty when it is not known.
pub fn time_zone() -> String {
    let target = fs::read_link("/etc/localtime").unwrap_or_default();
    let name = target.to_str().and_then(|target| target.split_once("zoneinfo/")).map_or("", |(_, name)| name);
    name.chars().filter(|c| !c.is_control()).take(64).collect()
}

/// Looks at the machine. `previous` is what was found before: free space that has hardly changed is told as before.
pub fn collect(attributes: &BTreeMap<String, String>, previous: Option<&Inventory>) -> Inventory {
    // A part that this system does not tell is left out; the rest is still worth knowing.
    let system = System::new().ok().map(|mut system| {
        system.refresh_memory();
        system.refresh_cpu_all();
        system
    });
    let cpus = system.as_ref().map_or(&[][..], System::cpus);
    let mut inventory = Inventory {
        hostname: System::host_name().unwrap_or_default(),
        os_name: System::name().unwrap_or_default(),
        os_version: System::os_version().unwrap_or_default(),
        kernel: System::kernel_version().unwrap_or_default(),
        architecture: System::cpu_arch(),
        cpu_model: cpus.first().map(|cpu| cpu.brand().trim().to_owned()).unwrap_or_default(),
        cpu_cores: i32::try_from(cpus.len()).unwrap_or(i32::MAX),
        memory_bytes: bytes(system.as_ref().map_or(0, System::total_memory)),
        disks: disks(previous),
        interfaces: interfaces(),
        boot_time: System::boot_time().ok().and_then(|time| DateTime::from_timestamp(i64::try_from(time).ok()?, 0)),
        attributes: attributes.clone(),
    };
    shorten(&mut inventory);
    inventory
}

/// Returns the checksum that tells whether the server has this inventory. The boot counts by its id: the boot time is
/// reckoned from the clock and moves when that is set.
pub fn sha256(inventory: &Inventory, boot_id: &str) -> Sha256Digest {
    let stable = Inventory { boot_time: None, ..inventory.clone() };
    let json = serde_json::to_vec(&(stable, boot_id)).expect("an inventory is plain data");
    Sha256Digest(Sha256::digest(json).into())
}

fn disks(previous: Option<&Inventory>) -> Vec<Disk> {
    let mut by_device = BTreeMap::new();
    let Ok(disks) = Disks::new_with_refreshed_list() else { return Vec::new() };
    for disk in disks.iter() {
        let found = Disk {
            mount_point: disk.mount_point().to_string_lossy().into_owned(),
            file_system: disk.file_system().to_string_lossy().into_owned(),
            size_bytes: bytes(disk.total_space()),
            available_bytes: bytes(disk.available_space()),
        };
        // A device that is mounted in several places is one disk; its shortest mount point names it.
        let device = (disk.name().to_owned(), disk.total_space());
        let known: &mut Disk = by_device.entry(device).or_insert_with(|| found.clone());
        if (found.mount_point.len(), &found.mount_point) < (known.mount_point.len(), &known.mount_point) {
            *known = found;
        }
    }
    let mut disks: Vec<_> = by_device.into_values().collect();
    for disk in &mut disks {
        let before = previous.and_then(|known| known.disks.iter().find(|old| old.mount_point == disk.mount_point));
        disk.available_bytes = rounded_space(disk, before);
    }
    disks.sort_by(|a, b| a.mount_point.cmp(&b.mount_point));
    disks
}

/// Rounds free space down to steps, and keeps to the step told before until the space is a whole step away from it, so
/// that a value at the border of two steps does not flicker.
fn rounded_space(disk: &Disk, before: Option<&Disk>) -> i64 {
    let step = (disk.size_bytes / bytes(SPACE_STEPS)).max(1);
    match before {
        Some(before)
            if before.size_bytes == disk.size_bytes
                && (disk.available_bytes - before.available_bytes).abs() < step + step / 2 =>
        {
            before.available_bytes
        }
        Some(_) | None => disk.available_bytes / step * step,
    }
}

fn interfaces() -> Vec<NetworkInterface> {
    let Ok(networks) = Networks::new_with_refreshed_list() else { return Vec::new() };
    let mut interfaces: Vec<_> = networks
        .iter()
        // The ends of container cables come and go under random names.
        .map(|(name, network)| (name.to_string_lossy().into_owned(), network))
        .filter(|(name, _)| name != "lo" && !name.starts_with("veth"))
        .map(|(name, network)| {
            let mut addresses: Vec<_> = network.ip_networks().iter().map(ToString::to_string).collect();
            addresses.sort();
            addresses.truncate(MAX_ENTRIES);
            NetworkInterface { name, mac: network.mac_address().to_string(), addresses }
        })
        .collect();
    interfaces.sort_by(|a, b| a.name.cmp(&b.name));
    interfaces
}

/// Keeps to what the server takes.
fn shorten(inventory: &mut Inventory) {
    inventory.disks.truncate(MAX_ENTRIES);
    inventory.interfaces.truncate(MAX_ENTRIES);
    let disks = inventory.disks.iter_mut().flat_map(|disk| [&mut disk.mount_point, &mut disk.file_system]);
    let texts = [
        &mut inventory.hostname,
        &mut inventory.os_name,
        &mut inventory.os_version,
        &mut inventory.kernel,
        &mut inventory.architecture,
        &mut inventory.cpu_model,
    ];
    for text in texts.into_iter().chain(disks) {
        text.truncate(text.floor_char_boundary(MAX_TEXT_BYTES));
    }
}

fn bytes(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use ota_domain::violation::Violations;

    use super::*;

    fn disk(available_bytes: i64) -> Disk {
        Disk { size_bytes: 2000, available_bytes, ..Disk::default() }
    }

    #[test]
    fn small_changes_of_free_space_are_no_news() {
        let told = disk(rounded_space(&disk(1499), None));
        assert_eq!(told.available_bytes, 1400);
        for available in [1490, 1500, 1501, 1499, 1400, 1300] {
            assert_eq!(rounded_space(&disk(available), Some(&told)), 1400, "{available}");
        }
        assert_eq!(rounded_space(&disk(1200), Some(&told)), 1200);
        assert_eq!(rounded_space(&disk(1999), Some(&told)), 1900);
    }

    #[test]
    fn looking_twice_gives_the_same_checksum() {
        let first = collect(&BTreeMap::new(), None);
        let second = collect(&BTreeMap::new(), Some(&first));
        assert_eq!(sha256(&first, "boot"), sha256(&second, "boot"));
        assert_ne!(sha256(&first, "boot"), sha256(&first, "next boot"));
    }

    #[test]
    fn this_machine_has_an_inventory_that_the_server_takes() {
        let inventory = collect(&BTreeMap::from([("site".to_owned(), "lab".to_owned())]), None);
        assert!(inventory.memory_bytes > 0 && inventory.cpu_cores > 0 && !inventory.kernel.is_empty());
        assert!(inventory.boot_time.is_some());
        let mut violations = Violations::default();
        inventory.check(&mut violations);
        assert_eq!(violations, Violations::default());
    }
}
