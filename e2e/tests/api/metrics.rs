//! The page that Prometheus reads.

use std::time::Duration;

use ota_e2e::{
    Options, TestServer,
    database::DedicatedCluster,
    device::sha256,
    eventually,
    operator::{PIECE_BYTES, unique_payload},
};
use ota_proto::admin::v1::{GetPackageRequest, GetStatusRequest};

/// The value of the one line that begins so.
fn value(page: &str, line: &str) -> Option<f64> {
    page.lines().find_map(|found| found.strip_prefix(line)?.trim().parse().ok())
}

#[tokio::test]
async fn calls_are_counted_by_how_they_ended() {
    let server = TestServer::start().await;
    let admin = server.admin();
    for _ in 0..3 {
        admin.status().get_status(GetStatusRequest {}).await.unwrap();
    }
    admin.packages().get_package(GetPackageRequest { name: "packages/none".to_owned() }).await.unwrap_err();
    let page = server.metrics().await;
    let status = r#"grpc_type="unary",grpc_service="ota.admin.v1.StatusService",grpc_method="GetStatus""#;
    assert_eq!(value(&page, &format!("grpc_server_started_total{{{status}}}")), Some(3.0), "{page}");
    assert_eq!(value(&page, &format!("grpc_server_handled_total{{{status},grpc_code=\"OK\"}}")), Some(3.0));
    assert_eq!(value(&page, &format!("grpc_server_handling_seconds_count{{{status}}}")), Some(3.0));
    for family in ["grpc_server_msg_received_total", "grpc_server_msg_sent_total"] {
        assert_eq!(value(&page, &format!("{family}{{{status}}}")), Some(3.0), "{family}");
    }
    let package = r#"grpc_service="ota.admin.v1.PackageService",grpc_method="GetPackage",grpc_code="NotFound""#;
    assert_eq!(value(&page, &format!("grpc_server_handled_total{{grpc_type=\"unary\",{package}}}")), Some(1.0));
    assert!(page.ends_with("# EOF\n"));
}

#[tokio::test]
async fn messages_of_streams_are_counted_one_by_one() {
    let server = TestServer::start().await;
    let admin = server.admin();
    let device = admin.enroll().await;
    // Five pieces up and five down.
    let bytes = unique_payload(5 * PIECE_BYTES);
    let release = admin.publish("app", "1.0.0", &bytes).await;
    admin.assign(&release, &[&device]).await;
    device.granted().await;
    assert_eq!(device.download(&sha256(&bytes).0, 0, 0).await.unwrap(), bytes);
    let page = server.metrics().await;
    let rpc = |kind: &str, service: &str, method: &str| {
        format!("{{grpc_type=\"{kind}\",grpc_service=\"{service}\",grpc_method=\"{method}\"}}")
    };
    let upload = rpc("client_stream", "ota.admin.v1.PackageService", "UploadPayload");
    let download = rpc("server_stream", "ota.device.v1.UpdateService", "Download");
    for (family, labels, expected) in [
        ("grpc_server_msg_received_total", &upload, 5.0),
        ("grpc_server_msg_sent_total", &upload, 1.0),
        ("grpc_server_msg_received_total", &download, 1.0),
        ("grpc_server_msg_sent_total", &download, 5.0),
    ] {
        assert_eq!(value(&page, &format!("{family}{labels}")), Some(expected), "{family}{labels}");
    }
}

#[tokio::test]
async fn the_fleet_its_updates_and_what_runs_out_are_told() {
    let server = TestServer::start().await;
    let admin = server.admin();
    let device = admin.enroll().await;
    let release = admin.publish("app", "1.0.0", &unique_payload(100)).await;
    admin.assign(&release, &[&device]).await;
    let deployment = device.granted().await;
    let stream = device.watch().await.unwrap();
    device.complete(&deployment).await;
    let page = server.metrics().await;
    for (line, expected) in [
        (r#"ota_devices{state="accepted"}"#, 1.0),
        (r#"ota_devices{state="pending"}"#, 0.0),
        (r#"ota_updates_total{result="succeeded",reason=""}"#, 1.0),
        ("ota_device_streams", 1.0),
        ("ota_root_keys_managed", 1.0),
        ("ota_db_up", 1.0),
    ] {
        assert_eq!(value(&page, line), Some(expected), "{line} in {page}");
    }
    for (repository, role) in [("image", "root"), ("image", "targets"), ("image", "timestamp"), ("director", "root")] {
        let line = format!("ota_metadata_expiry_timestamp_seconds{{repository=\"{repository}\",role=\"{role}\"}}");
        let at = value(&page, &line).unwrap_or_else(|| panic!("{line} in {page}"));
        assert!(at > chrono::Utc::now().timestamp() as f64, "{line}");
    }
    assert!(!page.contains(device.id()), "no label is a device");
    drop(stream);
    eventually("the stream is counted off", Duration::from_secs(30), async || {
        (value(&server.metrics().await, "ota_device_streams") == Some(0.0)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn without_the_database_there_is_a_page_that_says_so() {
    let mut cluster = DedicatedCluster::start().await;
    let server = TestServer::on(&cluster, Options::default()).await;
    cluster.stop().await;
    let page = server.metrics().await;
    assert_eq!(value(&page, "ota_db_up"), Some(0.0), "{page}");
    assert_eq!(value(&page, "ota_devices{state=\"accepted\"}"), None);
}
