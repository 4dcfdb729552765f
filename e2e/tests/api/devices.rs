//! `DeviceService`, and what `StatusService` counts.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use ota_e2e::{
    Operator, Options, TestDevice, TestServer, assert_refused, assert_violates, device::runs, eventually,
    operator::unique_payload, violated_fields,
};
use ota_proto::{
    admin::v1::{
        ApproveDeviceRequest, DecommissionDeviceRequest, DeleteDeviceRequest, DeploymentState, Device, DeviceCounts,
        DeviceState, EnrollToken, ExplainDeviceRequest, GetDeviceRequest, GetStatusRequest, ListDevicesRequest,
        PackageExplanation, RejectDeviceRequest, UpdateDeviceRequest,
    },
    device::v1::{self, Inventory, ReportInventoryRequest},
};
use prost_types::FieldMask;
use tonic::{Code, Status};

const UNKNOWN: &str = "devices/01890a5d-ac96-774b-bcce-b302099a8057";

/// Enrols a machine of this hardware with these labels.
async fn enroll(server: &TestServer, hardware: &str, labels: &[(&str, &str)]) -> TestDevice {
    let token = EnrollToken { labels: map(labels), ..Default::default() };
    let string = server.admin().enrollment_string(token).await;
    TestDevice::enroll(&server.url(), &string, hardware).await.expect("a machine enrols")
}

async fn enroll_pending(server: &TestServer) -> TestDevice {
    let token = EnrollToken { approval_required: true, ..Default::default() };
    let string = server.admin().enrollment_string(token).await;
    TestDevice::enroll(&server.url(), &string, "test").await.expect("a machine enrols")
}

fn map(labels: &[(&str, &str)]) -> HashMap<String, String> {
    labels.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect()
}

async fn list(operator: &Operator, selector: &str, filter: &str) -> Result<BTreeSet<String>, Status> {
    let request = ListDevicesRequest { selector: selector.to_owned(), filter: filter.to_owned(), ..Default::default() };
    let page = operator.devices().list_devices(request).await?.into_inner();
    Ok(page.devices.into_iter().map(|device| device.name).collect())
}

async fn label(
    operator: &Operator,
    device: &str,
    etag: &str,
    labels: &[(&str, &str)],
    mask: &[&str],
) -> Result<Device, Status> {
    let device = Device { name: device.to_owned(), etag: etag.to_owned(), labels: map(labels), ..Default::default() };
    let update_mask = Some(FieldMask { paths: mask.iter().map(|&path| path.to_owned()).collect() });
    let request = UpdateDeviceRequest { device: Some(device), update_mask };
    Ok(operator.devices().update_device(request).await?.into_inner().device.expect("an answer has the device"))
}

async fn approve(operator: &Operator, name: &str) -> Result<Device, Status> {
    let request = ApproveDeviceRequest { name: name.to_owned(), ..Default::default() };
    Ok(operator.devices().approve_device(request).await?.into_inner().device.expect("an answer has the device"))
}

async fn reject(operator: &Operator, name: &str) -> Result<Device, Status> {
    let request = RejectDeviceRequest { name: name.to_owned() };
    Ok(operator.devices().reject_device(request).await?.into_inner().device.expect("an answer has the device"))
}

async fn decommission(operator: &Operator, name: &str) -> Result<Device, Status> {
    let request = DecommissionDeviceRequest { name: name.to_owned() };
    Ok(operator.devices().decommission_device(request).await?.into_inner().device.expect("an answer has the device"))
}

async fn delete(operator: &Operator, name: &str) -> Result<(), Status> {
    operator.devices().delete_device(DeleteDeviceRequest { name: name.to_owned() }).await.map(drop)
}

async fn explain(operator: &Operator, name: &str) -> Vec<PackageExplanation> {
    let request = ExplainDeviceRequest { name: name.to_owned() };
    operator.devices().explain_device(request).await.expect("anybody asks why").into_inner().packages
}

