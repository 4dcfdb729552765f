//! `RolloutService`.

use std::{collections::HashMap, time::Duration};

use ota_domain::role::Role;
use ota_e2e::{
    Operator, TestDevice, TestServer, assert_refused, assert_violates, eventually, operator::unique_payload,
    violated_fields,
};
use ota_proto::admin::v1::{
    CancelDeploymentRequest, CancelRolloutRequest, CreateRolloutRequest, Deployment, DeploymentCounts, DeploymentState,
    DeviceList, EnrollToken, GetDeploymentRequest, GetRolloutRequest, Installer, ListDeploymentsRequest,
    ListRolloutsRequest, PreviewRolloutRequest, Release, RetryDeploymentRequest, Rollout, RolloutPolicy, RolloutState,
    Target, YankReleaseRequest, target::Choice,
};
use ota_proto::device::v1::DeploymentState as Progress;
use sqlx::PgPool;
use tokio::task::JoinSet;
use tonic::{Code, Status};
use uuid::Uuid;

/// How long a broken test takes to fail.
pub(super) const DEADLINE: Duration = Duration::from_secs(20);

const NOWHERE: &str = "00000000-0000-7000-8000-000000000000";

fn named(devices: &[&TestDevice]) -> Choice {
    Choice::Devices(DeviceList { names: devices.iter().map(|device| device.name()).collect() })
}

fn draft(release: &str, choice: Choice) -> Rollout {
    Rollout { release: release.to_owned(), target: Some(Target { choice: Some(choice) }), ..Default::default() }
}

async fn create(operator: &Operator, rollout_id: &str, rollout: Rollout) -> Result<Rollout, Status> {
    let request = CreateRolloutRequest { rollout_id: rollout_id.to_owned(), rollout: Some(rollout) };
    Ok(operator.rollouts().create_rollout(request).await?.into_inner().rollout.expect("an answer has the rollout"))
}

/// Enrols devices of this hardware and with this label, accepted at once unless `approval_required`.
async fn enroll(
    server: &TestServer,
    count: usize,
    hardware: &str,
    ring: &str,
    approval_required: bool,
) -> Vec<TestDevice> {
    let token = EnrollToken {
        max_uses: i32::try_from(count).expect("a small number"),
        labels: HashMap::from([("ring".to_owned(), ring.to_owned())]),
        approval_required,
        ..Default::default()
    };
    let string = server.admin().enrollment_string(token).await;
    let mut devices = Vec::new();
    for _ in 0..count {
        devices.push(TestDevice::enroll(&server.url(), &string, hardware).await.expect("a device enrols"));
    }
    devices
}

/// Publishes a release that fits this hardware alone.
async fn publish_for(operator: &Operator, hardware: &str) -> Release {
    let release = Release {
        installer: Installer::File.into(),
        payload: format!("payloads/{}", operator.upload(&unique_payload(100)).await),
        hardware: vec![hardware.to_owned()],
        ..Default::default()
    };
    operator.create_release("app", "1.0.0", release).await.expect("a publisher publishes a release")
}

/// What is stored of rollouts: a refusal must not change it.
async fn stored(pool: &PgPool) -> (i64, i64, i64) {
    let count = async |sql: &'static str| sqlx::query_scalar::<_, i64>(sql).fetch_one(pool).await.expect("a count");
    (
        count("SELECT count(*) FROM rollout").await,
        count("SELECT count(*) FROM deployment").await,
        count("SELECT count(*) FROM event WHERE kind LIKE 'rollout.%' OR kind LIKE 'deployment.%'").await,
    )
}

pub(super) async fn states_of(operator: &Operator, rollout: &Rollout) -> Vec<DeploymentState> {
    deployments_of(operator, rollout).await.iter().map(Deployment::state).collect()
}

async fn deployments_of(operator: &Operator, rollout: &Rollout) -> Vec<Deployment> {
    let request = ListDeploymentsRequest { rollout: rollout.name.clone(), ..Default::default() };
    operator.rollouts().list_deployments(request).await.expect("anybody lists deployments").into_inner().deployments
}

