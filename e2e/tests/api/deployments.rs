//! `RolloutService`: deployments, one by one.

use ota_e2e::{
    TestDevice, TestServer, assert_refused, assert_violates, eventually, operator::unique_payload, violated_fields,
};
use ota_proto::{
    admin::v1::{
        CancelDeploymentRequest, CancelRolloutRequest, DeploymentState, ListDeploymentsRequest, RetryDeploymentRequest,
        RolloutState,
    },
    device::v1::DeploymentState as Progress,
};
use tonic::{Code, Status};

use super::rollouts::{DEADLINE, states_of};

#[tokio::test]
async fn a_deployment_is_canceled_until_its_device_may_have_switched() {
    let server = TestServer::start().await;
    let admin = server.admin();
    let (one, two) = (admin.enroll().await, admin.enroll().await);
    let release = admin.publish("app", "1.0.0", &unique_payload(100)).await;
    let rollout = admin.assign(&release, &[&one, &two]).await;
    let cancel = async |device: &TestDevice| {
        let name = admin.deployments(&device.name()).await.remove(0).name;
        let answer = admin.rollouts().cancel_deployment(CancelDeploymentRequest { name }).await?;
        Ok::<_, Status>(answer.into_inner().deployment.unwrap())
    };

    let canceled = cancel(&one).await.unwrap();
    assert_eq!(canceled.state(), DeploymentState::Canceled);
    assert_eq!(cancel(&one).await.unwrap(), canceled);

    let work = two.granted().await;
    two.report(&work, 1, Progress::Installing).await.unwrap();
    assert_refused(&cancel(&two).await.unwrap_err(), Code::FailedPrecondition, "ROLLOUT_STATE");
    two.report(&work, 2, Progress::Succeeded).await.unwrap();
    assert_refused(&cancel(&two).await.unwrap_err(), Code::FailedPrecondition, "ROLLOUT_STATE");
    assert_eq!(admin.rollout(&rollout.name).await.counts.unwrap().succeeded, 1);
}

#[tokio::test]
async fn an_ended_deployment_is_retried_once_it_is_the_only_one() {
    let server = TestServer::start().await;
    let admin = server.admin();
    let device = admin.enroll().await;
    let release = admin.publish("app", "1.0.0", &unique_payload(100)).await;
    let rollout = admin.assign(&release, &[&device]).await;
    let name = admin.deployments(&device.name()).await.remove(0).name;
    let retry = async || {
        let request = RetryDeploymentRequest { name: name.clone() };
        Ok::<_, Status>(admin.rollouts().retry_deployment(request).await?.into_inner().deployment.unwrap())
    };
    let refused = async || assert_refused(&retry().await.unwrap_err(), Code::FailedPrecondition, "ROLLOUT_STATE");

    refused().await;
    let cancel = CancelDeploymentRequest { name: name.clone() };
    admin.rollouts().cancel_deployment(cancel).await.unwrap();
    eventually("the rollout is completed", DEADLINE, async || {
        (admin.rollout(&rollout.name).await.state() == RolloutState::Completed).then_some(())
    })
    .await;
    let again = retry().await.unwrap();
    assert_eq!((again.state(), again.end_time), (DeploymentState::Queued, None));
    assert_eq!(admin.rollout(&rollout.name).await.state(), RolloutState::Active);
    refused().await;

    let newer = admin.publish("app", "1.1.0", &unique_payload(100)).await;
    admin.assign(&newer, &[&device]).await;
    refused().await;

    device.complete(&device.granted().await).await;
    assert_eq!(retry().await.unwrap().state(), DeploymentState::Queued);
    device.complete(&device.granted().await).await;
    refused().await;
}

#[tokio::test]
async fn a_deployment_of_a_canceled_rollout_is_not_retried() {
    let server = TestServer::start().await;
    let admin = server.admin();
    let device = admin.enroll().await;
    let release = admin.publish("app", "1.0.0", &unique_payload(100)).await;
    let rollout = admin.assign(&release, &[&device]).await;
    let request = CancelRolloutRequest { name: rollout.name.clone(), force: false };
    admin.rollouts().cancel_rollout(request).await.unwrap();

    let name = admin.deployments(&device.name()).await.remove(0).name;
    let refused = admin.rollouts().retry_deployment(RetryDeploymentRequest { name }).await.unwrap_err();

    assert_refused(&refused, Code::FailedPrecondition, "ROLLOUT_STATE");
    assert_eq!(states_of(&admin, &rollout).await, [DeploymentState::Canceled]);
}

#[tokio::test]
async fn deployments_are_listed_by_state_and_package() {
    let server = TestServer::start().await;
    let admin = server.admin();
    let device = admin.enroll().await;
    for package in ["app", "app", "os"] {
        let version = format!("1.0.{}", admin.deployments(&device.name()).await.len());
        let release = admin.publish(package, &version, &unique_payload(100)).await;
        admin.assign(&release, &[&device]).await;
    }
    let count = async |filter: &str| {
        let request = ListDeploymentsRequest { filter: filter.to_owned(), ..Default::default() };
        admin.rollouts().list_deployments(request).await.map(|page| page.into_inner().deployments.len())
    };
    for (filter, found) in [
        ("", 3),
        ("state=queued", 2),
        ("state in (superseded,failed)", 1),
        ("package=app,state!=superseded", 1),
        ("package notin (app)", 1),
    ] {
        assert_eq!(count(filter).await.unwrap(), found, "{filter}");
    }
    for bad in ["state=asleep", "device=x", "state=queued,,"] {
        assert_violates(&count(bad).await.unwrap_err(), "filter");
    }
    let request = ListDeploymentsRequest { rollout: "x".into(), device: "y".into(), ..Default::default() };
    let refused = admin.rollouts().list_deployments(request).await.unwrap_err();
    assert_eq!(violated_fields(&refused), ["rollout", "device"]);
}