async fn kinds(operator: &Operator, device: &str) -> Vec<String> {
    operator.events_of(device).await.into_iter().map(|event| event.kind).collect()
}

#[tokio::test]
async fn a_device_that_is_not_there_is_not_found_by_any_call() {
    let server = TestServer::start().await;
    let admin = server.admin();
    let get = admin.devices().get_device(GetDeviceRequest { name: UNKNOWN.to_owned() }).await.map(drop);
    let explain = admin.devices().explain_device(ExplainDeviceRequest { name: UNKNOWN.to_owned() }).await.map(drop);
    for refusal in [
        get,
        explain,
        approve(&admin, UNKNOWN).await.map(drop),
        reject(&admin, UNKNOWN).await.map(drop),
        decommission(&admin, UNKNOWN).await.map(drop),
        delete(&admin, UNKNOWN).await,
        label(&admin, UNKNOWN, "", &[], &["labels"]).await.map(drop),
    ] {
        assert_refused(&refusal.unwrap_err(), Code::NotFound, "DEVICE_NOT_FOUND");
    }
    for name in ["", "devices/", "devices/x", "devices/../x", "packages/x"] {
        assert_violates(&approve(&admin, name).await.unwrap_err(), "name");
    }
}

#[tokio::test]
async fn devices_are_chosen_by_labels_and_by_fields() {
    let server = TestServer::start().await;
    let canary = enroll(&server, "rpi4", &[("ring", "canary"), ("site", "lab")]).await.name();
    let beta = enroll(&server, "rpi5", &[("ring", "beta")]).await.name();
    let pending = enroll_pending(&server).await.name();
    let viewer = server.operator(ota_domain::role::Role::Viewer).await;
    let all = [&canary, &beta, &pending];
    for (selector, filter, chosen) in [
        ("", "", &all[..]),
        ("ring=canary", "", &[&canary]),
        ("ring in (canary,beta)", "", &[&canary, &beta]),
        ("ring!=canary", "", &[&beta, &pending]),
        ("ring,!site", "", &[&beta]),
        ("", "state=pending", &[&pending]),
        ("", "state!=pending,hardware in (rpi4,test)", &[&canary]),
        ("", "online=true", &[]),
        ("", "online=false,hardware=rpi5", &[&beta]),
        ("", "hardware_id=", &all),
        ("ring=canary", "state=pending", &[]),
    ] {
        let chosen: BTreeSet<String> = chosen.iter().map(|name| (*name).clone()).collect();
        assert_eq!(list(&viewer, selector, filter).await.unwrap(), chosen, "{selector:?} {filter:?}");
    }
}

#[tokio::test]
async fn a_malformed_selector_is_refused_with_its_position() {
    let server = TestServer::start().await;
    let admin = server.admin();
    for (selector, position) in [("a b", 3), ("ring=canary,", 13), ("ring in canary", 9), ("  ", 1), ("a=é", 3)] {
        let told = assert_violates(&list(&admin, selector, "").await.unwrap_err(), "selector");
        assert!(told.contains(&format!("at character {position}")), "{selector:?}: {told}");
    }
    for (filter, says) in
        [("colour=red", "colour"), ("state=new", "new"), ("online", "online"), ("state=a b", "at character 9")]
    {
        let told = assert_violates(&list(&admin, "", filter).await.unwrap_err(), "filter");
        assert!(told.contains(says), "{filter:?}: {told}");
    }
    let both = list(&admin, "=", "=").await.unwrap_err();
    assert_eq!(violated_fields(&both), ["selector", "filter"]);
}

