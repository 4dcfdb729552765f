//! Reports that are not true: for another device, of the past, or by somebody who was sent away.

mod real;

use bytes::Bytes;
use ota_e2e::{
    Operator, Options, TestDevice, TestServer, assert_refused, assert_violates,
    device::{runs, session},
    operator::unique_payload,
    raw::RawClient,
};
use ota_proto::{
    admin::v1::{
        DecommissionDeviceRequest, Deployment as Seen, DeploymentState as State, GetDeploymentRequest,
        RetryDeploymentRequest,
    },
    device::v1::{Deployment, DeploymentState, Failure, FailureCode, ReportProgressRequest, RunningRelease, Verdict},
};
use prost::Message as _;
use tonic::{Code, Status};

/// A server over TLS with one device.
struct Stage {
    server: TestServer,
    admin: Operator,
    device: TestDevice,
}

impl Stage {
    async fn set() -> Self {
        let server = TestServer::with(Options::encrypted()).await;
        let admin = server.admin();
        let device = admin.enroll().await;
        Self { server, admin, device }
    }

    /// Assigns a new release of `app` to the device, which is told of it.
    async fn work(&self, version: &str) -> Deployment {
        let release = self.admin.publish("app", version, &unique_payload(1_000)).await;
        self.admin.assign(&release, &[&self.device]).await;
        self.device.granted().await
    }

    /// Does that too, and the work.
    async fn done(&self, version: &str) -> Deployment {
        let work = self.work(version).await;
        self.device.complete(&work).await;
        work
    }

    async fn seen(&self, work: &Deployment) -> Seen {
        seen(&self.admin, work).await
    }

    /// The version that operators see the device run.
    async fn running(&self) -> Vec<String> {
        let device = self.admin.device(&self.device.name()).await;
        device.running.into_iter().map(|running| running.version).collect()
    }

    /// All that operators can see of the device and a deployment of its.
    async fn everything(&self, work: &Deployment) -> (Seen, Vec<String>, usize) {
        let events = self.admin.events_of(&self.device.name()).await.len();
        (self.seen(work).await, self.running().await, events)
    }
}

async fn seen(admin: &Operator, work: &Deployment) -> Seen {
    let name = format!("deployments/{}", work.deployment);
    let read = admin.rollouts().get_deployment(GetDeploymentRequest { name }).await;
    read.expect("anybody reads a deployment").into_inner().deployment.expect("an answer has the deployment")
}

async fn send(device: &TestDevice, report: ReportProgressRequest) -> Result<Verdict, Status> {
    Ok(device.updates().report_progress(report).await?.into_inner().verdict())
}

fn success(work: &Deployment, sequence: i64) -> ReportProgressRequest {
    ReportProgressRequest {
        deployment: work.deployment.clone(),
        attempt: work.attempt,
        sequence,
        state: DeploymentState::Succeeded.into(),
        running: vec![runs(work)],
        ..Default::default()
    }
}

