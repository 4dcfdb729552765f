//! How devices prove who they are: their keys, certificates and sessions.

use std::collections::HashMap;

use futures_util::future::join_all;
use ota_domain::secret::{BearerToken, EnrollmentString};
use ota_e2e::{
    Operator, TestDevice, TestKey, TestServer, assert_refused, assert_violates,
    credential::Bearer,
    device::{enroll_request, session},
    raw::RawClient,
};
use ota_proto::{
    admin::v1::{ApproveDeviceRequest, DeviceState, EnrollToken, GetStatusRequest},
    device::v1::{
        CreateChallengeRequest, CreateSessionRequest, EnrollRequest, EnrollmentState, GetTrustAnchorsRequest,
        enrollment_service_client::EnrollmentServiceClient,
    },
};
use ota_server::ca::{DeviceCertificate, PeerIdentity, PeerJudge};
use ota_trust::pin::Pin;
use tonic::Code;

fn known(server: &TestServer, certificate: &[u8]) -> DeviceCertificate {
    let judge = PeerJudge::new(server.app().keys.authority().certificate()).unwrap();
    match judge.judge(&[certificate.to_vec().into()]) {
        PeerIdentity::Device(device) => device,
        other @ (PeerIdentity::None | PeerIdentity::Proxy | PeerIdentity::Foreign(_)) => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_device_gets_a_certificate_for_its_key_and_operators_see_both() {
    let server = TestServer::start().await;
    let admin = server.admin();
    let device = admin.enroll().await;
    let certificate = known(&server, &device.certificate());
    assert_eq!(certificate.device.to_string(), device.id());
    assert_eq!(certificate.key_sha256, device.key().public().sha256());
    let seen = admin.device(&device.name()).await;
    assert_eq!(seen.key_sha256, certificate.key_sha256.to_string());
    assert_eq!(seen.certificate_expire_time.unwrap().seconds, certificate.not_after.timestamp());
}

#[tokio::test]
async fn a_session_renews_the_certificate_for_the_enrolled_key_alone() {
    let server = TestServer::start().await;
    let device = server.admin().enroll().await;
    let first = known(&server, &device.certificate());
    let renewed = known(&server, &device.renew(device.key().request()).await.unwrap());
    assert_eq!((renewed.device, renewed.key_sha256), (first.device, first.key_sha256));
    assert_ne!(renewed.serial, first.serial);
    let refusal = device.renew(TestKey::generate().request()).await.unwrap_err();
    assert_violates(&refusal, "certificate_request");
}

#[tokio::test]
async fn the_pin_is_over_what_the_server_shows() {
    let server = TestServer::start().await;
    let string = server.admin().enrollment_string(EnrollToken::default()).await;
    let string: EnrollmentString = string.parse().unwrap();
    let mut client = EnrollmentServiceClient::new(server.channel());
    let mut anchors = async |token_id: String| client.get_trust_anchors(GetTrustAnchorsRequest { token_id }).await;
    let shown = anchors(string.token_id()).await.unwrap().into_inner();
    let key = server.app().keys.authority().public_key();
    assert_eq!(Pin::of(key, &shown.image_root, &shown.director_root).0, string.pin);
    assert_eq!(shown.certificate_authority, server.app().keys.authority().certificate().as_ref());
    let unknown = anchors("0".repeat(32)).await.unwrap().into_inner();
    assert_eq!(unknown, shown, "nobody learns which tokens there are");
    assert_violates(&anchors("x".to_owned()).await.unwrap_err(), "token_id");
}

#[tokio::test]
async fn who_does_not_hold_the_key_gets_no_session() {
    let server = TestServer::start().await;
    let (device, other) = (server.admin().enroll().await, server.admin().enroll().await);
    let mut client = EnrollmentServiceClient::new(server.channel());
    let challenge = client.create_challenge(CreateChallengeRequest {}).await.unwrap().into_inner().challenge;
    let id = device.id().parse().unwrap();
    let good = CreateSessionRequest {
        device: device.id().to_owned(),
        signature: device.key().prove(id, &challenge),
        challenge,
    };
    let mut changed = good.challenge.to_vec();
    changed[0] ^= 1;
    let bad = [
        CreateSessionRequest { signature: other.key().prove(id, &good.challenge), ..good.clone() },
        // A proof for one device is none for another.
        CreateSessionRequest { device: other.id().to_owned(), ..good.clone() },
        CreateSessionRequest { device: "01890a5d-ac96-774b-bcce-b302099a8057".to_owned(), ..good.clone() },
        CreateSessionRequest { challenge: changed.into(), ..good.clone() },
        CreateSessionRequest { signature: Default::default(), ..good.clone() },
        CreateSessionRequest { challenge: Default::default(), ..good.clone() },
    ];
    for request in bad {
        let refusal = client.create_session(request).await.unwrap_err();
        assert_refused(&refusal, Code::Unauthenticated, "CREDENTIAL_INVALID");
    }
    client.create_session(good).await.unwrap();
}

#[tokio::test]
async fn a_session_that_was_made_longer_is_none() {
    let server = TestServer::start().await;
    let device = server.admin().enroll().await;
    let Ok(BearerToken::Session(mut token)) = device.bearer().token().unwrap().parse() else { panic!("a session") };
    token.expires_at += 1;
    let client = RawClient::new(&server.url(), Bearer::new(&token.to_string()));
    let refusal = client.call("/ota.device.v1.UpdateService/CheckIn", Default::default()).await.unwrap_err();
    assert_refused(&refusal, Code::Unauthenticated, "CREDENTIAL_INVALID");
}

#[tokio::test]
async fn a_session_is_good_at_every_replica() {
    let server = TestServer::start().await;
    let replica = server.replica().await;
    let device = server.admin().enroll().await;
    device.at(&replica.url()).check_in().await.unwrap();
    session(&replica.channel(), device.id(), device.key()).await.unwrap();
}

/// Enrols a machine with a board serial and a fresh key.
async fn enroll_machine(server: &TestServer, string: &str, hardware_id: &str) -> TestDevice {
    let key = TestKey::generate();
    let request = EnrollRequest { hardware_id: hardware_id.to_owned(), ..enroll_request(string, &key) };
    TestDevice::enroll_by(server.channel(), request, &key).await.expect("a machine enrols")
}

async fn many_times(admin: &Operator) -> String {
    let labels = HashMap::from([("site".to_owned(), "lab".to_owned())]);
    admin.enrollment_string(EnrollToken { max_uses: 100, labels, ..Default::default() }).await
}

#[tokio::test]
async fn a_machine_that_comes_with_another_key_waits_and_is_shown() {
    let server = TestServer::start().await;
    let admin = server.admin();
    let string = many_times(&admin).await;
    let first = enroll_machine(&server, &string, "serial-1").await;
    let other = enroll_machine(&server, &string, "serial-2").await;
    let second = enroll_machine(&server, &string, "serial-1").await;
    assert_eq!((first.state(), other.state()), (EnrollmentState::Accepted, EnrollmentState::Accepted));
    assert_eq!(second.state(), EnrollmentState::Pending, "whatever the token says");
    first.check_in().await.unwrap();
    assert_refused(&second.check_in().await.unwrap_err(), Code::PermissionDenied, "DEVICE_PENDING");
    assert_eq!(admin.device(&second.name()).await.identity_conflicts, [first.name()]);
    assert_eq!(admin.device(&first.name()).await.identity_conflicts, [second.name()]);
    assert!(admin.device(&other.name()).await.identity_conflicts.is_empty());
    let events = admin.events_of(&second.name()).await;
    let conflict = events.iter().find(|event| event.kind == "device.identity_conflict").expect("the event");
    assert_eq!(
        (&conflict.details["hardware_id"], &conflict.details["devices"]),
        (&"serial-1".to_owned(), &first.name())
    );
    let status = admin.status().get_status(GetStatusRequest {}).await.unwrap().into_inner();
    assert!(status.warnings.iter().any(|warning| warning.contains("another device")), "{:?}", status.warnings);
}

#[tokio::test]
async fn approving_in_place_of_the_others_takes_their_labels_and_takes_them_out() {
    let server = TestServer::start().await;
    let admin = server.admin();
    let string = many_times(&admin).await;
    let old = enroll_machine(&server, &string, "serial-1").await;
    let plain = admin.enrollment_string(EnrollToken { max_uses: 2, ..Default::default() }).await;
    let (lost, new) =
        (enroll_machine(&server, &plain, "serial-1").await, enroll_machine(&server, &plain, "serial-1").await);
    let request = ApproveDeviceRequest { name: new.name(), replace_conflicting: true };
    let approved = admin.devices().approve_device(request.clone()).await.unwrap().into_inner().device.unwrap();
    assert_eq!((approved.state(), approved.labels["site"].as_str()), (DeviceState::Accepted, "lab"));
    assert!(approved.identity_conflicts.is_empty());
    // Again changes nothing.
    let again = admin.devices().approve_device(request).await.unwrap().into_inner().device.unwrap();
    assert_eq!(again, approved);
    new.check_in().await.unwrap();
    for gone in [&old, &lost] {
        assert_eq!(admin.device(&gone.name()).await.state(), DeviceState::Decommissioned);
        assert_refused(&gone.check_in().await.unwrap_err(), Code::PermissionDenied, "DEVICE_DECOMMISSIONED");
    }
}

#[tokio::test]
async fn of_machines_with_one_serial_that_come_at_once_one_is_let_in() {
    let server = TestServer::start().await;
    let string = many_times(&server.admin()).await;
    let all = join_all((0..8).map(|_| enroll_machine(&server, &string, "serial-1"))).await;
    let accepted = all.iter().filter(|device| device.state() == EnrollmentState::Accepted).count();
    assert_eq!(accepted, 1);
}
