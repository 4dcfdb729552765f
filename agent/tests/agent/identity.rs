//! How a machine becomes a device and stays one.

use std::path::Path;
use std::sync::Arc;

use chrono::{TimeDelta, Utc};
use ota_agent::clock::Clock;
use ota_agent::config::Config;
use ota_agent::data_dir::DataDir;
use ota_agent::enroll::{Error, Machine, enroll};
use ota_agent::identity::{Certificate, DeviceKey, Enrollment};
use ota_agent::renewal::Renewal;
use ota_agent::server_url::ServerUrl;
use ota_agent::status::Status;
use ota_agent::{client, failure};
use ota_domain::EnrollTokenId;
use ota_domain::secret::{EnrollmentString, Secret};
use ota_proto::device::v1::ErrorReason;
use ota_tls::ConnectError;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::device::Device;
use crate::gate::DEVICE;
use crate::peer::Peer;

async fn enroll_at(data: &Path, url: &ServerUrl, string: &EnrollmentString) -> Result<Enrollment, Error> {
    enroll_with(data, url, string, &Config::default()).await
}

async fn enroll_with(
    data: &Path,
    url: &ServerUrl,
    string: &EnrollmentString,
    config: &Config,
) -> Result<Enrollment, Error> {
    let data = DataDir::open(data).unwrap();
    let machine = Machine { hardware: "rpi4".parse().unwrap(), hardware_id: "board-7".to_owned() };
    enroll(&data, url.clone(), config, string, machine, &Clock::system()).await
}

fn scheme(url: &ServerUrl, scheme: &str) -> ServerUrl {
    let (_, rest) = url.to_string().split_once("://").map(|(old, rest)| (old.to_owned(), rest.to_owned())).unwrap();
    format!("{scheme}://{rest}").parse().unwrap()
}

