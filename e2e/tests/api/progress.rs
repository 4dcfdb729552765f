//! `UpdateService.ReportProgress` and what becomes of a deployment.

use ota_e2e::{
    Operator, TestDevice, TestServer, assert_refused, assert_violates, device::runs, operator::unique_payload,
    violated_fields,
};
use ota_proto::admin::v1::{
    CancelDeploymentRequest, DeploymentState as State, GetDeploymentRequest, RetryDeploymentRequest,
};
use ota_proto::device::v1::{
    Deployment, DeploymentState, Failure, FailureCode, ReportProgressRequest, RunningRelease, Verdict,
};
use tokio::task::JoinSet;
use tonic::{Code, Status};

/// A server with one device that was just told of its deployment.
struct Stage {
    server: TestServer,
    admin: Operator,
    device: TestDevice,
    work: Deployment,
}

impl Stage {
    async fn set() -> Self {
        let server = TestServer::start().await;
        let admin = server.admin();
        let device = admin.enroll().await;
        let release = admin.publish("app", "1.0.0", &unique_payload(1_000)).await;
        admin.assign(&release, &[&device]).await;
        let work = device.granted().await;
        Self { server, admin, device, work }
    }

    /// The deployment as operators see it.
    async fn seen(&self) -> ota_proto::admin::v1::Deployment {
        let name = format!("deployments/{}", self.work.deployment);
        let read = self.admin.rollouts().get_deployment(GetDeploymentRequest { name }).await;
        read.expect("anybody reads a deployment").into_inner().deployment.expect("an answer has the deployment")
    }

    /// The kinds of the events of the deployment, oldest first.
    async fn history(&self) -> Vec<String> {
        let subject = format!("deployments/{}", self.work.deployment);
        let events = self.admin.events_of(&self.device.name()).await;
        events.into_iter().rev().filter(|event| event.subject == subject).map(|event| event.kind).collect()
    }

    /// A report of this state, without any fault.
    fn report(&self, sequence: i64, state: DeploymentState) -> ReportProgressRequest {
        ReportProgressRequest {
            deployment: self.work.deployment.clone(),
            attempt: self.work.attempt,
            sequence,
            state: state.into(),
            ..Default::default()
        }
    }
}

async fn send(device: &TestDevice, report: ReportProgressRequest) -> Result<Verdict, Status> {
    Ok(device.updates().report_progress(report).await?.into_inner().verdict())
}

fn no_space() -> Option<Failure> {
    Some(Failure {
        code: FailureCode::NoSpace.into(),
        message: "disk full".into(),
        log_tail: "df\n".into(),
        ..Default::default()
    })
}

#[tokio::test]
async fn each_state_is_recorded_once() {
    let stage = Stage::set().await;
    for bytes_done in [100, 200, 300] {
        let report = ReportProgressRequest { bytes_done, ..stage.report(bytes_done, DeploymentState::Downloading) };
        assert_eq!(send(&stage.device, report).await.unwrap(), Verdict::Continue);
        assert_eq!((stage.seen().await.state(), stage.seen().await.bytes_done), (State::Downloading, bytes_done));
    }
    for (sequence, state) in [
        (301, DeploymentState::Installing),
        (302, DeploymentState::Rebooting),
        (303, DeploymentState::Verifying),
        (304, DeploymentState::Succeeded),
    ] {
        assert_eq!(stage.device.report(&stage.work, sequence, state).await.unwrap(), Verdict::Continue);
    }
    let history = ["granted", "downloading", "installing", "rebooting", "verifying", "succeeded"];
    assert_eq!(stage.history().await, history.map(|state| format!("deployment.{state}")));
    let seen = stage.seen().await;
    assert_eq!((seen.state(), seen.attempt, seen.bytes_total), (State::Succeeded, 1, 1_000));
    assert!(seen.end_time.is_some() && seen.failure.is_none());
    let running = stage.admin.device(&stage.device.name()).await.running;
    assert_eq!(running.len(), 1, "{running:?}");
}

#[tokio::test]
async fn a_repeated_or_late_report_changes_nothing() {
    let stage = Stage::set().await;
    stage.device.report(&stage.work, 7, DeploymentState::Installing).await.unwrap();
    let (seen, history) = (stage.seen().await, stage.history().await);

    for (sequence, state) in [(7, DeploymentState::Installing), (6, DeploymentState::Downloading)] {
        assert_eq!(stage.device.report(&stage.work, sequence, state).await.unwrap(), Verdict::Continue);
        assert_eq!(stage.seen().await, seen);
    }
    assert_eq!(stage.history().await, history);
}

