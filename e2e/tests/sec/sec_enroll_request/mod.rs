//! Certificate requests that ask for more than a machine is: what a device is called and may do is the server's to say.

use bytes::Bytes;
use ota_e2e::{Options, TestDevice, TestKey, TestServer, assert_refused, assert_violates, device::enroll_request};
use ota_proto::{
    admin::v1::{DecommissionDeviceRequest, EnrollToken},
    device::v1::{EnrollRequest, EnrollmentState, enrollment_service_client::EnrollmentServiceClient},
};
use ota_server::ca::{PeerIdentity, PeerJudge};
use rcgen::{CertificateParams, CustomExtension, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose, SanType};
use tonic::{Code, Status};
use x509_parser::{
    certificate::X509Certificate,
    certification_request::X509CertificationRequest,
    extensions::{GeneralName, ParsedExtension},
    prelude::FromDer as _,
};

const BASIC_CONSTRAINTS: [u64; 4] = [2, 5, 29, 19];
/// `SEQUENCE { BOOLEAN TRUE }`: a certificate authority.
const IS_AUTHORITY: [u8; 5] = [0x30, 0x03, 0x01, 0x01, 0xff];

/// A request for this key that asks to be `victim`, an authority and a server, under an operator's name.
fn greedy(key: &TestKey, victim: &str) -> Bytes {
    let pair = KeyPair::try_from(key.to_pkcs8().as_slice()).expect("a key");
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
    for urn in [format!("urn:ota:device:{victim}"), "urn:ota:operator:admin".to_owned()] {
        params.subject_alt_names.push(SanType::URI(urn.try_into().expect("a URI")));
    }
    params.distinguished_name.push(DnType::CommonName, "ota certificate authority");
    params.distinguished_name.push(DnType::OrganizationName, "admin");
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::Any];
    params.custom_extensions = vec![CustomExtension::from_oid_content(&BASIC_CONSTRAINTS, IS_AUTHORITY.to_vec())];
    Bytes::copy_from_slice(params.serialize_request(&pair).expect("a request").der())
}

/// Asserts that a certificate is for this device and this key, to show as a client, and for nothing else.
fn assert_humble(server: &TestServer, device: &TestDevice, certificate: &Bytes) {
    let (_, parsed) = X509Certificate::from_der(certificate).expect("a certificate");
    let names = parsed.subject_alternative_name().expect("one list").expect("a name").value.general_names.clone();
    assert_eq!(names, [GeneralName::URI(&format!("urn:ota:device:{}", device.id()))]);
    assert_eq!(parsed.subject().to_string(), format!("CN=device {}", device.id()));
    assert!(!parsed.is_ca(), "an authority");
    let usages = parsed.extended_key_usage().expect("one list").expect("usages").value;
    assert!(usages.client_auth && !usages.server_auth && !usages.any && !usages.code_signing, "{usages:?}");
    let signs = |extension: &ParsedExtension<'_>| matches!(extension, ParsedExtension::KeyUsage(usage) if usage.key_cert_sign() || usage.crl_sign());
    assert!(!parsed.extensions().iter().any(|extension| signs(extension.parsed_extension())), "signs certificates");
    let judge = PeerJudge::new(server.app().keys.authority().certificate()).expect("the authority");
    let PeerIdentity::Device(known) = judge.judge(&[certificate.to_vec().into()]) else { panic!("no device's") };
    assert_eq!((known.device.to_string(), known.key_sha256), (device.id().to_owned(), device.key().public().sha256()));
}

async fn string(server: &TestServer) -> String {
    server.admin().enrollment_string(EnrollToken { max_uses: 10, ..Default::default() }).await
}

async fn enroll(server: &TestServer, request: EnrollRequest, key: &TestKey) -> Result<TestDevice, Status> {
    TestDevice::enroll_by(server.channel(), request, key).await
}

