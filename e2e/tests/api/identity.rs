//! How devices prove who they are: their keys, certificates and sessions.

use ota_domain::secret::{BearerToken, EnrollmentString};
use ota_e2e::{
    TestKey, TestServer, assert_refused, assert_violates, credential::Bearer, device::session, raw::RawClient,
};
use ota_proto::{
    admin::v1::EnrollToken,
    device::v1::{
        CreateChallengeRequest, CreateSessionRequest, GetTrustAnchorsRequest,
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
        other @ (PeerIdentity::None | PeerIdentity::Foreign(_)) => panic!("{other:?}"),
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