#[tokio::test]
async fn an_end_is_final() {
    let stage = Stage::set().await;
    stage.device.report(&stage.work, 1, DeploymentState::Succeeded).await.unwrap();
    let (seen, history) = (stage.seen().await, stage.history().await);

    let repeated = stage.device.report(&stage.work, 1, DeploymentState::Succeeded).await.unwrap();
    assert_eq!(repeated, Verdict::Continue);
    let failed = ReportProgressRequest { failure: no_space(), ..stage.report(2, DeploymentState::Failed) };
    assert_eq!(send(&stage.device, failed).await.unwrap(), Verdict::Abort);
    let going_on = stage.report(3, DeploymentState::Downloading);
    assert_eq!(send(&stage.device, going_on).await.unwrap(), Verdict::Abort);

    assert_eq!(stage.seen().await, seen);
    assert_eq!(stage.history().await, history);
}

#[tokio::test]
async fn a_failure_is_kept_and_shown() {
    let stage = Stage::set().await;
    let failed = ReportProgressRequest { failure: no_space(), ..stage.report(1, DeploymentState::Failed) };
    assert_eq!(send(&stage.device, failed).await.unwrap(), Verdict::Continue);

    let seen = stage.seen().await;
    let failure = seen.failure.clone().unwrap();
    assert_eq!(seen.state(), State::Failed);
    assert_eq!(
        (failure.code.as_str(), failure.message.as_str(), failure.log_tail.as_str()),
        ("NO_SPACE", "disk full", "df\n")
    );
    let events = stage.admin.events_of(&stage.device.name()).await;
    assert_eq!(events[0].details["failure"], "NO_SPACE");
    assert!(stage.device.check_in().await.unwrap().deployments.is_empty());
}

#[tokio::test]
async fn nobody_reports_for_another_device() {
    let stage = Stage::set().await;
    let stranger = stage.admin.enroll().await;
    let (seen, history) = (stage.seen().await, stage.history().await);

    let report = ReportProgressRequest { failure: no_space(), ..stage.report(1, DeploymentState::Failed) };
    let refused = send(&stranger, report.clone()).await.unwrap_err();
    assert_refused(&refused, Code::NotFound, "DEPLOYMENT_NOT_FOUND");
    let unknown = ReportProgressRequest { deployment: uuid::Uuid::now_v7().to_string(), ..report };
    let refused = send(&stage.device, unknown).await.unwrap_err();
    assert_refused(&refused, Code::NotFound, "DEPLOYMENT_NOT_FOUND");

    assert_eq!(stage.seen().await, seen);
    assert_eq!(stage.history().await, history);
}

#[tokio::test]
async fn every_field_at_fault_is_named_at_once() {
    let stage = Stage::set().await;
    let (seen, history) = (stage.seen().await, stage.history().await);
    let report = ReportProgressRequest {
        deployment: "../x".into(),
        bytes_done: -1,
        failure: Some(Failure { message: "x".repeat(1_025), log_tail: "\0".into(), ..Default::default() }),
        running: vec![RunningRelease { package: "..".into(), version: "one".into(), payload_sha256: "x".into() }],
        ..Default::default()
    };
    let refused = send(&stage.device, report).await.unwrap_err();
    assert_refused(&refused, Code::InvalidArgument, "FIELDS_INVALID");
    let fields = [
        "deployment",
        "attempt",
        "sequence",
        "state",
        "bytes_done",
        "failure.message",
        "failure.log_tail",
        "running[0].package",
        "running[0].version",
        "running[0].payload_sha256",
    ];
    assert_eq!(violated_fields(&refused), fields);

    let beyond = ReportProgressRequest { bytes_done: 1_001, ..stage.report(1, DeploymentState::Downloading) };
    assert_violates(&send(&stage.device, beyond).await.unwrap_err(), "bytes_done");
    let silent = stage.report(1, DeploymentState::Failed);
    assert_violates(&send(&stage.device, silent).await.unwrap_err(), "failure");
    let many = (0..65).map(|number| RunningRelease { package: format!("p{number}"), ..runs(&stage.work) }).collect();
    let many = ReportProgressRequest { running: many, ..stage.report(1, DeploymentState::Succeeded) };
    assert_violates(&send(&stage.device, many).await.unwrap_err(), "running");

    assert_eq!(stage.seen().await, seen);
    assert_eq!(stage.history().await, history);
}

#[tokio::test]
async fn success_is_what_runs() {
    let stage = Stage::set().await;
    let other = RunningRelease { payload_sha256: vec![7; 32].into(), ..runs(&stage.work) };
    for running in [vec![], vec![other]] {
        let report = ReportProgressRequest { running, ..stage.report(1, DeploymentState::Succeeded) };
        assert_violates(&send(&stage.device, report).await.unwrap_err(), "running");
    }
    assert_eq!(stage.seen().await.state(), State::Granted);
    assert!(stage.admin.device(&stage.device.name()).await.running.is_empty());
}

