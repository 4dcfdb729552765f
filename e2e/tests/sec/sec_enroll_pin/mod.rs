//! Somebody between a new machine and its server, with another authority: the enrolment string's secret is never said to
//! them, not even behind TLS that they end themselves.

mod liar;
mod recorder;

use std::fs;

use ota_domain::secret::EnrollmentString;
use ota_e2e::{Operator, TestServer, binaries::run, process::AgentProcess};
use ota_proto::{
    admin::v1::{EnrollToken, ListDevicesRequest},
    device::v1::{GetTrustAnchorsRequest, GetTrustAnchorsResponse, enrollment_service_client::EnrollmentServiceClient},
};
use tokio::process::Command;

use liar::Liar;
use recorder::{ForeignAuthority, Recorder};

/// What the true server says of itself, to everybody.
async fn anchors(server: &TestServer, string: &EnrollmentString) -> GetTrustAnchorsResponse {
    let request = GetTrustAnchorsRequest { token_id: string.token_id() };
    let mut client = EnrollmentServiceClient::new(server.channel());
    client.get_trust_anchors(request).await.expect("anybody may ask").into_inner()
}

async fn new_string(server: &TestServer) -> String {
    server.admin().enrollment_string(EnrollToken::default()).await
}

fn parsed(string: &str) -> EnrollmentString {
    string.parse().expect("an enrolment string")
}

async fn device_count(admin: &Operator) -> usize {
    let listed = admin.devices().list_devices(ListDevicesRequest::default()).await.expect("anybody lists devices");
    listed.into_inner().devices.len()
}

/// Enrols with the real program. Returns whether it got in and what it said of it.
async fn enroll(agent: &AgentProcess, url: &str, string: &str, arguments: &[&str]) -> (bool, String) {
    let mut command = Command::from(agent.command("enroll"));
    let output = run(command.args(["--server", url, string]).args(arguments)).await;
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
}

fn contains(heard: &[u8], part: &[u8]) -> bool {
    heard.windows(part.len()).any(|window| window == part)
}

/// Whether the secret was said, as text or as bytes, whole or nearly so.
fn heard_secret(heard: &[u8], string: &EnrollmentString) -> bool {
    let (text, bytes) = (string.secret(), string.secret.0);
    contains(heard, &text.as_bytes()[..text.len() / 2]) || contains(heard, &bytes[..bytes.len() / 2])
}

/// Lets a real agent enrol at an attacker, twice, and asserts that the attacker learns nothing and the machine keeps
/// nothing. Returns what the machine said of it.
async fn assert_secret_kept(server: &TestServer, recorder: &Recorder) -> String {
    let (string, before) = (new_string(server).await, device_count(&server.admin()).await);
    let agent = AgentProcess::unenrolled();
    let mut told = String::new();
    for _ in 0..2 {
        let (is_in, words) = enroll(&agent, &recorder.url(), &string, &[]).await;
        assert!(!is_in, "the machine enrolled at the attacker: {words}");
        told = words;
    }
    let heard = recorder.heard();
    assert!(!heard.is_empty(), "the machine said nothing at all");
    assert!(!heard_secret(&heard, &parsed(&string)), "the attacker heard the secret");
    assert_eq!(device_count(&server.admin()).await, before);
    assert!(!agent.once().await.status.success(), "the machine is nobody's device");
    // The string is as good as before, where it belongs.
    let (is_in, words) = enroll(&agent, &server.url(), &string, &[]).await;
    assert!(is_in, "{words}");
    told
}

// The server speaks plain text behind whoever stands in front, so that all can be written down.

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_down_would_hold_the_secret() {
    let server = TestServer::start().await;
    let authority = ForeignAuthority::new();
    let recorder = Recorder::start(Some(&authority), server.address()).await;
    let agent = AgentProcess::unenrolled();
    let ca_file = agent.data_dir().with_file_name("ca.pem");
    fs::write(&ca_file, &authority.pem).expect("a file in the scratch folder");
    // The machine's owner says that this authority is to be believed: a proxy of theirs.
    let arguments = ["--ca-file", ca_file.to_str().expect("a path")];
    let string = new_string(&server).await;
    let (is_in, words) = enroll(&agent, &recorder.url(), &string, &arguments).await;
    assert!(is_in, "{words}");
    assert!(heard_secret(&recorder.heard(), &parsed(&string)), "or the other tests prove nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_repeats_what_the_server_says_is_not_told_the_secret() {
    let server = TestServer::start().await;
    let recorder = Recorder::start(Some(&ForeignAuthority::new()), server.address()).await;
    let words = assert_secret_kept(&server, &recorder).await;
    assert!(words.contains("authority"), "{words}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_puts_in_their_own_authority_or_roots_is_not_told_the_secret() {
    let (server, other) = (TestServer::start().await, TestServer::start().await);
    let authority = ForeignAuthority::new();
    let string = parsed(&new_string(&server).await);
    let (honest, theirs) = (anchors(&server, &string).await, anchors(&other, &string).await);
    let lies = [
        GetTrustAnchorsResponse { certificate_authority: authority.certificate.to_vec().into(), ..honest.clone() },
        GetTrustAnchorsResponse { image_root: theirs.image_root.clone(), ..honest.clone() },
        GetTrustAnchorsResponse { director_root: theirs.director_root, ..honest.clone() },
        GetTrustAnchorsResponse {
            image_root: honest.director_root.clone(),
            director_root: honest.image_root.clone(),
            ..honest
        },
        GetTrustAnchorsResponse::default(),
    ];
    for lie in lies {
        let liar = Liar::start(lie).await;
        let recorder = Recorder::start(Some(&authority), liar.address).await;
        assert_secret_kept(&server, &recorder).await;
        assert!(liar.enrollments().is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_takes_the_encryption_away_is_not_told_the_secret() {
    let server = TestServer::start().await;
    let recorder = Recorder::start(None, server.address()).await;
    assert_secret_kept(&server, &recorder).await;
}
