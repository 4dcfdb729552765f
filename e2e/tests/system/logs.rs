//! The log, as a machine reads it: a line for each call that matters, and one id on all that belongs to a call.

use std::fs;

use ota_e2e::{
    Binaries, TestDevice, binaries::run, database::DedicatedCluster, eventually, process::ServerProcess, refusal,
};
use ota_proto::admin::v1::{EnrollToken, GetStatusRequest};
use serde_json::Value;
use tokio::process::Command;
use tonic::{Code, Request};

use crate::fleet::PATIENCE;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// All lines so far; each has to be JSON.
fn lines(server: &ServerProcess) -> Vec<Value> {
    let log = fs::read_to_string(server.log()).expect("a log");
    // What the first start says to a person is not of the log.
    let lines = log.lines().filter(|line| line.starts_with('{'));
    lines.map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"))).collect()
}

/// Waits for the line of a call.
async fn call(server: &ServerProcess, request_id: &str) -> Value {
    eventually(&format!("the call {request_id} is logged"), PATIENCE, async || {
        let lines = lines(server).into_iter();
        lines.filter(|line| line["target"] == "ota_server::calls").find(|line| line["request_id"] == request_id)
    })
    .await
}

#[tokio::test]
async fn operators_calls_are_logged_and_devices_that_go_well_are_not() {
    let server = ServerProcess::start_with(&["--log-format", "json"]).await;
    let admin = server.admin();
    let device = admin.enroll().await;
    device.check_in().await.expect("it is accepted");
    let mut request = Request::new(GetStatusRequest {});
    request.metadata_mut().insert("traceparent", format!("00-{TRACE}-00f067aa0ba902b7-01").parse().expect("text"));
    let answer = admin.status().get_status(request).await.expect("it is allowed");
    let id = answer.metadata().get("x-request-id").expect("an id is made").to_str().expect("text").to_owned();
    let line = call(&server, &id).await;
    assert_eq!(line["level"], "INFO");
    assert_eq!(line["method"], "ota.admin.v1.StatusService/GetStatus");
    assert_eq!((&line["code"], &line["trace_id"]), (&"Ok".into(), &TRACE.into()));
    assert_eq!(line["source"], "127.0.0.1");
    assert!(line["operator"].as_str().is_some_and(|who| who.starts_with("apiTokens/")), "{line}");
    assert!(line["duration_ms"].as_f64().is_some_and(|took| took > 0.0), "{line}");
    assert!(line.get("device_id").is_none(), "{line}");
    let devices = lines(&server).into_iter();
    let devices = devices.filter(|line| line["method"].as_str().is_some_and(|method| method.contains(".device.")));
    assert_eq!(devices.collect::<Vec<_>>(), [] as [Value; 0]);
}

#[tokio::test]
async fn a_devices_calls_are_logged_when_somebody_wants_them() {
    let server = ServerProcess::start_with(&["--log-format", "json", "--log", "info,ota_server::calls=debug"]).await;
    let device = server.admin().enroll().await;
    device.check_in().await.expect("it is accepted");
    let line = eventually("the check-in is logged", PATIENCE, async || {
        lines(&server).into_iter().find(|line| line["method"] == "ota.device.v1.UpdateService/CheckIn")
    })
    .await;
    assert_eq!(
        (&line["level"], &line["code"], &line["device_id"]),
        (&"DEBUG".into(), &"Ok".into(), &device.id().into())
    );
}

#[tokio::test]
async fn what_fails_on_the_servers_account_is_logged_and_all_its_lines_have_one_id() {
    let mut cluster = DedicatedCluster::start().await;
    let url = cluster.url().to_owned();
    let server = ServerProcess::start_with(&["--log-format", "json", "--database-url", &url]).await;
    let string = server.admin().enrollment_string(EnrollToken { max_uses: 1, ..Default::default() }).await;
    cluster.stop().await;
    let status = TestDevice::enroll(&server.url(), &string, "test").await.expect_err("there is no database");
    assert_eq!((status.code(), refusal::reason(&status).as_deref()), (Code::Unavailable, Some("DATABASE_UNAVAILABLE")));
    let id = status.metadata().get("x-request-id").expect("an id").to_str().expect("text").to_owned();
    let line = call(&server, &id).await;
    assert_eq!((&line["level"], &line["code"]), (&"INFO".into(), &"Unavailable".into()));
    assert_eq!(line["method"], "ota.device.v1.EnrollmentService/Enroll");
    let cause = lines(&server).into_iter().find(|line| line["level"] == "WARN" && line["request_id"] == id.as_str());
    assert!(cause.is_some_and(|line| line["error"].is_string()), "{:#?}", lines(&server));
}

#[tokio::test]
async fn the_id_that_otactl_shows_is_in_the_log() {
    let server = ServerProcess::start_with(&["--log-format", "json"]).await;
    let mut command = Command::new(&Binaries::get().otactl);
    command.args(["package", "list", "--server", &server.url(), "--ca-file"]).arg(server.authority_file());
    let nobodys = "ota_00000000000000000000000000000001_zAbCdEfGhJkMnPqRsTuVwXyZ123456789aBcDeFgHjK";
    let output = run(command.env("OTACTL_TOKEN", nobodys).env("OTACTL_CONFIG", server.scratch().join("none"))).await;
    assert_eq!(output.status.code(), Some(4));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let id = said.lines().find_map(|line| line.strip_prefix("request id: ")).unwrap_or_else(|| panic!("no id: {said}"));
    assert_eq!(call(&server, id).await["code"], "Unauthenticated");
}
