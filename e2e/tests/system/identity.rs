//! How a machine becomes a device and stays one, with the real programs on both sides.

#![expect(clippy::unwrap_used, reason = "a test ends at what it did not expect")]

use std::{fs, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use ota_e2e::{
    binaries::run,
    eventually,
    process::{AgentProcess, Process, ServerProcess},
};
use ota_proto::admin::v1::{EnrollToken, ListDevicesRequest};
use rand::{RngExt as _, SeedableRng as _, rngs::SmallRng};
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, KeyPair};
use tokio::{io::copy_bidirectional, net::TcpListener, net::TcpStream, process::Command, task::JoinSet, time::sleep};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{ServerConfig, crypto::aws_lc_rs, pki_types::PrivatePkcs8KeyDer},
};

use crate::fleet::{PATIENCE, enroll};

/// A proxy that ends TLS with a certificate of its own and hands plain bytes on. Ends when dropped.
struct EndingProxy {
    address: SocketAddr,
    _tasks: JoinSet<()>,
}

impl EndingProxy {
    /// Starts one in front of `server`, and leaves its certificate in `ca_file`.
    async fn start(server: SocketAddr, ca_file: &Path) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let certificate = params.self_signed(&key).unwrap();
        fs::write(ca_file, certificate.pem()).unwrap();
        let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], PrivatePkcs8KeyDer::from(key.serialize_der()).into())
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                connections.spawn(async move {
                    // A client that goes away is no failure of the proxy's.
                    let Ok(mut outside) = acceptor.accept(stream).await else { return };
                    let Ok(mut inside) = TcpStream::connect(server).await else { return };
                    copy_bidirectional(&mut outside, &mut inside).await.ok();
                });
            }
        });
        Self { address, _tasks: tasks }
    }
}

fn certificate(agent: &AgentProcess) -> String {
    fs::read_to_string(agent.data_dir().join("identity/certificate.pem")).unwrap()
}

/// The last moment of a certificate.
fn end(certificate: &str) -> DateTime<Utc> {
    let (_, pem) = x509_parser::pem::parse_x509_pem(certificate.as_bytes()).unwrap();
    let not_after = pem.parse_x509().unwrap().validity().not_after.timestamp();
    DateTime::from_timestamp(not_after, 0).unwrap()
}

async fn devices(server: &ServerProcess) -> usize {
    let answer = server.admin().devices().list_devices(ListDevicesRequest::default()).await.unwrap();
    answer.into_inner().devices.len()
}

#[tokio::test]
async fn a_string_for_one_server_enrols_nothing_at_another() {
    let (right, wrong) = tokio::join!(ServerProcess::start(), ServerProcess::start());
    let string = right.admin().enrollment_string(EnrollToken::default()).await;
    let unborn = AgentProcess::unenrolled();
    let output = run(Command::from(unborn.command("enroll")).args(["--server", &wrong.url()]).arg(&string)).await;
    assert!(!output.status.success());
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(words.contains("is not the server that the enrolment string is for"), "{words}");
    assert_eq!(devices(&wrong).await, 0);
    // The string is as good as before, where it belongs.
    let output = run(Command::from(unborn.command("enroll")).args(["--server", &right.url()]).arg(&string)).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(devices(&right).await, 1);
}

#[tokio::test]
async fn an_enrolment_that_is_killed_again_and_again_makes_one_device() {
    let server = ServerProcess::start().await;
    let token = EnrollToken { max_uses: 1, ..EnrollToken::default() };
    let string = server.admin().enrollment_string(token).await;
    let agent = AgentProcess::unenrolled();
    let seed = rand::random();
    eprintln!("seed {seed}");
    let mut rng = SmallRng::seed_from_u64(seed);
    let log = server.scratch().join("enroll");
    for _ in 0..12 {
        let mut command = agent.command("enroll");
        let mut process = Process::start(command.args(["--server", &server.url(), &string]), &log, None);
        // The moment of the kill is what varies.
        sleep(Duration::from_millis(rng.random_range(0..150))).await;
        process.kill();
    }
    let output = run(Command::from(agent.command("enroll")).args(["--server", &server.url()]).arg(&string)).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(devices(&server).await, 1);
    assert!(agent.once().await.status.success());
}

#[tokio::test]
async fn an_agent_renews_its_certificate_in_time_and_whenever_it_is_killed() {
    let server = ServerProcess::start_with(&["--device-certificate-lifetime", "4s"]).await;
    let mut agent = enroll(&server, &server.url()).await;
    for _ in 0..4 {
        let before = certificate(&agent);
        agent.start();
        eventually("the certificate is renewed", PATIENCE, async || (certificate(&agent) != before).then_some(()))
            .await;
        agent.kill();
    }
    // Killed for longer than a certificate lives: the expired one is good for one thing.
    let before = certificate(&agent);
    eventually("the certificate has expired", PATIENCE, async || (end(&before) < Utc::now()).then_some(())).await;
    let output = agent.once().await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_ne!(certificate(&agent), before);
}

#[tokio::test]
async fn behind_a_proxy_that_ends_tls_an_agent_works_by_session() {
    let server = ServerProcess::plain().await;
    let ca_file = server.scratch().join("proxy.pem");
    let proxy = EndingProxy::start(server.address(), &ca_file).await;
    let url = format!("https://{}", proxy.address);
    let string = server.admin().enrollment_string(EnrollToken::default()).await;
    let agent = AgentProcess::unenrolled();
    let enroll = |arguments: &[&str]| {
        let mut command = Command::from(agent.command("enroll"));
        command.args(["--server", &url, &string]).args(arguments);
        command
    };
    let output = run(&mut enroll(&[])).await;
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(words.contains("signed by another authority") && words.contains("--ca-file"), "{words}");
    let output = run(&mut enroll(&["--ca-file", ca_file.to_str().unwrap()])).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let output = agent.once().await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