#[tokio::test]
async fn each_named_device_gets_one_deployment() {
    let server = TestServer::start().await;
    let admin = server.admin();
    let (one, two) = (admin.enroll().await, admin.enroll().await);
    let release = admin.publish("app", "1.0.0", &unique_payload(100)).await;

    let rollout = create(&admin, "", draft(&release.name, named(&[&one, &two, &one]))).await.unwrap();

    assert_eq!(rollout.state(), RolloutState::Active);
    assert_eq!(rollout.release, release.name);
    assert_eq!(rollout.counts, Some(DeploymentCounts { total: 2, queued: 2, ..Default::default() }));
    assert_eq!(rollout.waiting_on, ["2 devices have yet to check in"]);
    let mut names = vec![one.name(), two.name()];
    names.sort();
    assert_eq!(rollout.target.unwrap().choice, Some(Choice::Devices(DeviceList { names })));
    assert_eq!(admin.deployments(&one.name()).await.len(), 1);
    assert_eq!(one.granted().await.version, "1.0.0");
}

#[tokio::test]
async fn a_rollout_completes_when_its_last_deployment_ends() {
    let server = TestServer::start().await;
    let admin = server.admin();
    let device = admin.enroll().await;
    let release = admin.publish("app", "1.0.0", &unique_payload(100)).await;
    let rollout = admin.assign(&release, &[&device]).await;

    device.complete(&device.granted().await).await;

    let ended = eventually("the rollout is completed", DEADLINE, async || {
        let read = admin.rollout(&rollout.name).await;
        (read.state() == RolloutState::Completed).then_some(read)
    })
    .await;
    assert!(ended.end_time.is_some() && ended.waiting_on.is_empty());
    assert_eq!(ended.counts, Some(DeploymentCounts { total: 1, succeeded: 1, ..Default::default() }));
}

#[tokio::test]
async fn all_unknown_devices_are_named_at_once() {
    let server = TestServer::start().await;
    let admin = server.admin();
    let device = admin.enroll().await;
    let release = admin.publish("app", "1.0.0", &unique_payload(100)).await;
    let unknown: Vec<String> = (0..2).map(|_| Uuid::now_v7().to_string()).collect();
    let names = [device.name(), format!("devices/{}", unknown[0]), format!("devices/{}", unknown[1])];

    let choice = Choice::Devices(DeviceList { names: names.to_vec() });
    let refused = create(&admin, "", draft(&release.name, choice)).await.unwrap_err();

    assert_refused(&refused, Code::NotFound, "DEVICE_NOT_FOUND");
    assert!(unknown.iter().all(|id| refused.message().contains(id)), "{refused:?}");
    assert!(!refused.message().contains(device.id()));
    assert_eq!(stored(server.pool()).await, (0, 0, 0));
}

#[tokio::test]
async fn a_named_device_has_to_be_accepted() {
    let server = TestServer::start().await;
    let admin = server.admin();
    let pending = enroll(&server, 1, "test", "a", true).await.remove(0);
    let release = admin.publish("app", "1.0.0", &unique_payload(100)).await;

    let refused = create(&admin, "", draft(&release.name, named(&[&pending]))).await.unwrap_err();

    assert_refused(&refused, Code::FailedPrecondition, "DEVICE_STATE");
    assert!(refused.message().contains(pending.id()), "{refused:?}");
    assert_eq!(stored(server.pool()).await, (0, 0, 0));
}

#[tokio::test]
async fn a_release_goes_to_no_hardware_it_does_not_fit() {
    let server = TestServer::start().await;
    let admin = server.admin();
    let fit = enroll(&server, 1, "rpi4", "a", false).await.remove(0);
    let unfit = enroll(&server, 1, "rpi5", "a", false).await.remove(0);
    let release = publish_for(&admin, "rpi4").await;

    let refused = create(&admin, "", draft(&release.name, named(&[&fit, &unfit]))).await.unwrap_err();
    assert_refused(&refused, Code::FailedPrecondition, "HARDWARE_MISMATCH");
    assert!(refused.message().contains(unfit.id()) && !refused.message().contains(fit.id()), "{refused:?}");
    assert_eq!(stored(server.pool()).await, (0, 0, 0));

    let described = create(&admin, "", draft(&release.name, Choice::Selector("ring=a".into()))).await.unwrap();
    assert_eq!(described.counts.unwrap().total, 1);
    assert!(admin.deployments(&unfit.name()).await.is_empty());
}

