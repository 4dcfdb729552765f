//! Two servers on one database and one blob store: any caller may talk to any of them.

use std::time::Duration;

use bytes::Bytes;
use ota_domain::role::Role;
use ota_e2e::{
    TestDevice, TestServer, assert_refused,
    device::{runs, sha256},
    eventually,
    operator::{pieces, unique_payload},
};
use ota_proto::admin::v1::{
    CreateUploadRequest, DecommissionDeviceRequest, DeploymentState, GetCallerRequest, GetUploadRequest,
    RevokeApiTokenRequest, RolloutState, Upload, create_upload_response::Presence,
};
use tonic::{Code, Status};
use uuid::Uuid;

/// A change is notified: it is known elsewhere soon, not at once.
const SOON: Duration = Duration::from_secs(10);

#[tokio::test]
async fn what_is_assigned_on_one_is_done_on_the_other() {
    let here = TestServer::start().await;
    let there = here.replica().await;
    let admin = here.admin();
    let device = admin.enroll().await.at(&there.url());
    // The other replica keeps in memory that there is nothing to do.
    assert!(device.check_in().await.unwrap().deployments.is_empty());
    let bytes = unique_payload(100_000);
    let release = admin.publish("app", "1.0.0", &bytes).await;
    let rollout = admin.assign(&release, &[&device]).await;
    let deployment = eventually("the other replica hears of the assignment", SOON, async || {
        device.check_in().await.unwrap().deployments.pop()
    });
    let deployment = deployment.await;
    device.complete(&deployment).await;

    let seen = admin.device(&device.name()).await;
    assert_eq!(seen.running[0].version, "1.0.0");
    assert_eq!(admin.deployments(&device.name()).await[0].state(), DeploymentState::Succeeded);
    eventually("the rollout is complete", SOON, async || {
        (admin.rollout(&rollout.name).await.state() == RolloutState::Completed).then_some(())
    })
    .await;
    // And back on the first, nothing is left to do.
    let device = device.at(&here.url());
    assert!(device.check_in_running(&[runs(&deployment)]).await.unwrap().deployments.is_empty());
}

#[tokio::test]
async fn an_upload_goes_on_at_another_replica() {
    let here = TestServer::start().await;
    let there = here.replica().await;
    let bytes = unique_payload(3 * 1024 * 1024);
    let upload = Upload { sha256: sha256(&bytes).to_string(), size_bytes: bytes.len() as i64, ..Default::default() };
    let request = CreateUploadRequest { upload: Some(upload) };
    let made = here.admin().packages().create_upload(request.clone()).await.unwrap().into_inner();
    let Some(Presence::Upload(upload)) = made.presence else { panic!("the server had the bytes already") };

    let half = pieces(&upload.name, &bytes, 0).into_iter().take(6);
    let status =
        here.admin().packages().upload_payload(tokio_stream::iter(half.collect::<Vec<_>>())).await.unwrap_err();
    assert_refused(&status, Code::Cancelled, "UPLOAD_INCOMPLETE");

    let mut elsewhere = there.admin().packages();
    let read = elsewhere.get_upload(GetUploadRequest { name: upload.name.clone() }).await.unwrap().into_inner();
    let offset = read.upload.unwrap().offset;
    assert_eq!(offset, 6 * 256 * 1024);
    elsewhere.upload_payload(tokio_stream::iter(pieces(&upload.name, &bytes, offset))).await.unwrap();
    let made = here.admin().packages().create_upload(request).await.unwrap().into_inner();
    assert!(matches!(made.presence, Some(Presence::Payload(_))));
}

#[tokio::test]
async fn a_token_revoked_on_one_is_refused_by_the_other() {
    let here = TestServer::start().await;
    let there = here.replica().await;
    let viewer = here.operator(Role::Viewer).await;
    let elsewhere = viewer.at(&there.url());
    let name = elsewhere.access().get_caller(GetCallerRequest {}).await.unwrap().into_inner().name;
    here.admin().access().revoke_api_token(RevokeApiTokenRequest { name }).await.unwrap();
    let status = eventually("the other replica refuses the token", SOON, async || {
        elsewhere.access().get_caller(GetCallerRequest {}).await.err()
    });
    assert_refused(&status.await, Code::Unauthenticated, "CREDENTIAL_INVALID");
}

#[tokio::test]
async fn a_device_decommissioned_on_one_is_refused_by_the_other() {
    let here = TestServer::start().await;
    let there = here.replica().await;
    let device: TestDevice = here.admin().enroll().await.at(&there.url());
    device.check_in().await.unwrap();
    let request = DecommissionDeviceRequest { name: device.name() };
    here.admin().devices().decommission_device(request).await.unwrap();
    let status = eventually("the other replica refuses the device", SOON, async || device.check_in().await.err());
    assert_refused(&status.await, Code::PermissionDenied, "DEVICE_DECOMMISSIONED");
}

/// Checks in at both replicas, then changes the device in the database and notifies nobody. Returns why both refuse it after
/// that, and why its stream ended. The sweep sees nothing: the time of the last change is left as it was.
async fn refused_after(statement: &'static str) -> [Status; 3] {
    let here = TestServer::start().await;
    let there = here.replica().await;
    let device = here.admin().enroll().await;
    let elsewhere = device.at(&there.url());
    device.check_in().await.unwrap();
    elsewhere.check_in().await.unwrap();
    let mut rings = elsewhere.watch().await.unwrap();
    let id: Uuid = device.id().parse().unwrap();
    let changed = sqlx::query(statement).bind(id).execute(here.pool()).await.unwrap();
    assert_eq!(changed.rows_affected(), 1);
    let refused = async |device: &TestDevice| {
        eventually("the replica refuses the device", SOON, async || device.check_in().await.err()).await
    };
    let ended = loop {
        match rings.message().await {
            Ok(ring) => assert!(ring.is_some(), "a stream ends with a reason"),
            Err(status) => break status,
        }
    };
    [refused(&device).await, refused(&elsewhere).await, ended]
}

#[tokio::test]
async fn a_device_taken_out_without_a_notification_is_soon_refused_by_every_replica() {
    let statement = "UPDATE device SET state = 'decommissioned' WHERE id = $1";
    for status in refused_after(statement).await {
        assert_refused(&status, Code::PermissionDenied, "DEVICE_DECOMMISSIONED");
    }
}

#[tokio::test]
async fn a_device_deleted_without_a_notification_is_soon_refused_by_every_replica() {
    for status in refused_after("DELETE FROM device WHERE id = $1").await {
        assert_refused(&status, Code::Unauthenticated, "CREDENTIAL_INVALID");
    }
}

#[tokio::test]
async fn a_replica_can_go_while_the_other_works_on() {
    let here = TestServer::start().await;
    let there = here.replica().await;
    let device = here.admin().enroll().await;
    device.at(&there.url()).check_in().await.unwrap();
    there.stop().await;
    let release = here.admin().publish("app", "1.0.0", &Bytes::from_static(b"app")).await;
    here.admin().assign(&release, &[&device]).await;
    let deployment = device.granted().await;
    device.complete(&deployment).await;
}