#[tokio::test]
async fn a_late_success_of_a_superseded_deployment_changes_nothing_and_the_next_check_in_tells_what_runs() {
    let stage = Stage::set().await;
    stage.device.report(&stage.work, 1, DeploymentState::Verifying).await.unwrap();
    let newer = stage.admin.publish("app", "1.1.0", &unique_payload(1_000)).await;
    stage.admin.assign(&newer, &[&stage.device]).await;

    let verdict = stage.device.report(&stage.work, 2, DeploymentState::Succeeded).await.unwrap();

    assert_eq!(verdict, Verdict::Abort);
    assert_eq!(stage.seen().await.state(), State::Superseded);
    assert!(stage.admin.device(&stage.device.name()).await.running.is_empty());
    stage.device.check_in_running(&[runs(&stage.work)]).await.unwrap();
    let running = stage.admin.device(&stage.device.name()).await.running;
    assert_eq!(running.len(), 1);
    assert_eq!(running[0].version, "1.0.0");
}

#[tokio::test]
async fn a_canceled_deployment_stops_its_device() {
    let stage = Stage::set().await;
    stage.device.report(&stage.work, 1, DeploymentState::Downloading).await.unwrap();
    let name = format!("deployments/{}", stage.work.deployment);
    stage.admin.rollouts().cancel_deployment(CancelDeploymentRequest { name }).await.unwrap();

    let verdict = stage.device.report(&stage.work, 2, DeploymentState::Installing).await.unwrap();

    assert_eq!(verdict, Verdict::Abort);
    assert_eq!(stage.seen().await.state(), State::Canceled);
}

#[tokio::test]
async fn a_retried_deployment_hears_only_its_new_attempt() {
    let stage = Stage::set().await;
    let failed = ReportProgressRequest { failure: no_space(), ..stage.report(9, DeploymentState::Failed) };
    send(&stage.device, failed.clone()).await.unwrap();
    let name = format!("deployments/{}", stage.work.deployment);
    let queued = stage.admin.rollouts().retry_deployment(RetryDeploymentRequest { name }).await.unwrap();
    let queued = queued.into_inner().deployment.unwrap();
    assert_eq!((queued.state(), queued.failure), (State::Queued, None));

    assert_eq!(send(&stage.device, failed.clone()).await.unwrap(), Verdict::Abort);
    let again = stage.device.granted().await;
    assert_eq!((&again.deployment, again.attempt), (&stage.work.deployment, 2));
    assert_eq!(send(&stage.device, failed).await.unwrap(), Verdict::Abort);
    // The sequence begins anew.
    let verdict = stage.device.report(&again, 1, DeploymentState::Downloading).await.unwrap();
    assert_eq!(verdict, Verdict::Continue);
    assert_eq!((stage.seen().await.state(), stage.seen().await.attempt), (State::Downloading, 2));
}

#[tokio::test]
async fn the_same_report_over_many_connections_counts_once() {
    let stage = Stage::set().await;
    let replica = stage.server.replica().await;
    let mut calls = JoinSet::new();
    for number in 0..64 {
        let device = if number % 2 == 0 { stage.device.clone() } else { stage.device.at(&replica.url()) };
        let work = stage.work.clone();
        calls.spawn(async move { device.report(&work, 1, DeploymentState::Succeeded).await });
    }
    while let Some(verdict) = calls.join_next().await {
        assert_eq!(verdict.unwrap().unwrap(), Verdict::Continue);
    }
    assert_eq!(stage.history().await, ["deployment.granted", "deployment.succeeded"]);
}

#[tokio::test]
async fn of_two_ends_the_first_holds() {
    let stage = Stage::set().await;
    let mut calls = JoinSet::new();
    for number in 0..64 {
        let device = stage.device.clone();
        let report = if number % 2 == 0 {
            ReportProgressRequest { running: vec![runs(&stage.work)], ..stage.report(1, DeploymentState::Succeeded) }
        } else {
            ReportProgressRequest { failure: no_space(), ..stage.report(1, DeploymentState::Failed) }
        };
        calls.spawn(async move { (number % 2 == 0, send(&device, report).await.unwrap()) });
    }
    let verdicts = calls.join_all().await;
    let state = stage.seen().await.state();
    assert!(matches!(state, State::Succeeded | State::Failed), "{state:?}");
    for (told_success, verdict) in verdicts {
        assert_eq!(verdict == Verdict::Continue, told_success == (state == State::Succeeded));
    }
    assert_eq!(stage.history().await.len(), 2);
}