#[tokio::test]
async fn pages_hold_every_device_once_newest_first() {
    let server = TestServer::start().await;
    let mut expected = Vec::new();
    for _ in 0..5 {
        expected.insert(0, server.admin().enroll().await.name());
    }
    let (mut names, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = ListDevicesRequest { page_size: 2, page_token, ..Default::default() };
        let page = server.admin().devices().list_devices(request).await.unwrap().into_inner();
        names.extend(page.devices.into_iter().map(|device| device.name));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(names, expected);
}

#[tokio::test]
async fn labels_are_replaced_or_edited_and_the_change_is_recorded_once() {
    let server = TestServer::start().await;
    let admin = server.admin();
    let device = enroll(&server, "test", &[("ring", "beta"), ("site", "lab")]).await.name();
    let before = admin.device(&device).await;

    let edited = label(&admin, &device, "", &[("ring", "canary")], &["labels.ring", "labels.site"]).await.unwrap();
    assert_eq!(edited.labels, map(&[("ring", "canary")]));
    assert_ne!(edited.etag, before.etag);

    let replaced = label(&admin, &device, &edited.etag, &[("example.com/x", "")], &["labels"]).await.unwrap();
    assert_eq!(replaced.labels, map(&[("example.com/x", "")]));
    let same = label(&admin, &device, "", &[("example.com/x", "")], &["labels"]).await.unwrap();
    assert_eq!(same.etag, replaced.etag);
    assert_eq!(kinds(&admin, &device).await, ["device.labeled", "device.labeled", "device.enrolled"]);
}

#[tokio::test]
async fn a_bad_change_of_labels_is_refused_and_nothing_changes() {
    let server = TestServer::start().await;
    let admin = server.admin();
    let device = enroll(&server, "test", &[("ring", "beta")]).await.name();
    let before = admin.device(&device).await;

    let stale = label(&admin, &device, "999", &[], &["labels"]).await.unwrap_err();
    assert_refused(&stale, Code::Aborted, "ETAG_MISMATCH");
    for mask in [&[][..], &["state"][..], &["labels.ring", "hardware"][..]] {
        let refusal = label(&admin, &device, "", &[], mask).await.unwrap_err();
        assert_refused(&refusal, Code::InvalidArgument, "FIELDS_INVALID");
    }
    let many: Vec<String> = (0..64).map(|number| format!("k{number}")).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|key| (key.as_str(), "")).collect();
    let mask: Vec<String> = many.iter().map(|(key, _)| format!("labels.{key}")).collect();
    let mask: Vec<&str> = mask.iter().map(String::as_str).collect();
    assert_violates(&label(&admin, &device, "", &many, &mask).await.unwrap_err(), "device.labels");
    for (key, value) in [("a b", ""), ("-a", ""), ("a/b/c", ""), ("ok", "-x"), ("ok", &"x".repeat(64))] {
        let refusal = label(&admin, &device, "", &[(key, value)], &["labels"]).await.unwrap_err();
        assert_violates(&refusal, &format!("device.labels[{key:?}]"));
    }
    assert_eq!(admin.device(&device).await, before);
    assert_eq!(kinds(&admin, &device).await, ["device.enrolled"]);
}

#[tokio::test]
async fn admission_follows_its_rules() {
    let server = TestServer::start().await;
    let admin = server.admin();
    let device = enroll_pending(&server).await.name();
    assert_refused(&delete(&admin, &device).await.unwrap_err(), Code::FailedPrecondition, "DEVICE_STATE");
    assert_eq!(reject(&admin, &device).await.unwrap().state(), DeviceState::Rejected);
    assert_eq!(approve(&admin, &device).await.unwrap().state(), DeviceState::Accepted);
    assert_eq!(approve(&admin, &device).await.unwrap().state(), DeviceState::Accepted);
    assert_refused(&reject(&admin, &device).await.unwrap_err(), Code::FailedPrecondition, "DEVICE_STATE");
    assert_refused(&delete(&admin, &device).await.unwrap_err(), Code::FailedPrecondition, "DEVICE_STATE");
    assert_eq!(decommission(&admin, &device).await.unwrap().state(), DeviceState::Decommissioned);
    assert_refused(&approve(&admin, &device).await.unwrap_err(), Code::FailedPrecondition, "DEVICE_STATE");
    assert_refused(&reject(&admin, &device).await.unwrap_err(), Code::FailedPrecondition, "DEVICE_STATE");
    assert_eq!(
        kinds(&admin, &device).await,
        ["device.decommissioned", "device.approved", "device.rejected", "device.enrolled"]
    );
}