async fn device_count(server: &TestServer) -> i64 {
    sqlx::query_scalar("SELECT count(*) FROM device").fetch_one(server.pool()).await.expect("rows are counted")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_says_what_the_server_says_whatever_was_asked_for() {
    let server = TestServer::with(Options::encrypted()).await;
    let (string, victim) = (string(&server).await, server.admin().enroll().await);
    let key = TestKey::generate();
    let certificate_request = greedy(&key, victim.id());
    let request = EnrollRequest { certificate_request: certificate_request.clone(), ..enroll_request(&string, &key) };
    let attacker = enroll(&server, request, &key).await.expect("a machine enrols");
    assert_ne!(attacker.id(), victim.id());
    assert_humble(&server, &attacker, &attacker.certificate());
    // Nor when it is renewed, by session or by certificate.
    for device in [attacker.clone(), attacker.certified(&server.url())] {
        let renewed = device.renew(certificate_request.clone()).await.expect("a certificate is renewed");
        assert_humble(&server, &attacker, &renewed);
        attacker.showing(&server.url(), renewed).check_in().await.expect("it is the attacker's own");
    }
    assert_eq!(server.admin().device(&victim.name()).await.key_sha256, victim.key().public().sha256().to_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_for_a_key_that_its_sender_does_not_hold_is_refused() {
    let server = TestServer::start().await;
    let (string, victim) = (string(&server).await, server.admin().enroll().await);
    let before = device_count(&server).await;
    let key = TestKey::generate();
    let own = key.request();
    let (_, parsed) = X509CertificationRequest::from_der(&own).expect("a request");
    let spki = parsed.certification_request_info.subject_pki.raw;
    let at = own.windows(spki.len()).position(|part| part == spki).expect("it holds its key");
    let mut stolen_key = own.to_vec();
    stolen_key[at..at + spki.len()].copy_from_slice(victim.key().public().as_spki());
    let mut unsigned = own.to_vec();
    *unsigned.last_mut().expect("a signature") ^= 1;
    for certificate_request in [Bytes::from(stolen_key), Bytes::from(unsigned)] {
        let request = EnrollRequest { certificate_request, ..enroll_request(&string, &key) };
        let refusal = enroll(&server, request, &key).await.expect_err("the signature is not the key's");
        assert_violates(&refusal, "certificate_request");
    }
    assert_eq!(device_count(&server).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_somebody_else_signed_once_makes_nobody_that_machine() {
    let server = TestServer::with(Options::encrypted()).await;
    let (string, victim) = (string(&server).await, server.admin().enroll().await);
    let before = server.admin().device(&victim.name()).await;
    // The attacker saw the victim's request, and has a token of their own.
    let request = EnrollRequest {
        certificate_request: victim.key().request(),
        hardware_id: "the attacker's".to_owned(),
        ..enroll_request(&string, victim.key())
    };
    let mut client = EnrollmentServiceClient::new(server.channel());
    let answer = client.enroll(request).await.expect("a machine that asks again").into_inner();
    assert_eq!((answer.device.as_str(), answer.state()), (victim.id(), EnrollmentState::Accepted));
    let certificate = answer.certificate_chain[0].clone();
    assert_humble(&server, &victim, &certificate);
    // With the certificate and another key no handshake comes about.
    let thief = TestKey::generate();
    let chain = vec![certificate.to_vec().into()];
    ota_tls::Identity::new(chain, thief.to_pkcs8().into()).expect_err("a certificate for another key");
    let after = server.admin().device(&victim.name()).await;
    assert_eq!((after.hardware_id, after.labels, after.state), (before.hardware_id, before.labels, before.state));
    victim.certified(&server.url()).check_in().await.expect("the victim works on");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_waits_or_was_sent_away_gets_in_by_no_other_token() {
    let server = TestServer::start().await;
    let admin = server.admin();
    let strict = EnrollToken { approval_required: true, ..Default::default() };
    let (strict, open) = (admin.enrollment_string(strict).await, string(&server).await);
    let key = TestKey::generate();
    let waiting = enroll(&server, enroll_request(&strict, &key), &key).await.expect("a machine enrols");
    let again = enroll(&server, enroll_request(&open, &key), &key).await.expect("it asks again");
    assert_eq!((again.id(), again.state()), (waiting.id(), EnrollmentState::Pending));
    assert_refused(&again.check_in().await.expect_err("it waits"), Code::PermissionDenied, "DEVICE_PENDING");

    let request = DecommissionDeviceRequest { name: waiting.name() };
    admin.devices().decommission_device(request).await.expect("an operator sends it away");
    for string in [&strict, &open] {
        let refusal = enroll(&server, enroll_request(string, &key), &key).await.expect_err("it was sent away");
        assert_refused(&refusal, Code::PermissionDenied, "DEVICE_DECOMMISSIONED");
    }
}
