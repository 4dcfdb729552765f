//! What a client believes, shows and says, against real TLS servers with certificates made here.

#![expect(clippy::unwrap_used, reason = "a test ends at what it did not expect")]

use std::error::Error as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ota_tls::{
    CertificateDer, ConnectError, Connector, Identity, IdentitySlot, PrivatePkcs8KeyDer, SeenCertificates, ServerTrust,
    TimeProvider, UnixTime, parse_certificates, write_certificate,
};
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tonic::transport::Server;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

/// A moment in 2030, and the ends of the certificates around it.
const NOW: u64 = 1_900_000_000;
const DAY: u64 = 24 * 3600;

#[derive(Debug)]
struct At(u64);

impl TimeProvider for At {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs(self.0)))
    }
}

struct Authority {
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

fn days(params: &mut CertificateParams, from: u64, to: u64) {
    let time = |seconds: u64| std::time::UNIX_EPOCH + Duration::from_secs(seconds);
    params.not_before = time(from).into();
    params.not_after = time(to).into();
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        days(&mut params, NOW - 30 * DAY, NOW + 3650 * DAY);
        let certificate = params.self_signed(&key).unwrap().der().clone();
        Self { certificate, issuer: Issuer::new(params, key) }
    }

    fn sign(&self, names: &[&str], usages: &[ExtendedKeyUsagePurpose], from: u64, to: u64) -> Leaf {
        let key = KeyPair::generate().unwrap();
        let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.extended_key_usages = usages.to_vec();
        days(&mut params, from, to);
        let certificate = params.signed_by(&key, &self.issuer).unwrap().der().clone();
        Leaf { certificate, key: key.serialize_der().into() }
    }

    fn server(&self, name: &str) -> Leaf {
        self.sign(&[name], &[ExtendedKeyUsagePurpose::ServerAuth], NOW - DAY, NOW + 30 * DAY)
    }

    fn device(&self) -> Leaf {
        self.sign(&[], &[ExtendedKeyUsagePurpose::ClientAuth], NOW - DAY, NOW + 7 * DAY)
    }

    fn trust(&self) -> ServerTrust {
        ServerTrust::Authority(self.certificate.clone())
    }
}

struct Leaf {
    certificate: CertificateDer<'static>,
    key: PrivatePkcs8KeyDer<'static>,
}

impl Leaf {
    fn identity(&self) -> Identity {
        Identity::new(vec![self.certificate.clone()], self.key.clone_key()).unwrap()
    }
}

/// Asks for a client certificate, takes any and writes down what it saw.
#[derive(Debug, Clone, Default)]
struct Visitors(Arc<Mutex<Vec<CertificateDer<'static>>>>);

impl ClientCertVerifier for Visitors {
    fn root_hint_subjects(&self) -> &[rustls::DistinguishedName] {
        &[]
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.0.lock().unwrap().push(certificate.clone().into_owned());
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        let algorithms = rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, &algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        let algorithms = rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

/// A gRPC server behind TLS that lives as long as this.
struct Running {
    address: SocketAddr,
    visitors: Visitors,
    _tasks: JoinSet<()>,
}

async fn serve(leaf: &Leaf, protocol: &[u8]) -> Running {
    let visitors = Visitors::default();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(Arc::new(visitors.clone()))
        .with_single_cert(vec![leaf.certificate.clone()], leaf.key.clone_key().into())
        .unwrap();
    config.alpn_protocols = vec![protocol.to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, accepted) = tokio::sync::mpsc::channel(8);
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            if let Ok(stream) = acceptor.accept(stream).await {
                sender.send(Ok::<_, std::io::Error>(stream)).await.unwrap();
            }
        }
    });
    let (_, health) = tonic_health::server::health_reporter();
    let incoming = tokio_stream::wrappers::ReceiverStream::new(accepted);
    tasks.spawn(async move { Server::builder().add_service(health).serve_with_incoming(incoming).await.unwrap() });
    Running { address, visitors, _tasks: tasks }
}

/// A gRPC server without TLS.
async fn serve_plain() -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (_, health) = tonic_health::server::health_reporter();
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { Server::builder().add_service(health).serve_with_incoming(incoming).await.unwrap() });
    Running { address, visitors: Visitors::default(), _tasks: tasks }
}

async fn call(connector: &Connector) -> Result<(), ConnectError> {
    let channel = connector.channel(&connector.endpoint());
    match HealthClient::new(channel).check(HealthCheckRequest { service: String::new() }).await {
        Ok(_) => Ok(()),
        Err(status) => Err(ConnectError::find(&status).unwrap_or_else(|| {
            let mut text = format!("{status}");
            let mut next = status.source();
            while let Some(error) = next {
                text = format!("{text}: {error}");
                next = error.source();
            }
            panic!("no words for {text}")
        })),
    }
}

