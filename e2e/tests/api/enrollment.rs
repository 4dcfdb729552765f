//! `EnrollmentService` and `EnrollTokenService`: how machines join the fleet.

use std::collections::{BTreeSet, HashMap};

use chrono::Utc;
use futures_util::future::join_all;
use ota_domain::secret::{EnrollmentString, Secret};
use ota_e2e::{Operator, TestDevice, TestKey, TestServer, assert_refused, assert_violates, reason, violated_fields};
use ota_proto::{
    admin::v1::{
        ApproveDeviceRequest, CreateEnrollTokenRequest, DecommissionDeviceRequest, EnrollToken, EnrollTokenState,
        GetEnrollTokenRequest, ListEnrollTokensRequest, RejectDeviceRequest, RevokeEnrollTokenRequest,
    },
    convert::timestamp,
    device::v1::{EnrollRequest, EnrollmentState, enrollment_service_client::EnrollmentServiceClient},
};
use tonic::{Code, Status};

async fn create(operator: &Operator, enroll_token: EnrollToken) -> Result<(EnrollToken, String), Status> {
    let request = CreateEnrollTokenRequest { enroll_token: Some(enroll_token) };
    let made = operator.enroll_tokens().create_enroll_token(request).await?.into_inner();
    Ok((made.enroll_token.expect("an answer has the token"), made.enrollment_string))
}

async fn made(server: &TestServer, max_uses: i32) -> (EnrollToken, String) {
    let token = EnrollToken { max_uses, ..Default::default() };
    create(&server.admin(), token).await.expect("an admin makes an enrolment token")
}

async fn read(server: &TestServer, token: &EnrollToken) -> EnrollToken {
    let request = GetEnrollTokenRequest { name: token.name.clone() };
    let read = server.admin().enroll_tokens().get_enroll_token(request).await.expect("anybody reads a token");
    read.into_inner().enroll_token.expect("an answer has the token")
}

async fn revoke(server: &TestServer, name: &str) -> Result<EnrollToken, Status> {
    let request = RevokeEnrollTokenRequest { name: name.to_owned() };
    let revoked = server.admin().enroll_tokens().revoke_enroll_token(request).await?.into_inner();
    Ok(revoked.enroll_token.expect("an answer has the token"))
}

async fn expire(server: &TestServer) {
    let statement = sqlx::query("UPDATE enroll_token SET expires_at = now()");
    statement.execute(server.pool()).await.expect("time passes");
}

async fn enroll(server: &TestServer, string: &str) -> Result<TestDevice, Status> {
    TestDevice::enroll(&server.url(), string, "test").await
}

async fn device_count(server: &TestServer) -> i64 {
    let statement = sqlx::query_scalar("SELECT count(*) FROM device");
    statement.fetch_one(server.pool()).await.expect("rows are counted")
}

/// Asserts that a machine is refused, and that neither a device nor a use of the token is left of the try.
async fn assert_kept_out(server: &TestServer, token: &EnrollToken, string: &str, code: Code, reason: &str) {
    let before = (device_count(server).await, read(server, token).await.uses);
    assert_refused(&enroll(server, string).await.expect_err("the machine is kept out"), code, reason);
    assert_eq!((device_count(server).await, read(server, token).await.uses), before);
}

#[tokio::test]
async fn a_token_lets_in_as_many_machines_as_it_says_however_many_come_at_once() {
    let server = TestServer::start().await;
    let (token, string) = made(&server, 10).await;
    let outcomes = join_all((0..64).map(|_| enroll(&server, &string))).await;
    let devices: BTreeSet<_> = outcomes.iter().flatten().map(|device| device.id().to_owned()).collect();
    assert_eq!(devices.len(), 10);
    for refusal in outcomes.iter().filter_map(|outcome| outcome.as_ref().err()) {
        assert_refused(refusal, Code::Unauthenticated, "ENROLL_TOKEN_USED_UP");
    }
    assert_eq!(device_count(&server).await, 10);
    let token = read(&server, &token).await;
    assert_eq!((token.uses, token.state()), (10, EnrollTokenState::UsedUp));
}

#[tokio::test]
async fn a_machine_that_lost_the_answer_asks_again_and_gets_the_same_device() {
    let server = TestServer::start().await;
    let (token, string) = made(&server, 1).await;
    let first = enroll(&server, &string).await.unwrap();
    let again = async || TestDevice::enroll_with(&server.url(), &string, "test", first.key()).await;
    assert_eq!(again().await.unwrap().id(), first.id());
    expire(&server).await;
    assert_eq!(again().await.unwrap().id(), first.id());
    revoke(&server, &token.name).await.unwrap();
    assert_eq!(again().await.unwrap().id(), first.id());
    assert_eq!((read(&server, &token).await.uses, device_count(&server).await), (1, 1));
    let enrolled = server.admin().events_of(&first.name()).await;
    assert_eq!(enrolled.iter().map(|event| event.kind.as_str()).collect::<Vec<_>>(), ["device.enrolled"]);
    assert_eq!(enrolled[0].actor, first.name());
}