#[tokio::test]
async fn a_decommissioned_device_loses_its_credential_and_its_deployments() {
    let server = TestServer::start().await;
    let admin = server.admin();
    let device = admin.enroll().await;
    let release = admin.publish("fw", "1.0.0", &unique_payload(100)).await;
    let rollout = admin.assign(&release, &[&device]).await;
    device.granted().await;

    decommission(&admin, &device.name()).await.unwrap();
    let refusal = device.check_in().await.unwrap_err();
    assert_refused(&refusal, Code::PermissionDenied, "DEVICE_DECOMMISSIONED");
    let deployments = admin.deployments(&device.name()).await;
    assert_eq!(deployments[0].state(), DeploymentState::Canceled);
    assert_eq!(kinds(&admin, &device.name()).await[..2], ["deployment.canceled", "device.decommissioned"]);
    eventually("the rollout completes", Duration::from_secs(20), async || admin.rollout(&rollout.name).await.end_time)
        .await;
}

#[tokio::test]
async fn a_deleted_device_is_gone_and_its_events_stay() {
    let server = TestServer::start().await;
    let admin = server.admin();
    let device = admin.enroll().await;
    let release = admin.publish("fw", "1.0.0", &unique_payload(100)).await;
    admin.assign(&release, &[&device]).await;
    decommission(&admin, &device.name()).await.unwrap();
    delete(&admin, &device.name()).await.unwrap();
    assert_refused(&delete(&admin, &device.name()).await.unwrap_err(), Code::NotFound, "DEVICE_NOT_FOUND");
    assert_refused(&device.check_in().await.unwrap_err(), Code::Unauthenticated, "CREDENTIAL_INVALID");
    assert!(admin.deployments(&device.name()).await.is_empty());
    let kinds = kinds(&admin, &device.name()).await;
    assert_eq!((kinds[0].as_str(), kinds.last().map(String::as_str)), ("device.deleted", Some("device.enrolled")));
}

#[tokio::test]
async fn what_a_device_says_of_itself_is_shown() {
    let server = TestServer::start().await;
    let admin = server.admin();
    let device = admin.enroll().await;
    let release = admin.publish("fw", "1.0.0", &unique_payload(100)).await;
    admin.assign(&release, &[&device]).await;
    device.complete(&device.granted().await).await;
    let inventory = Inventory { hostname: "gateway-7".to_owned(), memory_bytes: 1 << 30, ..Default::default() };
    let report = ReportInventoryRequest { sha256: vec![7; 32].into(), inventory: Some(inventory) };
    device.updates().report_inventory(report).await.unwrap();

    // Signs of life are written behind.
    let shown = eventually("the device is online", Duration::from_secs(20), async || {
        Some(admin.device(&device.name()).await).filter(|device| device.online)
    })
    .await;
    assert_eq!(shown.agent_version, "1.0.0");
    assert_eq!((shown.running[0].package.as_str(), shown.running[0].version.as_str()), ("fw", "1.0.0"));
    assert_eq!(shown.running[0].payload, release.payload);
    assert_eq!(shown.inventory.map(|inventory| inventory.hostname).as_deref(), Some("gateway-7"));
    assert!(shown.inventory_time.is_some() && shown.last_seen_time.is_some());
    assert_eq!(list(&admin, "", "online=true").await.unwrap().len(), 1);

    let request = ListDevicesRequest::default();
    let listed = admin.devices().list_devices(request).await.unwrap().into_inner().devices.remove(0);
    assert_eq!((listed.inventory, listed.running), (None, shown.running));
}

