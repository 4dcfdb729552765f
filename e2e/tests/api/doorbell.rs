//! `UpdateService.Watch`: the doorbell.

use std::time::{Duration, Instant};

use ota_e2e::{TestDevice, TestServer, assert_refused, eventually, operator::unique_payload};
use ota_proto::{
    admin::v1::{DecommissionDeviceRequest, Release},
    device::v1::{Deployment, DeploymentState, Failure, FailureCode, ReportProgressRequest, WatchResponse},
};
use tonic::{Code, Status, Streaming};

/// Longest time between an assignment and the device's start.
const PROMISE: Duration = Duration::from_secs(1);

/// How long a broken test takes to fail.
const PATIENCE: Duration = Duration::from_secs(20);

async fn next(stream: &mut Streaming<WatchResponse>) -> Result<Option<WatchResponse>, Status> {
    tokio::time::timeout(PATIENCE, stream.message()).await.expect("the stream says something or ends")
}

/// Checks in whenever the bell rings, until that brings work. The bell may ring without a reason.
async fn woken(device: &TestDevice, stream: &mut Streaming<WatchResponse>) -> Deployment {
    loop {
        let ring = next(stream).await.unwrap().expect("the stream goes on");
        assert_eq!(ring.delay.unwrap_or_default(), prost_types::Duration::default(), "one device is no crowd");
        if let Some(deployment) = device.check_in().await.unwrap().deployments.pop() {
            return deployment;
        }
    }
}

/// Reads the stream to its end, which has to say why.
async fn end(stream: &mut Streaming<WatchResponse>) -> Status {
    loop {
        match next(stream).await {
            Ok(ring) => assert!(ring.is_some(), "the stream ended without a word"),
            Err(status) => return status,
        }
    }
}

/// Assigns again and again, and returns the shortest time until the device was told: the others are the machine's.
async fn time_to_wake(server: &TestServer, device: &TestDevice) -> Duration {
    let admin = server.admin();
    let mut stream = device.watch().await.unwrap();
    let mut shortest = Duration::MAX;
    for round in 1..=4 {
        let version = format!("{round}.0.0");
        let release = admin.publish("app", &version, &unique_payload(1_000)).await;
        let begin = Instant::now();
        admin.assign(&release, &[device]).await;
        let deployment = woken(device, &mut stream).await;
        shortest = shortest.min(begin.elapsed());
        assert_eq!(deployment.version, version);
        let rejected = ReportProgressRequest {
            deployment: deployment.deployment.clone(),
            attempt: deployment.attempt,
            sequence: 1,
            state: DeploymentState::Rejected.into(),
            failure: Some(Failure { code: FailureCode::Refused.into(), ..Default::default() }),
            ..Default::default()
        };
        device.updates().report_progress(rejected).await.unwrap();
        eventually("the deployment is over", PATIENCE, async || {
            device.check_in().await.unwrap().deployments.is_empty().then_some(())
        })
        .await;
    }
    shortest
}

async fn device_and_release(server: &TestServer) -> (TestDevice, Release) {
    let admin = server.admin();
    let device = admin.enroll().await;
    let release = admin.publish("app", "1.0.0", &unique_payload(1_000)).await;
    (device, release)
}

#[tokio::test]
async fn a_watching_device_starts_within_a_second_of_its_assignment() {
    let server = TestServer::start().await;
    let device = server.admin().enroll().await;
    let time = time_to_wake(&server, &device).await;
    assert!(time < PROMISE, "{time:?}");
}

#[tokio::test]
async fn a_device_that_watches_another_replica_starts_within_a_second_too() {
    let server = TestServer::start().await;
    let replica = server.replica().await;
    let device = server.admin().enroll().await.at(&replica.url());
    let time = time_to_wake(&server, &device).await;
    assert!(time < PROMISE, "{time:?}");
}

#[tokio::test]
async fn a_device_with_work_waiting_is_rung_at_once() {
    let server = TestServer::start().await;
    let (device, release) = device_and_release(&server).await;
    server.admin().assign(&release, &[&device]).await;
    let mut stream = device.watch().await.unwrap();
    next(&mut stream).await.unwrap().expect("a ring");
}

#[tokio::test]
async fn a_newer_stream_replaces_the_older() {
    let server = TestServer::start().await;
    let (device, release) = device_and_release(&server).await;
    let mut older = device.watch().await.unwrap();
    let mut newer = device.watch().await.unwrap();
    assert_refused(&end(&mut older).await, Code::Aborted, "WATCH_REPLACED");
    server.admin().assign(&release, &[&device]).await;
    assert_eq!(woken(&device, &mut newer).await.version, "1.0.0");
}

#[tokio::test]
async fn a_watching_device_that_is_decommissioned_hears_of_it() {
    let server = TestServer::start().await;
    let (device, _) = device_and_release(&server).await;
    let mut stream = device.watch().await.unwrap();
    let request = DecommissionDeviceRequest { name: device.name() };
    server.admin().devices().decommission_device(request).await.unwrap();
    // The bell carries no state: it rings, or the stream ends, and the next call says why.
    let status = loop {
        next(&mut stream).await.ok();
        if let Err(status) = device.check_in().await {
            break status;
        }
    };
    assert_refused(&status, Code::PermissionDenied, "DEVICE_DECOMMISSIONED");
    let status = device.watch().await.unwrap_err();
    assert_refused(&status, Code::PermissionDenied, "DEVICE_DECOMMISSIONED");
}

#[tokio::test]
async fn a_stopping_server_ends_the_streams_and_says_so() {
    let server = TestServer::start().await;
    let (device, _) = device_and_release(&server).await;
    let mut stream = device.watch().await.unwrap();
    let stopped = tokio::spawn(server.stop());
    assert_refused(&end(&mut stream).await, Code::Unavailable, "SHUTTING_DOWN");
    tokio::time::timeout(PATIENCE, stopped).await.expect("the server stops").unwrap();
}