#[tokio::test]
async fn a_machine_that_asks_many_times_at_once_is_one_device() {
    let server = TestServer::start().await;
    for max_uses in [1, 3] {
        let (token, string) = made(&server, max_uses).await;
        let (url, key) = (server.url(), TestKey::generate());
        let asks = (0..16).map(|_| TestDevice::enroll_with(&url, &string, "test", &key));
        let devices: BTreeSet<_> =
            join_all(asks).await.into_iter().map(|outcome| outcome.unwrap().id().to_owned()).collect();
        assert_eq!((devices.len(), read(&server, &token).await.uses), (1, 1), "with {max_uses} uses");
    }
}

#[tokio::test]
async fn a_used_up_token_keeps_machines_out() {
    let server = TestServer::start().await;
    let (token, string) = made(&server, 0).await;
    assert_eq!(token.max_uses, 1);
    enroll(&server, &string).await.unwrap();
    assert_kept_out(&server, &token, &string, Code::Unauthenticated, "ENROLL_TOKEN_USED_UP").await;
}

#[tokio::test]
async fn an_expired_token_keeps_machines_out() {
    let server = TestServer::start().await;
    let (token, string) = made(&server, 5).await;
    expire(&server).await;
    assert_kept_out(&server, &token, &string, Code::Unauthenticated, "ENROLL_TOKEN_EXPIRED").await;
    assert_eq!(read(&server, &token).await.state(), EnrollTokenState::Expired);
}

#[tokio::test]
async fn a_revoked_token_keeps_machines_out_and_its_devices_stay() {
    let server = TestServer::start().await;
    let (token, string) = made(&server, 5).await;
    let device = enroll(&server, &string).await.unwrap();
    assert_eq!(revoke(&server, &token.name).await.unwrap().state(), EnrollTokenState::Revoked);
    assert_kept_out(&server, &token, &string, Code::Unauthenticated, "ENROLL_TOKEN_REVOKED").await;
    device.check_in().await.unwrap();
}

#[tokio::test]
async fn a_wrong_secret_and_an_unknown_token_are_refused_alike() {
    let server = TestServer::start().await;
    let (token, string) = made(&server, 5).await;
    let good: EnrollmentString = string.parse().unwrap();
    let wrong = EnrollmentString { secret: Secret([7; 32]), ..good.clone() }.to_string();
    assert_kept_out(&server, &token, &wrong, Code::Unauthenticated, "ENROLL_TOKEN_INVALID").await;
    let unknown = EnrollmentString { token: ota_domain::EnrollTokenId(uuid::Uuid::now_v7()), ..good }.to_string();
    let refusals = (enroll(&server, &wrong).await.unwrap_err(), enroll(&server, &unknown).await.unwrap_err());
    assert_eq!(
        (reason(&refusals.0), refusals.0.message()),
        (reason(&refusals.1), refusals.1.message()),
        "nobody learns which tokens there are"
    );
}

#[tokio::test]
async fn a_token_for_other_hardware_keeps_a_machine_out() {
    let server = TestServer::start().await;
    let hardware = vec!["rpi4".to_owned(), "rpi5".to_owned()];
    let (token, string) = create(&server.admin(), EnrollToken { hardware, ..Default::default() }).await.unwrap();
    assert_kept_out(&server, &token, &string, Code::PermissionDenied, "HARDWARE_NOT_ALLOWED").await;
    TestDevice::enroll(&server.url(), &string, "rpi5").await.unwrap();
}

#[tokio::test]
async fn every_fault_of_a_request_is_told_and_nothing_is_stored() {
    let server = TestServer::start().await;
    let (token, _) = made(&server, 5).await;
    let mut client = EnrollmentServiceClient::new(server.channel());
    let bad = EnrollRequest {
        token_id: "../etc".to_owned(),
        secret: "0OIl".to_owned(),
        hardware: "x".repeat(64),
        hardware_id: "bell\u{7}".to_owned(),
        certificate_request: vec![1; 33].into(),
    };
    let refusal = client.enroll(bad).await.unwrap_err();
    assert_refused(&refusal, Code::InvalidArgument, "FIELDS_INVALID");
    assert_eq!(violated_fields(&refusal), ["token_id", "secret", "hardware", "hardware_id", "certificate_request"]);

    let refusal = client.enroll(EnrollRequest::default()).await.unwrap_err();
    assert_eq!(violated_fields(&refusal), ["token_id", "secret", "hardware", "certificate_request"]);
    assert_eq!((device_count(&server).await, read(&server, &token).await.uses), (0, 0));
}

