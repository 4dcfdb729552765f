//! TLS on the port, and devices that are known by their certificates.

use std::{fs, net::SocketAddr, sync::Arc, time::Duration};

use chrono::{TimeDelta, Utc};
use ota_domain::DeviceId;
use ota_e2e::{
    Options, TestDevice, TestKey, TestServer, assert_refused,
    credential::{connect, connect_as},
    eventually,
    operator::unique_payload,
};
use ota_proto::{
    admin::v1::{DecommissionDeviceRequest, GetStatusRequest},
    device::v1::{
        DownloadRequest, EncodingKind, GetTrustAnchorsRequest, enrollment_service_client::EnrollmentServiceClient,
    },
};
use ota_server::{
    ca::{Authority, authority_certificate},
    tls,
};
use ota_tls::{CertificateDer, ServerTrust};
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{ServerConfig, crypto::aws_lc_rs::default_provider, pki_types::PrivatePkcs8KeyDer},
};
use tonic::{Code, Status};

const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);
/// How soon a device that was taken out has to be out everywhere.
const SOON: Duration = Duration::from_secs(5);
/// How long a broken test takes to fail.
const PATIENCE: Duration = Duration::from_secs(30);

async fn encrypted() -> TestServer {
    TestServer::with(Options::encrypted()).await
}

pub(super) fn id(device: &TestDevice) -> DeviceId {
    device.id().parse().unwrap()
}

/// A certificate that the server's authority signed some days ago.
pub(super) fn issued(server: &TestServer, device: DeviceId, key: &TestKey, days_ago: i64) -> bytes::Bytes {
    let then = Utc::now() - TimeDelta::days(days_ago);
    let authority = server.app().keys.authority();
    let issued = authority.device_certificate(device, &key.public(), rand::random(), then, WEEK).unwrap();
    bytes::Bytes::copy_from_slice(&issued.certificate)
}

pub(super) fn other_authority() -> Authority {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let certificate = authority_certificate(&key, rand::random(), Utc::now()).unwrap();
    Authority::open(certificate, &key.serialize_der().into()).unwrap()
}

#[tokio::test]
async fn a_device_calls_with_its_certificate_and_operators_see_that_all_is_encrypted() {
    let server = encrypted().await;
    let admin = server.admin();
    let device = admin.enroll().await.certified(&server.url());
    device.check_in().await.unwrap();
    let release = admin.publish("app", "1.0.0", &unique_payload(300_000)).await;
    admin.assign(&release, &[&device]).await;
    let deployment = device.granted().await;
    device.complete(&deployment).await;
    let status = admin.status().get_status(GetStatusRequest {}).await.unwrap().into_inner();
    assert!(status.tls);
    assert!(!status.warnings.iter().any(|warning| warning.contains("encrypted")), "{:?}", status.warnings);
}

#[tokio::test]
async fn every_replica_is_believed_by_the_authority_alone() {
    let server = encrypted().await;
    let replica = server.replica().await;
    let ask = async |url: String, authority: &CertificateDer<'static>| {
        let channel = connect_as(&url, ServerTrust::Authority(authority.clone()), None);
        let request = GetTrustAnchorsRequest { token_id: "0".repeat(32) };
        EnrollmentServiceClient::new(channel).get_trust_anchors(request).await.map(|_| ())
    };
    let ours = server.app().keys.authority().certificate();
    ask(server.url(), ours).await.unwrap();
    ask(replica.url(), ours).await.unwrap();
    assert_eq!(ask(server.url(), other_authority().certificate()).await.unwrap_err().code(), Code::Unavailable);
    let left = fs::read(server.data_dir().join("ca.pem")).unwrap();
    assert_eq!(ota_tls::parse_certificates(&left).unwrap(), std::slice::from_ref(ours));
}

#[tokio::test]
async fn a_certificate_for_a_key_that_the_device_did_not_enrol_is_refused() {
    let server = encrypted().await;
    let (device, other) = (server.admin().enroll().await, server.admin().enroll().await);
    let forged = other.showing(&server.url(), issued(&server, id(&device), other.key(), 0));
    assert_refused(&forged.check_in().await.unwrap_err(), Code::Unauthenticated, "CREDENTIAL_INVALID");
    let unknown = other.showing(&server.url(), issued(&server, DeviceId(uuid::Uuid::now_v7()), other.key(), 0));
    assert_refused(&unknown.check_in().await.unwrap_err(), Code::Unauthenticated, "CREDENTIAL_INVALID");
}