#[tokio::test]
async fn a_selection_of_nobody_is_refused() {
    let server = TestServer::start().await;
    let admin = server.admin();
    enroll(&server, 1, "rpi5", "a", false).await;
    enroll(&server, 1, "rpi4", "waiting", true).await;
    let release = publish_for(&admin, "rpi4").await;

    for choice in [Choice::All(true), Choice::Selector("ring=a".into()), Choice::Selector("ring=nowhere".into())] {
        let refused = create(&admin, "", draft(&release.name, choice)).await.unwrap_err();
        assert_refused(&refused, Code::FailedPrecondition, "SELECTION_EMPTY");
    }
    assert_eq!(stored(server.pool()).await, (0, 0, 0));
}

#[tokio::test]
async fn an_empty_selector_is_refused_and_all_is_offered() {
    let server = TestServer::start().await;
    let admin = server.admin();
    admin.enroll().await;
    let release = admin.publish("app", "1.0.0", &unique_payload(100)).await;

    for selector in ["", "  "] {
        let refused = create(&admin, "", draft(&release.name, Choice::Selector(selector.into()))).await.unwrap_err();
        assert!(assert_violates(&refused, "rollout.target.selector").contains("`all`"), "{refused:?}");
    }
    let refused = create(&admin, "", draft(&release.name, Choice::All(false))).await.unwrap_err();
    assert_violates(&refused, "rollout.target.all");
    assert_eq!(stored(server.pool()).await, (0, 0, 0));
    assert_eq!(create(&admin, "", draft(&release.name, Choice::All(true))).await.unwrap().counts.unwrap().total, 1);
}

#[tokio::test]
async fn a_malformed_selector_is_refused_with_the_position() {
    let server = TestServer::start().await;
    let admin = server.admin();
    admin.enroll().await;
    let release = admin.publish("app", "1.0.0", &unique_payload(100)).await;

    for (selector, position) in [("ring=a,,site", 8), ("ring in a", 9), ("ring='; DROP TABLE device", 6)] {
        let refused = create(&admin, "", draft(&release.name, Choice::Selector(selector.into()))).await.unwrap_err();
        let told = assert_violates(&refused, "rollout.target.selector");
        assert!(told.starts_with(&format!("at character {position}:")), "{told}");
    }
    assert_eq!(stored(server.pool()).await, (0, 0, 0));
}

#[tokio::test]
async fn every_field_at_fault_is_named_at_once() {
    let server = TestServer::start().await;
    let admin = server.admin();

    let refused = create(&admin, "no uuid", Rollout { release: "app".into(), ..Default::default() }).await.unwrap_err();
    assert_refused(&refused, Code::InvalidArgument, "FIELDS_INVALID");
    assert_eq!(violated_fields(&refused), ["rollout_id", "rollout.release", "rollout.target"]);

    let bad = DeviceList { names: vec!["devices/../x".into(), "groups/g".into()] };
    let refused = create(&admin, "", draft("packages/../releases/1", Choice::Devices(bad))).await.unwrap_err();
    let fields = ["rollout.release", "rollout.target.devices.names[0]", "rollout.target.devices.names[1]"];
    assert_eq!(violated_fields(&refused), fields);

    let empty = Choice::Devices(DeviceList::default());
    let refused = create(&admin, "", draft("packages/app/releases/1.0.0", empty)).await.unwrap_err();
    assert_violates(&refused, "rollout.target.devices.names");
    assert_eq!(stored(server.pool()).await, (0, 0, 0));
}