/// The error of a connection, wherever it is in the chain.
fn connect_error(error: &Error) -> ConnectError {
    let Error::Client { source: client::Error::Connect(error), .. } = error else {
        panic!("{}", failure::chain(error));
    };
    error.clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_becomes_a_device_whose_identity_is_shown() {
    let peer = Peer::start_tls().await;
    let data = tempfile::tempdir().unwrap();
    let string = peer.script().gate.string();
    let enrollment = enroll_at(data.path(), &peer.url, &string).await.unwrap();
    assert_eq!((enrollment.device, enrollment.hardware.as_str()), (DEVICE, "rpi4"));
    let request = peer.script().gate.enrollments.remove(0);
    assert_eq!((request.token_id, request.secret), (string.token_id(), string.secret()));
    assert_eq!((request.hardware.as_str(), request.hardware_id.as_str()), ("rpi4", "board-7"));
    let status = Status::read(data.path()).unwrap();
    let key = DeviceKey::load(data.path()).unwrap().unwrap();
    assert_eq!(status.identity.as_ref().unwrap().key_sha256, Some(key.sha256()));
    let text = status.to_string();
    let end = Certificate::load(data.path()).unwrap().unwrap().not_after;
    assert!(text.contains(&format!("certificate until {end}")) && text.contains("authority"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_the_pin_does_not_fit_is_not_told_the_secret() {
    let peer = Peer::start_tls().await;
    let data = tempfile::tempdir().unwrap();
    let string = peer.script().gate.string();
    peer.script().gate.image_root = b"another root".to_vec();
    let error = enroll_at(data.path(), &peer.url, &string).await.unwrap_err();
    assert!(matches!(error, Error::WrongPin { .. }), "{}", failure::chain(&error));
    assert!(peer.script().gate.enrollments.is_empty());
    assert!(Enrollment::load(data.path()).unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_repeats_what_the_true_one_says_is_not_told_the_secret() {
    let (honest, liar) = (Peer::start_tls().await, Peer::start_tls().await);
    let data = tempfile::tempdir().unwrap();
    let string = honest.script().gate.string();
    liar.script().gate.pretend_to_be(&honest.script().gate);
    let error = enroll_at(data.path(), &liar.url, &string).await.unwrap_err();
    assert_eq!(connect_error(&error), ConnectError::WrongAuthority);
    assert!(liar.script().gate.enrollments.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_enrolment_whose_answer_got_lost_is_repeated_with_the_same_key() {
    let peer = Peer::start_tls().await;
    let data = tempfile::tempdir().unwrap();
    let string = peer.script().gate.string();
    peer.script().gate.lost_answers = 2;
    for _ in 0..2 {
        enroll_at(data.path(), &peer.url, &string).await.unwrap_err();
        assert!(Enrollment::load(data.path()).unwrap().is_none());
    }
    for _ in 0..2 {
        enroll_at(data.path(), &peer.url, &string).await.unwrap();
    }
    let keys: Vec<_> = peer.script().gate.enrollments.iter().map(public_key).collect();
    assert_eq!(keys.len(), 4);
    assert!(keys.windows(2).all(|pair| pair[0] == pair[1]));
}

fn public_key(request: &ota_proto::device::v1::EnrollRequest) -> Vec<u8> {
    let der = request.certificate_request.to_vec().into();
    let request = rcgen::CertificateSigningRequestParams::from_der(&der).unwrap();
    rcgen::PublicKeyData::der_bytes(&request.public_key).to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_directory_keeps_its_device() {
    let peer = Peer::start_tls().await;
    let data = tempfile::tempdir().unwrap();
    let string = peer.script().gate.string();
    enroll_at(data.path(), &peer.url, &string).await.unwrap();
    let other = EnrollmentString { token: EnrollTokenId(Uuid::from_u128(9)), secret: Secret([9; 32]), ..string };
    let error = enroll_at(data.path(), &peer.url, &other).await.unwrap_err();
    assert!(matches!(error, Error::Taken { device: DEVICE }));
    assert_eq!(peer.script().gate.enrollments.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mixed_up_scheme_is_told() {
    let (tls, plain) = (Peer::start_tls().await, Peer::start().await);
    let data = tempfile::tempdir().unwrap();
    let string = tls.script().gate.string();
    let error = enroll_at(data.path(), &scheme(&tls.url, "http"), &string).await.unwrap_err();
    assert_eq!(connect_error(&error), ConnectError::OnlyTls);
    let error = enroll_at(data.path(), &scheme(&plain.url, "https"), &string).await.unwrap_err();
    assert_eq!(connect_error(&error), ConnectError::NotTls);
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_text_leaves_this_machine_only_when_somebody_said_so() {
    let data = tempfile::tempdir().unwrap();
    let string = Peer::start().await.script().gate.string();
    let url = "http://ota.invalid:1".parse().unwrap();
    let error = enroll_at(data.path(), &url, &string).await.unwrap_err();
    assert!(matches!(error, Error::Insecure { .. }));
    let config = Config { insecure: true, ..Config::default() };
    let error = enroll_with(data.path(), &url, &string, &config).await.unwrap_err();
    assert!(matches!(error, Error::Client { source: client::Error::Unreachable { .. }, .. }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_with_a_certificate_of_another_authority_needs_that_authority() {
    let (peer, other) = (Peer::start_tls().await, Peer::start_tls().await);
    // A proxy with its own certificate, in front of the server that the string is for.
    let string = other.script().gate.string();
    let pem = peer.script().gate.pem();
    peer.script().gate.pretend_to_be(&other.script().gate);
    let data = tempfile::tempdir().unwrap();
    let ca_file = data.path().join("ca.pem");
    std::fs::write(&ca_file, pem).unwrap();
    let config = Config { ca_file: Some(ca_file.clone()), ..Config::default() };
    let enrollment = enroll_with(data.path(), &peer.url, &string, &config).await.unwrap();
    assert_eq!(enrollment.ca_file, Some(ca_file));
    let device = Device::in_folder(data);
    device.round().await;
    assert_eq!(peer.check_ins().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_certificate_is_renewed_and_the_call_made_again() {
    let peer = Peer::start_tls().await;
    peer.script().gate.lifetime = TimeDelta::seconds(-60);
    let device = Device::enrolled(&peer).await;
    peer.script().gate.lifetime = TimeDelta::days(7);
    device.round().await;
    assert_eq!((peer.check_ins().len(), peer.script().gate.renewals), (1, 1));
    device.round().await;
    assert_eq!(peer.script().gate.renewals, 1, "the renewed certificate was kept");
    assert_eq!(peer.script().gate.sessions, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_a_proxy_that_ends_tls_the_device_works_by_session() {
    let peer = Peer::start_tls().await;
    let device = Device::enrolled(&peer).await;
    peer.script().gate.is_behind_proxy = true;
    let agent = device.agent(&CancellationToken::new());
    let mut agent = agent;
    for _ in 0..3 {
        agent.check_in().await.unwrap();
    }
    assert_eq!(peer.script().gate.sessions, 1, "one session serves all calls");
    peer.script().gate.forget_sessions();
    agent.check_in().await.unwrap();
    assert_eq!(peer.check_ins().len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_certificate_is_renewed_by_session_too() {
    let peer = Peer::start_tls().await;
    peer.script().gate.lifetime = TimeDelta::seconds(-60);
    let device = Device::enrolled(&peer).await;
    {
        let gate = &mut peer.script().gate;
        (gate.is_behind_proxy, gate.lifetime) = (true, TimeDelta::days(7));
    }
    device.agent(&CancellationToken::new()).renew_if_due().await;
    let kept = Certificate::load(&device.config.data_dir).unwrap().unwrap();
    assert!(kept.not_after > Utc::now());
    let gate = &peer.script().gate;
    assert_eq!((gate.renewals, gate.sessions), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_the_server_does_not_know_is_told_so() {
    let peer = Peer::start_tls().await;
    let device = Device::enrolled(&peer).await;
    peer.script().gate = Default::default();
    peer.script().gate.is_behind_proxy = true;
    let error = device.agent(&CancellationToken::new()).check_in().await.unwrap_err();
    let ota_agent::agent::Error::CheckIn { source, .. } = error else { panic!("{error}") };
    assert_eq!(source.reason(), Some(ErrorReason::CredentialInvalid));
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_renewed_in_time_beside_the_work() {
    let peer = Peer::start_tls().await;
    peer.script().gate.lifetime = TimeDelta::seconds(3);
    let device = Device::enrolled(&peer).await;
    let agent = device.agent(&CancellationToken::new());
    let _renewal = Renewal::start(Arc::clone(agent.access()), CancellationToken::new());
    while peer.script().gate.renewals < 2 {
        tokio::task::yield_now().await;
        let kept = Certificate::load(&device.config.data_dir).unwrap().unwrap();
        assert!(kept.not_after >= Utc::now() - TimeDelta::seconds(1), "renewed before its end");
    }
}
