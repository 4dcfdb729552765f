//! What a machine is made of.

use ota_domain::{
    Violation, Violations,
    inventory::{Disk, Inventory, NetworkInterface},
};

use crate::{convert, device::v1};

/// An inventory from the wire.
///
/// # Errors
/// Everything in it that is too long or too many, as `inventory.<field>`.
pub fn inventory(wire: v1::Inventory) -> Result<Inventory, Vec<Violation>> {
    let mut violations = Violations::default();
    let boot_time = convert::optional_time("inventory.boot_time", wire.boot_time.as_ref(), &mut violations);
    let (os, cpu) = (wire.os.unwrap_or_default(), wire.cpu.unwrap_or_default());
    let disks = wire.disks.into_iter().map(|disk| Disk {
        mount_point: disk.mount_point,
        file_system: disk.file_system,
        size_bytes: disk.size_bytes,
        available_bytes: disk.available_bytes,
    });
    let interfaces = wire.interfaces.into_iter().map(|interface| NetworkInterface {
        name: interface.name,
        mac: interface.mac,
        addresses: interface.addresses,
    });
    let inventory = Inventory {
        hostname: wire.hostname,
        os_name: os.name,
        os_version: os.version,
        kernel: os.kernel,
        architecture: wire.architecture,
        cpu_model: cpu.model,
        cpu_cores: cpu.cores,
        memory_bytes: wire.memory_bytes,
        disks: disks.collect(),
        interfaces: interfaces.collect(),
        boot_time,
        attributes: wire.attributes.into_iter().collect(),
    };
    inventory.check(&mut violations);
    violations.finish(Some(inventory))
}

/// An inventory for the wire.
#[must_use]
pub fn to_wire(inventory: Inventory) -> v1::Inventory {
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
        os: Some(v1::OperatingSystem {
            name: inventory.os_name,
            version: inventory.os_version,
            kernel: inventory.kernel,
        }),
        architecture: inventory.architecture,
        cpu: Some(v1::Cpu { model: inventory.cpu_model, cores: inventory.cpu_cores }),
        memory_bytes: inventory.memory_bytes,
        disks: disks.collect(),
        interfaces: interfaces.collect(),
        boot_time: inventory.boot_time.map(convert::timestamp),
        attributes: inventory.attributes.into_iter().collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine() -> Inventory {
        Inventory {
            hostname: "gateway-7".to_owned(),
            os_name: "Debian GNU/Linux".to_owned(),
            cpu_cores: 4,
            memory_bytes: 1 << 30,
            disks: vec![Disk { mount_point: "/".to_owned(), size_bytes: 1, ..Disk::default() }],
            interfaces: vec![NetworkInterface { addresses: vec!["192.0.2.7/24".to_owned()], ..Default::default() }],
            boot_time: Some(chrono::DateTime::UNIX_EPOCH),
            ..Inventory::default()
        }
    }

    #[test]
    fn what_is_sent_is_what_was_meant() {
        assert_eq!(inventory(to_wire(machine())), Ok(machine()));
    }

    #[test]
    fn every_excess_is_told() {
        let excessive = Inventory {
            hostname: "x".repeat(257),
            memory_bytes: -1,
            interfaces: vec![NetworkInterface { addresses: vec![String::new(); 65], ..Default::default() }],
            attributes: (0..9).map(|number| (number.to_string(), "\0".to_owned())).collect(),
            ..machine()
        };
        let told = inventory(to_wire(excessive)).unwrap_err();
        let fields: Vec<_> = told.iter().map(|violation| violation.field.as_str()).collect();
        assert_eq!(
            fields,
            ["inventory.hostname", "inventory.memory_bytes", "inventory.interfaces", "inventory.attributes"]
        );
    }
}