#[tokio::test]
async fn an_unknown_release_is_refused() {
    let server = TestServer::start().await;
    let admin = server.admin();
    admin.enroll().await;
    admin.publish("app", "1.0.0", &unique_payload(100)).await;

    for release in ["packages/app/releases/9.9.9", "packages/other/releases/1.0.0"] {
        let refused = create(&admin, "", draft(release, Choice::All(true))).await.unwrap_err();
        assert_refused(&refused, Code::NotFound, "RELEASE_NOT_FOUND");
    }
    assert_eq!(stored(server.pool()).await, (0, 0, 0));
}

#[tokio::test]
async fn a_yanked_release_is_refused() {
    let server = TestServer::start().await;
    let admin = server.admin();
    admin.enroll().await;
    let release = admin.publish("app", "1.0.0", &unique_payload(100)).await;
    let yank = YankReleaseRequest { name: release.name.clone(), ..Default::default() };
    admin.packages().yank_release(yank).await.unwrap();

    let refused = create(&admin, "", draft(&release.name, Choice::All(true))).await.unwrap_err();

    assert_refused(&refused, Code::FailedPrecondition, "RELEASE_YANKED");
    assert_eq!(stored(server.pool()).await, (0, 0, 0));
    let request = PreviewRolloutRequest { rollout: Some(draft(&release.name, Choice::All(true))) };
    let refused = admin.rollouts().preview_rollout(request).await.unwrap_err();
    assert_refused(&refused, Code::FailedPrecondition, "RELEASE_YANKED");
}

#[tokio::test]
async fn no_part_of_a_policy_is_silently_ignored() {
    let server = TestServer::start().await;
    let admin = server.admin();
    admin.enroll().await;
    let release = admin.publish("app", "1.0.0", &unique_payload(100)).await;
    let policy = RolloutPolicy { max_in_flight: 1, continuous: true, ..Default::default() };
    let rollout = Rollout { policy: Some(policy), ..draft(&release.name, Choice::All(true)) };

    let refused = create(&admin, "", rollout).await.unwrap_err();
    assert_refused(&refused, Code::Unimplemented, "NOT_IMPLEMENTED");
    for field in ["rollout.policy.max_in_flight", "rollout.policy.continuous"] {
        assert!(refused.message().contains(field), "{refused:?}");
    }
    let refused = create(&admin, "", draft(&release.name, Choice::Group("groups/g".into()))).await.unwrap_err();
    assert_refused(&refused, Code::Unimplemented, "NOT_IMPLEMENTED");
    assert_eq!(stored(server.pool()).await, (0, 0, 0));
}

#[tokio::test]
async fn the_same_rollout_is_created_once() {
    let server = TestServer::start().await;
    let admin = server.admin();
    let (one, two) = (admin.enroll().await, admin.enroll().await);
    let release = admin.publish("app", "1.0.0", &unique_payload(100)).await;
    let other = admin.publish("other", "1.0.0", &unique_payload(100)).await;
    let id = Uuid::now_v7().to_string();

    let first = create(&admin, &id, draft(&release.name, named(&[&one, &two]))).await.unwrap();
    assert_eq!(first.name, format!("rollouts/{id}"));
    let before = stored(server.pool()).await;
    assert_eq!(create(&admin, &id, draft(&release.name, named(&[&two, &one]))).await.unwrap(), first);

    for changed in [
        draft(&release.name, named(&[&one])),
        draft(&release.name, Choice::All(true)),
        draft(&other.name, named(&[&one, &two])),
    ] {
        let refused = create(&admin, &id, changed).await.unwrap_err();
        assert_violates(&refused, "rollout_id");
    }
    assert_eq!(stored(server.pool()).await, before);
}