#[tokio::test]
async fn an_excessive_inventory_is_refused_and_not_kept() {
    let server = TestServer::start().await;
    let device = server.admin().enroll().await;
    let disks = vec![v1::Disk { mount_point: "/".to_owned(), ..Default::default() }; 65];
    let inventory = Inventory { hostname: "x".repeat(257), disks, memory_bytes: -1, ..Default::default() };
    let report = ReportInventoryRequest { sha256: vec![7; 32].into(), inventory: Some(inventory) };
    let refusal = device.updates().report_inventory(report).await.unwrap_err();
    assert_refused(&refusal, Code::InvalidArgument, "FIELDS_INVALID");
    assert_eq!(violated_fields(&refusal), ["inventory.hostname", "inventory.memory_bytes", "inventory.disks"]);
    assert_eq!(server.admin().device(&device.name()).await.inventory, None);
}

#[tokio::test]
async fn an_explanation_follows_a_deployment_from_the_assignment_to_its_end() {
    let server = TestServer::with(Options { check_in_interval: Duration::from_secs(60), ..Options::default() }).await;
    let admin = server.admin();
    let device = admin.enroll().await;
    assert!(explain(&admin, &device.name()).await.is_empty());
    let release = admin.publish("fw", "1.0.0", &unique_payload(100)).await;
    admin.assign(&release, &[&device]).await;
    let story = explain(&admin, &device.name()).await.remove(0);
    assert_eq!((story.running_version.as_str(), story.desired_version.as_str()), ("", "1.0.0"));
    assert_eq!(story.waiting_on.len(), 2, "{:?}", story.waiting_on);
    assert!(story.waiting_on[0].contains("never seen") && story.waiting_on[1].contains("every 1m"));

    let deployment = device.granted().await;
    device.report(&deployment, 1, v1::DeploymentState::Downloading).await.unwrap();
    let story = explain(&admin, &device.name()).await.remove(0);
    assert!(story.waiting_on.last().unwrap().contains("downloads: 0 % of 100 bytes"), "{:?}", story.waiting_on);

    device.report(&deployment, 2, v1::DeploymentState::Succeeded).await.unwrap();
    device.check_in_running(&[runs(&deployment)]).await.unwrap();
    let story = explain(&admin, &device.name()).await.remove(0);
    assert_eq!((story.running_version.as_str(), story.desired_version.as_str()), ("1.0.0", ""));
    assert_eq!(story.waiting_on, ["Nothing: the device runs what was last assigned."]);
}

#[tokio::test]
async fn the_status_counts_what_there_is_and_says_what_waits_for_a_person() {
    let server = TestServer::start().await;
    let admin = server.admin();
    let (device, pending) = (admin.enroll().await, enroll_pending(&server).await);
    let rejected = enroll_pending(&server).await;
    reject(&admin, &rejected.name()).await.unwrap();
    let release = admin.publish("fw", "1.0.0", &unique_payload(100)).await;
    admin.assign(&release, &[&device]).await;
    let read = async || admin.status().get_status(GetStatusRequest {}).await.unwrap().into_inner();
    let status = read().await;
    let counts = DeviceCounts { pending: 1, accepted: 1, rejected: 1, ..Default::default() };
    assert_eq!(status.devices, Some(counts));
    assert_eq!((status.package_count, status.release_count, status.payload_bytes), (1, 1, 100));
    assert_eq!((status.active_rollout_count, status.deployments_in_progress), (1, 1));
    assert_eq!((status.database.as_str(), status.blob_store.as_str(), status.tls), ("external", "local", false));
    assert!(status.warnings.iter().any(|warning| warning.contains("not encrypted")));
    assert!(status.warnings.contains(&"1 device waits for approval.".to_owned()), "{:?}", status.warnings);

    approve(&admin, &pending.name()).await.unwrap();
    assert!(!read().await.warnings.iter().any(|warning| warning.contains("approval")));
}
