//! The page that Prometheus reads.

use std::{process::Stdio, time::Duration};

use ota_e2e::{
    Options, TestServer,
    database::DedicatedCluster,
    device::sha256,
    eventually,
    operator::{PIECE_BYTES, unique_payload},
};
use ota_proto::admin::v1::{GetPackageRequest, GetStatusRequest};
use tokio::{io::AsyncWriteExt as _, process::Command};

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
        (r#"ota_rollouts{state="canceled"}"#, 0.0),
        ("ota_deployments_open", 0.0),
        ("ota_db_pool_connections_max", 6.0),
        ("ota_db_up", 1.0),
    ] {
        assert_eq!(value(&page, line), Some(expected), "{line} in {page}");
    }
    for (repository, role) in [("image", "root"), ("image", "targets"), ("image", "timestamp"), ("director", "root")] {
        let line = format!("ota_metadata_expiry_timestamp_seconds{{repository=\"{repository}\",role=\"{role}\"}}");
        let at = value(&page, &line).unwrap_or_else(|| panic!("{line} in {page}"));
        assert!(at > chrono::Utc::now().timestamp() as f64, "{line}");
    }
    let rollouts = ["active", "completed"].map(|state| value(&page, &format!("ota_rollouts{{state=\"{state}\"}}")));
    assert_eq!(rollouts.map(Option::unwrap).iter().sum::<f64>(), 1.0, "{page}");
    assert_eq!(value(&page, "ota_tls_certificate_expiry_timestamp_seconds"), None, "there is no certificate");
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

#[tokio::test]
async fn phases_are_measured_from_the_report_before_and_bytes_as_they_go() {
    let server = TestServer::start().await;
    let (admin, bytes) = (server.admin(), unique_payload(300_000));
    let device = admin.enroll().await;
    let release = admin.publish("app", "1.0.0", &bytes).await;
    admin.assign(&release, &[&device]).await;
    let deployment = device.granted().await;
    device.download(&sha256(&bytes).0, 100_000, 0).await.unwrap();
    sqlx::query("UPDATE deployment SET entered_at = entered_at - INTERVAL '100 s'")
        .execute(server.pool())
        .await
        .unwrap();
    // Downloads all of it once more.
    device.complete(&deployment).await;
    let page = server.metrics().await;
    assert_eq!(value(&page, "ota_artifact_bytes_sent_total"), Some(500_000.0), "{page}");
    for family in ["ota_update_phase_duration_seconds", "grpc_server_handling_seconds"] {
        let (bucket, inf) = (format!("{family}_bucket{{"), "le=\"+Inf\"");
        assert!(page.lines().any(|line| line.starts_with(&bucket) && line.contains(inf)), "{family} has no last class");
    }
    let phase = |part: &str, phase: &str, more: &str| {
        value(&page, &format!("ota_update_phase_duration_seconds_{part}{{{more}phase=\"{phase}\"}}"))
    };
    assert_eq!(phase("count", "granted", ""), Some(1.0), "{page}");
    assert!(phase("sum", "granted", "").is_some_and(|sum| (100.0..160.0).contains(&sum)), "{page}");
    assert_eq!(
        (phase("bucket", "granted", "le=\"60.0\","), phase("bucket", "granted", "le=\"300.0\",")),
        (Some(0.0), Some(1.0))
    );
    assert_eq!(phase("count", "succeeded", ""), None, "an end is no phase");
}

#[tokio::test]
async fn the_certificate_that_is_shown_runs_out_at_a_known_time() {
    let server = TestServer::with(Options::encrypted()).await;
    let at = value(&server.metrics().await, "ota_tls_certificate_expiry_timestamp_seconds").unwrap();
    let days = (at - chrono::Utc::now().timestamp() as f64) / 86_400.0;
    assert!((29.0..=30.0).contains(&days), "{days} days");
}

/// The page in the older text form, which is all that promtool reads: there, families have the names of their samples.
fn as_prometheus_text(page: &str) -> String {
    let types = page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let renamed: Vec<_> = types
        .filter_map(|(family, kind)| match kind {
            "counter" => Some((family, format!("{family}_total"), "counter")),
            "info" => Some((family, format!("{family}_info"), "gauge")),
            _ => None,
        })
        .collect();
    let line = |line: &str| {
        let mut words = line.splitn(4, ' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some("#"), Some("UNIT" | "EOF"), ..) => String::new(),
            (Some("#"), Some(what), Some(family), Some(rest)) => {
                let found = renamed.iter().find(|(known, ..)| *known == family);
                let (name, kind) = found.map_or((family, rest), |(_, name, kind)| (name, kind));
                format!("# {what} {name} {}\n", if what == "TYPE" { kind } else { rest })
            }
            _ => format!("{line}\n"),
        }
    };
    page.lines().map(line).collect()
}

#[tokio::test]
async fn promtool_has_nothing_to_say_of_the_page() {
    let server = TestServer::with(Options::encrypted()).await;
    server.admin().status().get_status(GetStatusRequest {}).await.unwrap();
    let mut promtool = match Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
    {
        Ok(promtool) => promtool,
        Err(error) => {
            assert!(std::env::var_os("CI").is_none(), "promtool: {error}");
            eprintln!("NOT TESTED: whether promtool takes the metrics: {error}");
            return;
        }
    };
    let page = as_prometheus_text(&server.metrics().await);
    promtool.stdin.take().unwrap().write_all(page.as_bytes()).await.unwrap();
    let output = promtool.wait_with_output().await.unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && said.is_empty(), "{said}");
}