#[tokio::test]
async fn a_newer_rollout_takes_the_place_of_an_older_one() {
    let server = TestServer::start().await;
    let admin = server.admin();
    let (one, two) = (admin.enroll().await, admin.enroll().await);
    let old = admin.publish("app", "1.0.0", &unique_payload(100)).await;
    let new = admin.publish("app", "1.1.0", &unique_payload(100)).await;
    let beside = admin.publish("beside", "1.0.0", &unique_payload(100)).await;
    let older = admin.assign(&old, &[&one, &two]).await;
    admin.assign(&beside, &[&one]).await;

    let newer = admin.assign(&new, &[&one]).await;

    let states: HashMap<String, DeploymentState> =
        deployments_of(&admin, &older).await.into_iter().map(|it| (it.device.clone(), it.state())).collect();
    let expected = [(one.name(), DeploymentState::Superseded), (two.name(), DeploymentState::Queued)];
    assert_eq!(states, HashMap::from(expected));
    assert_eq!(states_of(&admin, &newer).await, [DeploymentState::Queued]);
    let mut versions: Vec<_> =
        one.check_in().await.unwrap().deployments.into_iter().map(|it| it.package + "@" + &it.version).collect();
    versions.sort();
    assert_eq!(versions, ["app@1.1.0", "beside@1.0.0"]);
    let events = admin.events_of(&one.name()).await;
    let superseded = events.iter().find(|event| event.kind == "deployment.superseded").unwrap();
    assert_eq!(superseded.details["by"], newer.name);
}

#[tokio::test]
async fn a_preview_changes_nothing() {
    let server = TestServer::start().await;
    let admin = server.admin();
    let fit = enroll(&server, 2, "rpi4", "a", false).await;
    enroll(&server, 1, "rpi5", "a", false).await;
    let release = publish_for(&admin, "rpi4").await;
    let rollout = admin.assign(&release, &[&fit[0]]).await;
    fit[0].complete(&fit[0].granted().await).await;
    eventually("the rollout is completed", DEADLINE, async || {
        (admin.rollout(&rollout.name).await.state() == RolloutState::Completed).then_some(())
    })
    .await;
    let before = stored(server.pool()).await;

    let request = PreviewRolloutRequest { rollout: Some(draft(&release.name, Choice::Selector("ring=a".into()))) };
    let preview = server.operator(Role::Viewer).await.rollouts().preview_rollout(request).await.unwrap().into_inner();

    assert_eq!((preview.device_count, preview.unfit_count, preview.current_count), (2, 1, 1));
    assert_eq!(preview.download_bytes, 200);
    assert_eq!(preview.samples.len(), 2);
    let request = PreviewRolloutRequest { rollout: Some(draft(&release.name, Choice::Selector("ring=z".into()))) };
    assert_eq!(admin.rollouts().preview_rollout(request).await.unwrap().into_inner().device_count, 0);
    let request = PreviewRolloutRequest { rollout: Some(draft(&release.name, Choice::Selector(String::new()))) };
    assert_violates(&admin.rollouts().preview_rollout(request).await.unwrap_err(), "rollout.target.selector");
    assert_eq!(stored(server.pool()).await, before);
}

#[tokio::test]
async fn a_cancellation_spares_devices_at_work_and_force_those_that_may_have_switched() {
    let server = TestServer::start().await;
    let admin = server.admin();
    let devices = enroll(&server, 4, "test", "a", false).await;
    let release = admin.publish("app", "1.0.0", &unique_payload(100)).await;
    let rollout = create(&admin, "", draft(&release.name, Choice::All(true))).await.unwrap();
    let work = [devices[1].granted().await, devices[2].granted().await, devices[3].granted().await];
    devices[2].report(&work[1], 1, Progress::Downloading).await.unwrap();
    devices[3].report(&work[2], 1, Progress::Installing).await.unwrap();
    let cancel = async |force| {
        let request = CancelRolloutRequest { name: rollout.name.clone(), force };
        admin.rollouts().cancel_rollout(request).await.unwrap().into_inner().rollout.unwrap()
    };

    let canceled = cancel(false).await;
    assert_eq!(canceled.state(), RolloutState::Canceled);
    assert_eq!(canceled.counts, Some(DeploymentCounts { total: 4, in_progress: 2, canceled: 2, ..Default::default() }));
    let before = stored(server.pool()).await;
    assert_eq!(cancel(false).await, canceled);
    assert_eq!(stored(server.pool()).await, before);

    let forced = cancel(true).await;
    assert_eq!(forced.counts, Some(DeploymentCounts { total: 4, in_progress: 1, canceled: 3, ..Default::default() }));
    assert!(devices[2].check_in().await.unwrap().deployments.is_empty());
    assert_eq!(devices[3].check_in().await.unwrap().deployments.len(), 1);
}