async fn ask(server: &Running, trust: ServerTrust, identity: IdentitySlot) -> Result<(), ConnectError> {
    ask_at(NOW, &format!("https://{}", server.address), trust, identity).await
}

async fn ask_at(now: u64, address: &str, trust: ServerTrust, identity: IdentitySlot) -> Result<(), ConnectError> {
    call(&Connector::tls(&address.parse().unwrap(), trust, identity, Arc::new(At(now))).unwrap()).await
}

#[tokio::test]
async fn a_server_of_the_authority_is_believed_under_any_name() {
    let authority = Authority::new();
    let server = serve(&authority.server("replica-7.internal"), b"h2").await;
    assert_eq!(ask(&server, authority.trust(), IdentitySlot::default()).await, Ok(()));
    let by_name = format!("https://localhost:{}", server.address.port());
    assert_eq!(ask_at(NOW, &by_name, authority.trust(), IdentitySlot::default()).await, Ok(()));
}

#[tokio::test]
async fn a_server_of_another_authority_is_not_believed() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let server = serve(&theirs.server("127.0.0.1"), b"h2").await;
    let nobody = IdentitySlot::default;
    assert_eq!(ask(&server, ours.trust(), nobody()).await, Err(ConnectError::WrongAuthority));
    let roots = ServerTrust::Roots(vec![ours.certificate.clone()]);
    assert_eq!(ask(&server, roots, nobody()).await, Err(ConnectError::WrongAuthority));
}

#[tokio::test]
async fn a_self_signed_certificate_is_not_believed() {
    let ours = Authority::new();
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let certificate = params.self_signed(&key).unwrap().der().clone();
    let server = serve(&Leaf { certificate, key: key.serialize_der().into() }, b"h2").await;
    assert_eq!(ask(&server, ours.trust(), IdentitySlot::default()).await, Err(ConnectError::WrongAuthority));
}

#[tokio::test]
async fn a_device_cannot_pose_as_the_server() {
    let authority = Authority::new();
    let bare = authority.sign(&["127.0.0.1"], &[], NOW - DAY, NOW + DAY);
    for leaf in [authority.device(), bare] {
        let server = serve(&leaf, b"h2").await;
        assert_eq!(ask(&server, authority.trust(), IdentitySlot::default()).await, Err(ConnectError::WrongPurpose));
    }
}

#[tokio::test]
async fn the_time_that_is_passed_in_decides_over_validity() {
    let authority = Authority::new();
    let server = serve(&authority.server("127.0.0.1"), b"h2").await;
    let address = format!("https://{}", server.address);
    let nobody = IdentitySlot::default;
    let later = ask_at(NOW + 31 * DAY, &address, authority.trust(), nobody()).await.unwrap_err();
    assert!(matches!(later, ConnectError::Expired { .. }), "{later:?}");
    assert_eq!(
        later.to_string(),
        "the server's certificate expired at 2030-04-16 17:46:40 UTC; it is 2030-04-17 17:46:40 UTC here"
    );
    let roots = ServerTrust::Roots(vec![authority.certificate.clone()]);
    let later = ask_at(NOW + 31 * DAY, &address, roots.clone(), nobody()).await.unwrap_err();
    assert!(matches!(later, ConnectError::Expired { .. }), "{later:?}");
    let long_ago = ask_at(0, &address, roots, nobody()).await.unwrap_err();
    assert!(matches!(long_ago, ConnectError::NotYetValid { .. }), "{long_ago:?}");
}

#[tokio::test]
async fn a_clock_that_starts_in_1970_locks_nobody_out() {
    let (authority, other) = (Authority::new(), Authority::new());
    let server = serve(&authority.server("127.0.0.1"), b"h2").await;
    let address = format!("https://{}", server.address);
    assert_eq!(ask_at(0, &address, authority.trust(), IdentitySlot::default()).await, Ok(()));
    let error = ask_at(0, &address, other.trust(), IdentitySlot::default()).await;
    assert_eq!(error, Err(ConnectError::WrongAuthority));
}

