//! A client that shares no code with the project, in another language, does a device's whole job.

use std::{path::Path, process::Stdio};

use ota_e2e::{TestServer, device::sha256, operator::unique_payload};
use ota_proto::admin::v1::{DeploymentState, DeviceList, EnrollToken, target::Choice};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    process::Command,
};

/// Names the Python that has grpcio; `make test` sets it.
const PYTHON: &str = "OTA_PYTHON";

#[tokio::test]
async fn python_enrols_downloads_verifies_and_reports() {
    let Some(python) = std::env::var_os(PYTHON) else {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "{PYTHON} is not set: no independent client");
        eprintln!("NOT TESTED: an independent client. Name a Python with grpcio and grpcio-tools in {PYTHON}.");
        return;
    };
    let server = TestServer::start().await;
    let admin = server.admin();
    let bytes = unique_payload(1_000_001);
    let release = admin.publish("app", "1.0.0", &bytes).await;
    let string = admin.enrollment_string(EnrollToken::default()).await;

    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut driver = Command::new(python)
        .arg(root.join("tests/python/drive.py"))
        .arg(root.join("../proto"))
        .arg(server.url().strip_prefix("http://").unwrap())
        .arg(string)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines();
    let device = lines.next_line().await.unwrap().expect("it says who it is, or on standard error what went wrong");
    let names = vec![format!("devices/{device}")];
    admin.create_rollout(&release, Choice::Devices(DeviceList { names: names.clone() })).await.unwrap();
    driver.stdin.take().unwrap().write_all(b"assigned\n").await.unwrap();

    let told = lines.next_line().await.unwrap().expect("it says what it saw, or on standard error what went wrong");
    assert!(driver.wait().await.unwrap().success());
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    assert_eq!(told["sha256"], sha256(&bytes).to_string());
    let seen = admin.device(&names[0]).await;
    assert_eq!((seen.hardware.as_str(), seen.running[0].version.as_str()), ("python", "1.0.0"));
    assert_eq!(admin.deployments(&names[0]).await[0].state(), DeploymentState::Succeeded);
}