#[tokio::test]
async fn a_completed_rollout_is_not_canceled() {
    let server = TestServer::start().await;
    let admin = server.admin();
    let device = admin.enroll().await;
    let release = admin.publish("app", "1.0.0", &unique_payload(100)).await;
    let rollout = admin.assign(&release, &[&device]).await;
    device.complete(&device.granted().await).await;
    eventually("the rollout is completed", DEADLINE, async || {
        (admin.rollout(&rollout.name).await.state() == RolloutState::Completed).then_some(())
    })
    .await;

    let request = CancelRolloutRequest { name: rollout.name.clone(), force: true };
    let refused = admin.rollouts().cancel_rollout(request).await.unwrap_err();

    assert_refused(&refused, Code::FailedPrecondition, "ROLLOUT_STATE");
}

#[tokio::test]
async fn lists_come_in_pages_newest_first() {
    let server = TestServer::start().await;
    let admin = server.admin();
    let device = admin.enroll().await;
    let release = admin.publish("app", "1.0.0", &unique_payload(100)).await;
    let mut names = Vec::new();
    for _ in 0..5 {
        // Ids of the caller's choice need not be in the order of time.
        let id = Uuid::from_bytes(rand::random()).to_string();
        names.insert(0, create(&admin, &id, draft(&release.name, named(&[&device]))).await.unwrap().name);
    }

    let (mut rollouts, mut deployments, mut token) = (Vec::new(), Vec::new(), String::new());
    loop {
        let request = ListRolloutsRequest { page_size: 2, page_token: token };
        let page = admin.rollouts().list_rollouts(request).await.unwrap().into_inner();
        rollouts.extend(page.rollouts.into_iter().map(|rollout| rollout.name));
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(rollouts, names);
    loop {
        let request = ListDeploymentsRequest {
            page_size: 2,
            page_token: token,
            device: device.name(),
            filter: "package=app".into(),
            ..Default::default()
        };
        let page = admin.rollouts().list_deployments(request).await.unwrap().into_inner();
        deployments.extend(page.deployments.into_iter().map(|deployment| deployment.rollout));
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(deployments, names);
}

#[tokio::test]
async fn what_does_not_exist_is_not_found() {
    let server = TestServer::start().await;
    let mut calls = server.admin().rollouts();
    let (rollout, deployment) = (format!("rollouts/{NOWHERE}"), format!("deployments/{NOWHERE}"));

    let refused = calls.get_rollout(GetRolloutRequest { name: rollout.clone() }).await.unwrap_err();
    assert_refused(&refused, Code::NotFound, "ROLLOUT_NOT_FOUND");
    let refused = calls.cancel_rollout(CancelRolloutRequest { name: rollout, force: true }).await.unwrap_err();
    assert_refused(&refused, Code::NotFound, "ROLLOUT_NOT_FOUND");
    let refused = calls.get_deployment(GetDeploymentRequest { name: deployment.clone() }).await.unwrap_err();
    assert_refused(&refused, Code::NotFound, "DEPLOYMENT_NOT_FOUND");
    let refused = calls.cancel_deployment(CancelDeploymentRequest { name: deployment.clone() }).await.unwrap_err();
    assert_refused(&refused, Code::NotFound, "DEPLOYMENT_NOT_FOUND");
    let refused = calls.retry_deployment(RetryDeploymentRequest { name: deployment }).await.unwrap_err();
    assert_refused(&refused, Code::NotFound, "DEPLOYMENT_NOT_FOUND");
    assert_violates(&calls.get_rollout(GetRolloutRequest { name: "x".into() }).await.unwrap_err(), "name");
}

#[tokio::test]
async fn concurrent_rollouts_leave_each_device_one_open_deployment() {
    let server = TestServer::start().await;
    let replica = server.replica().await;
    let admin = server.admin();
    let devices = enroll(&server, 5, "test", "a", false).await;
    let app = admin.publish("app", "1.0.0", &unique_payload(100)).await;
    let os = admin.publish("os", "1.0.0", &unique_payload(100)).await;

    let mut calls = JoinSet::new();
    for number in 0..64 {
        let operator = if number % 2 == 0 { server.admin() } else { replica.admin() };
        let release = if number % 4 < 2 { app.clone() } else { os.clone() };
        let choice = if number % 3 == 0 { Choice::Selector("ring=a".into()) } else { Choice::All(true) };
        calls.spawn(async move { create(&operator, "", draft(&release.name, choice)).await });
    }
    while let Some(created) = calls.join_next().await {
        created.unwrap().unwrap();
    }

    for device in &devices {
        let mut open: Vec<_> = device.check_in().await.unwrap().deployments.into_iter().map(|it| it.package).collect();
        open.sort();
        assert_eq!(open, ["app", "os"]);
    }
    let superseded = "SELECT count(*) FROM event WHERE kind = 'deployment.superseded'";
    let superseded: i64 = sqlx::query_scalar(superseded).fetch_one(server.pool()).await.unwrap();
    assert_eq!(superseded, 64 * 5 - 10);
}

#[tokio::test]
async fn the_same_rollout_from_many_callers_is_created_once() {
    let server = TestServer::start().await;
    let admin = server.admin();
    let device = admin.enroll().await;
    let release = admin.publish("app", "1.0.0", &unique_payload(100)).await;
    let id = Uuid::now_v7().to_string();

    let mut calls = JoinSet::new();
    for _ in 0..64 {
        let (admin, id, draft) = (admin.clone(), id.clone(), draft(&release.name, named(&[&device])));
        calls.spawn(async move { create(&admin, &id, draft).await });
    }
    while let Some(created) = calls.join_next().await {
        assert_eq!(created.unwrap().unwrap().name, format!("rollouts/{id}"));
    }
    assert_eq!(stored(server.pool()).await, (1, 1, 1));
}

#[tokio::test]
async fn rollouts_cancellations_retries_and_reports_never_wait_for_each_other_in_a_circle() {
    let server = TestServer::start().await;
    let replica = server.replica().await;
    let admin = server.admin();
    let devices = enroll(&server, 4, "test", "a", false).await;
    let release = admin.publish("app", "1.0.0", &unique_payload(100)).await;
    create(&admin, "", draft(&release.name, Choice::All(true))).await.unwrap();

    let mut calls = JoinSet::new();
    for number in 0..64 {
        let operator = if number % 2 == 0 { server.admin() } else { replica.admin() };
        let device = devices[number % devices.len()].clone();
        let release = release.name.clone();
        calls.spawn(async move {
            let newest = operator.deployments(&device.name()).await.remove(0);
            match number / 2 % 4 {
                0 => create(&operator, "", draft(&release, Choice::All(true))).await.map(drop),
                1 => {
                    let request = CancelRolloutRequest { name: newest.rollout, force: true };
                    operator.rollouts().cancel_rollout(request).await.map(drop)
                }
                2 => {
                    let request = RetryDeploymentRequest { name: newest.name };
                    operator.rollouts().retry_deployment(request).await.map(drop)
                }
                _ => match device.check_in().await?.deployments.first() {
                    Some(work) => device.report(work, 1, Progress::Succeeded).await.map(drop),
                    None => Ok(()),
                },
            }
        });
    }
    while let Some(outcome) = calls.join_next().await {
        if let Err(refused) = outcome.unwrap() {
            assert_refused(&refused, Code::FailedPrecondition, "ROLLOUT_STATE");
        }
    }
    let open_and_ended = "SELECT count(*) FROM rollout
         WHERE state = 'completed' AND EXISTS (SELECT FROM deployment WHERE rollout_id = rollout.id AND ended_at IS NULL)";
    assert_eq!(sqlx::query_scalar::<_, i64>(open_and_ended).fetch_one(server.pool()).await.unwrap(), 0);
}
