//! `UpdateService.ReportInventory`.

use ota_e2e::{TestDevice, TestServer, assert_violates};
use ota_proto::device::v1::{CheckInRequest, Disk, Inventory, ReportInventoryRequest};
use tonic::Status;

fn inventory(hostname: &str) -> Inventory {
    Inventory {
        hostname: hostname.to_owned(),
        memory_bytes: 4 << 30,
        disks: vec![Disk::default()],
        ..Default::default()
    }
}

async fn report(device: &TestDevice, checksum: u8, inventory: Option<Inventory>) -> Result<bool, Status> {
    let request = ReportInventoryRequest { sha256: vec![checksum; 32].into(), inventory };
    Ok(device.updates().report_inventory(request).await?.into_inner().inventory_wanted)
}

/// Whether a check-in with this checksum asks for the inventory.
async fn wanted(device: &TestDevice, checksum: u8) -> bool {
    let request = CheckInRequest { inventory_sha256: vec![checksum; 32].into(), ..Default::default() };
    device.updates().check_in(request).await.expect("a device checks in").into_inner().inventory_wanted
}

#[tokio::test]
async fn the_body_is_wanted_once() {
    let server = TestServer::start().await;
    let device = server.admin().enroll().await;

    assert!(wanted(&device, 1).await);
    assert!(report(&device, 1, None).await.unwrap());
    assert!(!report(&device, 1, Some(inventory("one"))).await.unwrap());
    assert!(!report(&device, 1, None).await.unwrap());
    assert!(!wanted(&device, 1).await);
    assert!(wanted(&device, 2).await);
    assert!(report(&device, 2, None).await.unwrap());
    assert!(!report(&device, 2, Some(inventory("two"))).await.unwrap());

    let seen = server.admin().device(&device.name()).await.inventory.unwrap();
    assert_eq!(seen.hostname, "two");
}

#[tokio::test]
async fn an_inventory_is_held_to_its_limits() {
    let server = TestServer::start().await;
    let device = server.admin().enroll().await;

    let too_much = Inventory { hostname: "x".repeat(300), disks: vec![Disk::default(); 65], ..Default::default() };
    let refused = report(&device, 1, Some(too_much)).await.unwrap_err();
    assert_violates(&refused, "inventory.hostname");
    assert_violates(&refused, "inventory.disks");
    let request = ReportInventoryRequest { sha256: vec![1; 31].into(), inventory: Some(inventory("x")) };
    assert_violates(&device.updates().report_inventory(request).await.unwrap_err(), "sha256");

    assert!(server.admin().device(&device.name()).await.inventory.is_none());
    assert!(wanted(&device, 1).await);
}