#[tokio::test]
async fn a_machine_that_needs_approval_waits_for_it() {
    let server = TestServer::start().await;
    let admin = server.admin();
    let labels = HashMap::from([("ring".to_owned(), "canary".to_owned())]);
    let token = EnrollToken { approval_required: true, max_uses: 2, labels: labels.clone(), ..Default::default() };
    let (_, string) = create(&admin, token).await.unwrap();
    let (one, other) = (enroll(&server, &string).await.unwrap(), enroll(&server, &string).await.unwrap());
    assert_eq!(one.state(), EnrollmentState::Pending);
    assert_eq!(admin.device(&one.name()).await.labels, labels);
    assert_refused(&one.check_in().await.unwrap_err(), Code::PermissionDenied, "DEVICE_PENDING");

    admin.devices().approve_device(ApproveDeviceRequest { name: one.name(), ..Default::default() }).await.unwrap();
    one.check_in().await.unwrap();
    let again = TestDevice::enroll_with(&server.url(), &string, "test", one.key()).await.unwrap();
    assert_eq!((again.id(), again.state()), (one.id(), EnrollmentState::Accepted));

    admin.devices().reject_device(RejectDeviceRequest { name: other.name() }).await.unwrap();
    assert_refused(&other.check_in().await.unwrap_err(), Code::PermissionDenied, "DEVICE_REJECTED");
    let again = TestDevice::enroll_with(&server.url(), &string, "test", other.key()).await.unwrap_err();
    assert_refused(&again, Code::PermissionDenied, "DEVICE_REJECTED");
}

#[tokio::test]
async fn a_decommissioned_machine_comes_back_only_as_another_device() {
    let server = TestServer::start().await;
    let (_, string) = made(&server, 5).await;
    let device = enroll(&server, &string).await.unwrap();
    let request = DecommissionDeviceRequest { name: device.name() };
    server.admin().devices().decommission_device(request).await.unwrap();
    let again = TestDevice::enroll_with(&server.url(), &string, "test", device.key()).await.unwrap_err();
    assert_refused(&again, Code::PermissionDenied, "DEVICE_DECOMMISSIONED");
    assert_ne!(enroll(&server, &string).await.unwrap().id(), device.id());
}

#[tokio::test]
async fn every_fault_of_a_token_is_told_and_nothing_is_stored() {
    let server = TestServer::start().await;
    let bad = EnrollToken {
        description: "x".repeat(257),
        max_uses: 1_000_001,
        expire_time: Some(timestamp(Utc::now())),
        hardware: vec!["ok".to_owned(), "a..b".to_owned()],
        labels: HashMap::from([("a b".to_owned(), "c".to_owned())]),
        ..Default::default()
    };
    let refusal = create(&server.admin(), bad).await.unwrap_err();
    assert_refused(&refusal, Code::InvalidArgument, "FIELDS_INVALID");
    assert_eq!(
        violated_fields(&refusal),
        [
            "enroll_token.description",
            "enroll_token.max_uses",
            "enroll_token.expire_time",
            "enroll_token.hardware[1]",
            "enroll_token.labels[\"a b\"]",
        ]
    );
    let stored: i64 = sqlx::query_scalar("SELECT count(*) FROM enroll_token").fetch_one(server.pool()).await.unwrap();
    assert_eq!(stored, 0);
}

#[tokio::test]
async fn an_unknown_token_is_not_found_and_revoking_twice_changes_nothing() {
    let server = TestServer::start().await;
    let unknown = "enrollTokens/01890a5d-ac96-774b-bcce-b302099a8057";
    assert_refused(&revoke(&server, unknown).await.unwrap_err(), Code::NotFound, "ENROLL_TOKEN_NOT_FOUND");
    assert_violates(&revoke(&server, "enrollTokens/../x").await.unwrap_err(), "name");
    let (token, _) = made(&server, 1).await;
    let once = revoke(&server, &token.name).await.unwrap();
    assert_eq!(revoke(&server, &token.name).await.unwrap(), once);
}

#[tokio::test]
async fn tokens_are_listed_newest_first_and_as_they_were_made() {
    let server = TestServer::start().await;
    let mut expected = Vec::new();
    for number in 1..=3 {
        let token = EnrollToken { description: format!("batch {number}"), max_uses: number, ..Default::default() };
        expected.insert(0, create(&server.admin(), token).await.unwrap().0);
    }
    let request = ListEnrollTokensRequest { page_size: 2, page_token: String::new() };
    let first = server.admin().enroll_tokens().list_enroll_tokens(request).await.unwrap().into_inner();
    let request = ListEnrollTokensRequest { page_size: 2, page_token: first.next_page_token };
    let second = server.admin().enroll_tokens().list_enroll_tokens(request).await.unwrap().into_inner();
    assert!(second.next_page_token.is_empty());
    assert_eq!([first.enroll_tokens, second.enroll_tokens].concat(), expected);
}