/// Says that the device went back to a release.
fn rolled_back(work: &Deployment, sequence: i64, to: &Deployment) -> ReportProgressRequest {
    let failure = Failure { code: FailureCode::Health.into(), message: "unhealthy".to_owned(), ..Default::default() };
    ReportProgressRequest {
        state: DeploymentState::RolledBack.into(),
        failure: Some(failure),
        running: vec![runs(to)],
        ..success(work, sequence)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_device_reports_for_another_by_certificate_or_by_session() {
    let stage = Stage::set().await;
    let work = stage.work("1.0.0").await;
    let before = stage.everything(&work).await;
    let stranger = stage.admin.enroll().await;
    let failed = ReportProgressRequest { running: Vec::new(), ..rolled_back(&work, 9, &work) };
    for device in [stranger.clone(), stranger.certified(&stage.server.url())] {
        for report in [success(&work, 1), success(&work, i64::MAX), failed.clone()] {
            let refused = send(&device, report).await.expect_err("a stranger's report is refused");
            assert_refused(&refused, Code::NotFound, "DEPLOYMENT_NOT_FOUND");
        }
    }
    let refused = send(&stage.device.anonymous(), success(&work, 1)).await.expect_err("nobody's report is refused");
    assert_refused(&refused, Code::Unauthenticated, "CREDENTIAL_MISSING");
    assert_eq!(stage.everything(&work).await, before);
    // What the stranger sent counts nothing against the device's own count.
    assert_eq!(
        send(&stage.device.certified(&stage.server.url()), success(&work, 1)).await.ok(),
        Some(Verdict::Continue)
    );
    assert_eq!(stage.seen(&work).await.state(), State::Succeeded);
}

#[tokio::test(flavor = "multi_thread")]
async fn success_at_what_was_never_assigned_or_not_yet_told_is_none() {
    let stage = Stage::set().await;
    let mine = stage.done("1.0.0").await;
    // A release that is there, signed, and assigned to nobody; and one that the device was not told of yet.
    stage.admin.publish("app", "2.0.0", &unique_payload(1_000)).await;
    let release = stage.admin.publish("other", "1.0.0", &unique_payload(1_000)).await;
    stage.admin.assign(&release, &[&stage.device]).await;
    let queued = stage.admin.deployments(&stage.device.name()).await.swap_remove(0);
    assert_eq!(queued.state(), State::Queued);
    let id = queued.name.strip_prefix("deployments/").expect("a deployment's name").to_owned();

    let unknown = ReportProgressRequest { deployment: uuid::Uuid::now_v7().to_string(), ..success(&mine, 1) };
    let refused = send(&stage.device, unknown).await.expect_err("no such deployment");
    assert_refused(&refused, Code::NotFound, "DEPLOYMENT_NOT_FOUND");

    // It guesses the id, and knows what it would run.
    let payload = release.payload.strip_prefix("payloads/").and_then(|hex| hex::decode(hex).ok()).expect("a hash");
    let running =
        RunningRelease { package: "other".to_owned(), version: "1.0.0".to_owned(), payload_sha256: payload.into() };
    for attempt in [1, 2, u32::MAX] {
        let early = ReportProgressRequest {
            deployment: id.clone(),
            attempt,
            running: vec![running.clone(), runs(&mine)],
            ..success(&mine, 1)
        };
        let verdict = send(&stage.device, early).await;
        assert!(matches!(verdict, Ok(Verdict::Abort) | Err(_)), "attempt {attempt}: {verdict:?}");
    }
    let queued = stage.admin.deployments(&stage.device.name()).await.swap_remove(0);
    assert_eq!((queued.state(), stage.running().await), (State::Queued, vec!["1.0.0".to_owned()]));
}

#[tokio::test(flavor = "multi_thread")]
async fn success_with_other_bytes_than_the_assigned_ones_is_none() {
    let stage = Stage::set().await;
    let first = stage.done("1.0.0").await;
    let work = stage.work("2.0.0").await;
    let other = RunningRelease { payload_sha256: runs(&first).payload_sha256, ..runs(&work) };
    let before = stage.everything(&work).await;
    for running in [vec![], vec![runs(&first)], vec![other]] {
        let refused = send(&stage.device, ReportProgressRequest { running, ..success(&work, 1) }).await;
        assert_violates(&refused.expect_err("nothing of that is the release"), "running");
    }
    assert_eq!(stage.everything(&work).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_report_of_the_past_turns_a_state_back() {
    let stage = Stage::set().await;
    let first = stage.done("1.0.0").await;

    // Superseded while the device had switched already: its success comes too late, and is kept by whoever wants to
    // play it again.
    let second = stage.work("2.0.0").await;
    stage.device.report(&second, 3, DeploymentState::Verifying).await.expect("a report");
    let third = stage.work("3.0.0").await;
    assert_eq!(stage.seen(&second).await.state(), State::Superseded);
    assert_eq!(send(&stage.device, success(&second, 4)).await.ok(), Some(Verdict::Abort));

    // Rolled back, tried again, and then it works.
    assert_eq!(send(&stage.device, rolled_back(&third, 7, &second)).await.ok(), Some(Verdict::Continue));
    let name = format!("deployments/{}", third.deployment);
    stage.admin.rollouts().retry_deployment(RetryDeploymentRequest { name }).await.expect("an operator tries again");
    let again = stage.device.granted().await;
    assert_eq!((&again.deployment, again.attempt), (&third.deployment, 2));
    stage.device.complete(&again).await;
    let before = stage.everything(&again).await;
    assert_eq!((before.0.state(), &before.1[..]), (State::Succeeded, &["3.0.0".to_owned()][..]));

    let past = [
        ("the first success", success(&first, 4)),
        ("the first success with a higher number", success(&first, 1_000)),
        ("the late success", success(&second, 4)),
        ("the late success with a higher number", success(&second, 1_000)),
        ("the rollback of the first attempt", rolled_back(&third, 7, &second)),
        ("it with a higher number", rolled_back(&third, i64::MAX, &second)),
        ("it as one of the second attempt", rolled_back(&again, i64::MAX, &second)),
        (
            "progress of the second attempt",
            ReportProgressRequest {
                state: DeploymentState::Downloading.into(),
                running: Vec::new(),
                ..success(&again, 1)
            },
        ),
    ];
    let certified = stage.device.certified(&stage.server.url());
    for (what, report) in past {
        for device in [&stage.device, &certified] {
            send(device, report.clone()).await.expect("the past is no error");
            assert_eq!(stage.everything(&again).await, before, "{what}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn reports_in_any_order_end_as_the_last_one_says() {
    let stage = Stage::set().await;
    let work = stage.work("1.0.0").await;
    let states = [DeploymentState::Verifying, DeploymentState::Downloading, DeploymentState::Installing];
    for (state, sequence) in states.into_iter().zip([3, 1, 2]) {
        stage.device.report(&work, sequence, state).await.expect("a report");
        assert_eq!(stage.seen(&work).await.state(), State::Verifying);
    }
    stage.device.report(&work, 4, DeploymentState::Succeeded).await.expect("a report");
    stage.device.report(&work, 2, DeploymentState::Succeeded).await.expect("a report");
    assert_eq!((stage.seen(&work).await.state(), stage.running().await), (State::Succeeded, vec!["1.0.0".to_owned()]));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_sent_away_reports_nothing_more() {
    let stage = Stage::set().await;
    let replica = stage.server.replica().await;
    let work = stage.work("1.0.0").await;
    // Both credentials are young, and the connections are open.
    let known = [
        stage.device.clone(),
        stage.device.at(&replica.url()),
        stage.device.certified(&stage.server.url()),
        stage.device.certified(&replica.url()),
    ];
    for device in &known {
        device.report(&work, 1, DeploymentState::Downloading).await.expect("a report");
    }
    let request = DecommissionDeviceRequest { name: stage.device.name() };
    stage.admin.devices().decommission_device(request).await.expect("an operator sends the device away");
    let before = seen(&stage.admin, &work).await;
    for (number, device) in known.iter().enumerate() {
        // A replica hears of it soon; until then the report changes nothing either, because the deployment has ended.
        let refused = ota_e2e::eventually("the device is refused", std::time::Duration::from_secs(20), async || {
            send(device, success(&work, 2)).await.err()
        });
        assert_refused(&refused.await, Code::PermissionDenied, "DEVICE_DECOMMISSIONED");
        assert_eq!(seen(&stage.admin, &work).await, before, "credential {number}");
    }
    // Whoever holds the key may still prove that; it is the device that is not welcome.
    let bearer = session(&stage.server.channel(), stage.device.id(), stage.device.key()).await.expect("a session");
    let client = RawClient::new(&stage.server.url(), bearer);
    let report = Bytes::from(success(&work, 2).encode_to_vec());
    let refused = client.call("/ota.device.v1.UpdateService/ReportProgress", report).await.expect_err("a new session");
    assert_refused(&refused, Code::PermissionDenied, "DEVICE_DECOMMISSIONED");
    assert!(stage.running().await.is_empty());
}