#[tokio::test]
async fn roots_from_a_file_check_the_name_too() {
    let authority = Authority::new();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ca.pem");
    std::fs::write(&path, write_certificate(&authority.certificate)).unwrap();
    let roots = || ServerTrust::Roots(ota_tls::certificates(&path).unwrap());
    let server = serve(&authority.server("localhost"), b"h2").await;
    let by_name = format!("https://localhost:{}", server.address.port());
    assert_eq!(ask_at(NOW, &by_name, roots(), IdentitySlot::default()).await, Ok(()));
    let error = ask(&server, roots(), IdentitySlot::default()).await.unwrap_err();
    assert_eq!(error.to_string(), "the server's certificate is for localhost, not for 127.0.0.1");
}

#[tokio::test]
async fn pinning_believes_anything_and_tells_what_it_saw() {
    let authority = Authority::new();
    let leaf = authority.sign(&["elsewhere"], &[], NOW - 2 * DAY, NOW - DAY);
    let server = serve(&leaf, b"h2").await;
    let seen = SeenCertificates::default();
    assert_eq!(ask(&server, ServerTrust::Pinning(seen.clone()), IdentitySlot::default()).await, Ok(()));
    assert_eq!(seen.chain(), [leaf.certificate]);
}

#[tokio::test]
async fn the_next_connection_shows_the_identity_that_was_set_last() {
    let authority = Authority::new();
    let server = serve(&authority.server("127.0.0.1"), b"h2").await;
    let (first, second) = (authority.device(), authority.device());
    let slot = IdentitySlot::default();
    let address = format!("https://{}", server.address).parse().unwrap();
    let connector = Connector::tls(&address, authority.trust(), slot.clone(), Arc::new(At(NOW))).unwrap();
    assert_eq!(call(&connector).await, Ok(()));
    assert!(server.visitors.0.lock().unwrap().is_empty());
    slot.set(first.identity());
    assert_eq!(call(&connector).await, Ok(()));
    slot.set(second.identity());
    assert_eq!(call(&connector).await, Ok(()));
    assert_eq!(*server.visitors.0.lock().unwrap(), [first.certificate, second.certificate]);
}

#[test]
fn a_key_that_belongs_to_another_certificate_is_refused() {
    let authority = Authority::new();
    let (one, other) = (authority.device(), authority.device());
    assert!(Identity::new(vec![one.certificate.clone()], other.key.clone_key()).is_err());
    assert!(Identity::new(vec![], one.key.clone_key()).is_err());
    assert_eq!(format!("{:?}", one.identity()), "Identity(..)");
}

#[tokio::test]
async fn a_plain_server_is_told_from_one_with_tls() {
    let authority = Authority::new();
    let plain = serve_plain().await;
    assert_eq!(ask(&plain, authority.trust(), IdentitySlot::default()).await, Err(ConnectError::NotTls));
}

#[tokio::test]
async fn plain_text_to_a_plain_server_works() {
    let plain = serve_plain().await;
    let address = format!("http://{}", plain.address).parse().unwrap();
    assert_eq!(call(&Connector::plain(&address).unwrap()).await, Ok(()));
}

#[tokio::test]
async fn a_server_without_http2_is_told() {
    let authority = Authority::new();
    let server = serve(&authority.server("127.0.0.1"), b"http/1.1").await;
    assert_eq!(ask(&server, authority.trust(), IdentitySlot::default()).await, Err(ConnectError::NotHttp2));
}

#[tokio::test]
async fn a_connection_that_is_closed_instead_of_an_answer_is_told() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("https://{}", listener.local_addr().unwrap());
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let mut greeting = [0; 5];
            tokio::io::AsyncReadExt::read_exact(&mut { stream }, &mut greeting).await.unwrap();
        }
    });
    let error = ask_at(NOW, &address, Authority::new().trust(), IdentitySlot::default()).await.unwrap_err();
    let is_told = matches!(error, ConnectError::Closed | ConnectError::Handshake { .. });
    assert!(is_told, "{error:?}");
}

#[test]
fn what_is_no_certificate_is_no_authority() {
    let address = "https://localhost".parse().unwrap();
    let junk = CertificateDer::from(vec![1, 2, 3]);
    for trust in [ServerTrust::Authority(junk.clone()), ServerTrust::Roots(vec![junk]), ServerTrust::Roots(vec![])] {
        assert!(Connector::tls(&address, trust, IdentitySlot::default(), Arc::new(At(NOW))).is_err());
    }
    assert!(parse_certificates(b"-----BEGIN CERTIFICATE-----\n").is_err());
    assert!(parse_certificates(b"").is_err());
}

#[test]
fn a_certificate_is_read_back_from_its_pem() {
    let certificate = Authority::new().certificate;
    let text = write_certificate(&certificate);
    assert!(text.lines().all(|line| line.len() <= 64));
    assert_eq!(parse_certificates(text.as_bytes()).unwrap(), [certificate]);
}