#[tokio::test]
async fn an_expired_certificate_can_only_renew() {
    let server = encrypted().await;
    let device = server.admin().enroll().await;
    let late = device.showing(&server.url(), issued(&server, id(&device), device.key(), 400));
    assert_refused(&late.check_in().await.unwrap_err(), Code::Unauthenticated, "CERTIFICATE_EXPIRED");
    assert_refused(&late.watch().await.unwrap_err(), Code::Unauthenticated, "CERTIFICATE_EXPIRED");
    let fresh = late.renew(device.key().request()).await.unwrap();
    device.showing(&server.url(), fresh).check_in().await.unwrap();
    let request = DecommissionDeviceRequest { name: device.name() };
    server.admin().devices().decommission_device(request).await.unwrap();
    let refusal = late.renew(device.key().request()).await.unwrap_err();
    assert_refused(&refusal, Code::PermissionDenied, "DEVICE_DECOMMISSIONED");
}

#[tokio::test]
async fn a_certificate_of_another_authority_is_told_so() {
    let server = encrypted().await;
    let device = server.admin().enroll().await;
    let foreign = other_authority()
        .device_certificate(id(&device), &device.key().public(), rand::random(), Utc::now(), WEEK)
        .unwrap();
    let stranger = device.showing(&server.url(), foreign.certificate.to_vec().into());
    for refusal in [stranger.check_in().await.unwrap_err(), stranger.renew(device.key().request()).await.unwrap_err()] {
        assert_refused(&refusal, Code::Unauthenticated, "CERTIFICATE_INVALID");
    }
}

#[tokio::test]
async fn who_shows_nothing_is_asked_for_something() {
    let server = encrypted().await;
    let device = server.admin().enroll().await;
    let refusal = device.anonymous().check_in().await.unwrap_err();
    assert_refused(&refusal, Code::Unauthenticated, "CREDENTIAL_MISSING");
}

#[tokio::test]
async fn a_device_that_is_taken_out_is_out_at_every_replica_with_its_open_streams() {
    let server = encrypted().await;
    let replica = server.replica().await;
    let admin = server.admin();
    let device = admin.enroll().await.certified(&replica.url());
    let bytes = unique_payload(32 << 20);
    let release = admin.publish("app", "1.0.0", &bytes).await;
    admin.assign(&release, &[&device]).await;
    let deployment = device.granted().await;
    let mut bell = device.watch().await.unwrap();
    bell.message().await.unwrap().expect("there is work");
    let request = DownloadRequest {
        sha256: ota_e2e::device::payload(&deployment).sha256,
        encoding: EncodingKind::Identity.into(),
        ..Default::default()
    };
    let mut download = device.updates().download(request).await.unwrap().into_inner();
    download.message().await.unwrap().expect("a piece");

    let name = device.name();
    admin.devices().decommission_device(DecommissionDeviceRequest { name }).await.unwrap();
    let ends = async {
        let rung: Status = loop {
            if let Err(status) = bell.message().await {
                break status;
            }
        };
        assert_refused(&rung, Code::PermissionDenied, "DEVICE_DECOMMISSIONED");
        let mut received = 0;
        let broken: Status = loop {
            match download.message().await {
                Ok(Some(piece)) => received += piece.data.len(),
                Ok(None) => panic!("the download went on to its end"),
                Err(status) => break status,
            }
        };
        assert_refused(&broken, Code::PermissionDenied, "DEVICE_DECOMMISSIONED");
        assert!(received < bytes.len() / 2, "{received} bytes came");
        assert_refused(&device.check_in().await.unwrap_err(), Code::PermissionDenied, "DEVICE_DECOMMISSIONED");
    };
    tokio::time::timeout(SOON, ends).await.expect("the device is out soon");
}

/// Writes a self-signed certificate and its key, as an operator brings them.
fn write_own(folder: &TempDir) -> CertificateDer<'static> {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().self_signed(&key).unwrap();
    fs::write(folder.path().join("cert.pem"), certificate.pem()).unwrap();
    fs::write(folder.path().join("key.pem"), key.serialize_pem()).unwrap();
    certificate.der().clone()
}

#[tokio::test]
async fn own_certificate_files_are_shown_and_read_again_without_a_restart() {
    let folder = TempDir::new().unwrap();
    let path = |name| Some(folder.path().join(name));
    let first = write_own(&folder);
    let tls = tls::Options { tls_cert: path("cert.pem"), tls_key: path("key.pem"), ..Default::default() };
    let server = TestServer::with(Options { tls, ..Options::default() }).await;
    let device = server.admin().enroll().await.certified(&server.url());
    device.check_in().await.unwrap();
    let believes = async |certificate: &CertificateDer<'static>| {
        let channel = connect_as(&server.url(), ServerTrust::Roots(vec![certificate.clone()]), None);
        let request = GetTrustAnchorsRequest { token_id: "0".repeat(32) };
        EnrollmentServiceClient::new(channel).get_trust_anchors(request).await.is_ok()
    };
    assert!(believes(&first).await);
    let second = write_own(&folder);
    eventually("the new certificate is shown", PATIENCE, async || believes(&second).await.then_some(())).await;
    assert!(!believes(&first).await);
    device.check_in().await.unwrap();
}

#[tokio::test]
async fn plain_http_to_the_encrypted_port_is_told_what_is_wrong() {
    let server = encrypted().await;
    let plain = connect(&format!("http://{}", server.address()));
    let request = GetTrustAnchorsRequest { token_id: "0".repeat(32) };
    let refusal = EnrollmentServiceClient::new(plain).get_trust_anchors(request).await.unwrap_err();
    assert_eq!(refusal.code(), Code::FailedPrecondition);
    assert!(refusal.message().contains("https://"), "{refusal:?}");

    let mut browser = TcpStream::connect(server.address()).await.unwrap();
    browser.write_all(b"GET / HTTP/1.1\r\nhost: ota\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    browser.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("https://"), "{answer}");
}

#[tokio::test]
async fn who_never_finishes_a_handshake_holds_nobody_up() {
    let server = encrypted().await;
    let mut silent = Vec::new();
    for _ in 0..50 {
        let mut stream = TcpStream::connect(server.address()).await.unwrap();
        // The beginning of a handshake that does not go on.
        stream.write_all(&[22, 3, 1]).await.unwrap();
        silent.push(stream);
    }
    server.admin().enroll().await.certified(&server.url()).check_in().await.unwrap();
    // Each is closed without having said anything.
    let end = async { silent[0].read(&mut [0]).await };
    assert!(matches!(tokio::time::timeout(PATIENCE, end).await.expect("a limit"), Ok(0) | Err(_)));
}

#[tokio::test]
async fn an_old_connection_ends_its_streams_and_calls_go_on_over_another() {
    let options = Options { max_connection_age: Duration::from_secs(1), ..Options::encrypted() };
    let server = TestServer::with(options).await;
    let device = server.admin().enroll().await.certified(&server.url());
    let mut bell = device.watch().await.unwrap();
    let ended = tokio::time::timeout(PATIENCE, bell.message()).await.expect("the stream ends").unwrap_err();
    assert_refused(&ended, Code::Unavailable, "SHUTTING_DOWN");
    device.check_in().await.unwrap();
    device.watch().await.unwrap();
}

/// Ends TLS with a certificate of its own and passes on what is inside, as a load balancer does.
async fn terminator(server: SocketAddr) -> (String, JoinSet<()>) {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
    let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], PrivatePkcs8KeyDer::from(key.serialize_der()).into())
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((client, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            connections.spawn(async move {
                let mut client = acceptor.accept(client).await.unwrap();
                let mut server = TcpStream::connect(server).await.unwrap();
                copy_bidirectional(&mut client, &mut server).await.ok();
            });
        }
    });
    (url, tasks)
}

#[tokio::test]
async fn behind_a_proxy_that_ends_tls_devices_call_with_sessions() {
    let server = TestServer::start().await;
    let (url, _proxy) = terminator(server.address()).await;
    let device = server.admin().enroll().await;
    let refusal = device.certified(&url).check_in().await.unwrap_err();
    assert_refused(&refusal, Code::Unauthenticated, "CREDENTIAL_MISSING");
    let bearer = ota_e2e::device::session(&connect(&url), device.id(), device.key()).await.unwrap();
    assert!(bearer.token().unwrap().starts_with("otas_"));
    let through = device.at(&url);
    through.check_in().await.unwrap();
    through.renew(device.key().request()).await.unwrap();
}
