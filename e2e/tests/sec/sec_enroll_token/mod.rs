//! Enrolment strings in the wrong hands: used too often, too late, by the wrong machine, or guessed.
//!
//! That one server keeps to a token's uses, end, revocation, hardware types and approval is proven call by call in
//! `api::enrollment`. Here real agents try it, at several replicas at once, and somebody guesses.

use std::{collections::BTreeSet, time::Duration};

use futures_util::future::join_all;
use ota_domain::secret::{EnrollmentString, Secret};
use ota_e2e::{
    Operator, Options, TestDevice, TestKey, TestServer, assert_refused, binaries::run, credential::connect,
    device::enroll_request, process::AgentProcess,
};
use ota_proto::{
    admin::v1::{
        ApproveDeviceRequest, CreateEnrollTokenRequest, DeviceState, EnrollToken, GetEnrollTokenRequest,
        ListDevicesRequest, RevokeEnrollTokenRequest,
    },
    device::v1::{
        CheckInRequest, EnrollResponse, enrollment_service_client::EnrollmentServiceClient,
        update_service_client::UpdateServiceClient,
    },
};
use tokio::process::Command;
use tonic::{Code, Request, Status};
use tonic_types::StatusExt as _;

async fn create(admin: &Operator, enroll_token: EnrollToken) -> (EnrollToken, String) {
    let request = CreateEnrollTokenRequest { enroll_token: Some(enroll_token) };
    let made = admin.enroll_tokens().create_enroll_token(request).await.expect("an admin makes a token").into_inner();
    (made.enroll_token.expect("an answer has the token"), made.enrollment_string)
}

async fn uses(admin: &Operator, token: &EnrollToken) -> i32 {
    let request = GetEnrollTokenRequest { name: token.name.clone() };
    let read = admin.enroll_tokens().get_enroll_token(request).await.expect("anybody reads a token").into_inner();
    read.enroll_token.expect("an answer has the token").uses
}

async fn device_count(admin: &Operator) -> usize {
    let listed = admin.devices().list_devices(ListDevicesRequest::default()).await.expect("anybody lists devices");
    listed.into_inner().devices.len()
}

/// Enrols with the real program. Returns whether it got in and what it said of it.
async fn enroll(agent: &AgentProcess, url: &str, string: &str) -> (bool, String) {
    let output = run(Command::from(agent.command("enroll")).args(["--server", url, string])).await;
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn of_agents_that_race_for_the_last_use_one_gets_in() {
    let server = TestServer::with(Options::encrypted()).await;
    let replica = server.replica().await;
    let admin = server.admin();
    let (token, string) = create(&admin, EnrollToken { max_uses: 1, ..Default::default() }).await;
    let agents: Vec<_> = (0..6).map(|_| AgentProcess::unenrolled()).collect();
    let urls = [server.url(), replica.url()];
    let tries = agents.iter().zip(urls.iter().cycle()).map(|(agent, url)| enroll(agent, url, &string));
    let outcomes = join_all(tries).await;
    assert_eq!(outcomes.iter().filter(|(is_in, _)| *is_in).count(), 1, "{outcomes:?}");
    assert!(outcomes.iter().all(|(is_in, words)| *is_in || words.contains("used")), "{outcomes:?}");
    assert_eq!((uses(&admin, &token).await, device_count(&admin).await), (1, 1));
    for (agent, (is_in, _)) in agents.iter().zip(&outcomes) {
        assert_eq!(agent.once().await.status.success(), *is_in, "who was kept out does nothing");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_together_let_in_as_many_as_the_token_says() {
    let server = TestServer::start().await;
    let replica = server.replica().await;
    let admin = server.admin();
    let (token, string) = create(&admin, EnrollToken { max_uses: 3, ..Default::default() }).await;
    let urls = [server.url(), replica.url()];
    let tries = urls.iter().cycle().take(32).map(|url| TestDevice::enroll(url, &string, "test"));
    let outcomes = join_all(tries).await;
    let devices: BTreeSet<_> = outcomes.iter().flatten().map(|device| device.id().to_owned()).collect();
    assert_eq!((devices.len(), uses(&admin, &token).await), (3, 3));
    for refusal in outcomes.iter().filter_map(|outcome| outcome.as_ref().err()) {
        assert_refused(refusal, Code::Unauthenticated, "ENROLL_TOKEN_USED_UP");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_with_a_string_that_is_over_or_not_for_it_stays_out() {
    let server = TestServer::with(Options::encrypted()).await;
    let admin = server.admin();
    let many = || EnrollToken { max_uses: 100, ..Default::default() };
    let (expired, expired_string) = create(&admin, many()).await;
    let statement = sqlx::query("UPDATE enroll_token SET expires_at = now()");
    statement.execute(server.pool()).await.expect("time passes");
    let (revoked, revoked_string) = create(&admin, many()).await;
    let request = RevokeEnrollTokenRequest { name: revoked.name.clone() };
    admin.enroll_tokens().revoke_enroll_token(request).await.expect("an admin revokes a token");
    let other = EnrollToken { hardware: vec!["rpi4".to_owned()], ..many() };
    let (for_others, others_string) = create(&admin, other).await;

    for (token, string, word) in [
        (expired, expired_string, "expired"),
        (revoked, revoked_string, "revoked"),
        (for_others, others_string, "test"),
    ] {
        let agent = AgentProcess::unenrolled();
        for _ in 0..2 {
            let (is_in, words) = enroll(&agent, &server.url(), &string).await;
            assert!(!is_in && words.contains(word), "{words}");
        }
        assert!(!agent.once().await.status.success());
        assert_eq!(uses(&admin, &token).await, 0);
    }
    assert_eq!(device_count(&admin).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_needs_approval_does_nothing_before_it() {
    let server = TestServer::with(Options::encrypted()).await;
    let admin = server.admin();
    let (_, string) = create(&admin, EnrollToken { approval_required: true, ..Default::default() }).await;
    let agent = AgentProcess::enroll(&server.url(), &string).await;
    assert_eq!(admin.device(&agent.name()).await.state(), DeviceState::Pending);
    let release = admin.publish("app", "1.0.0", &crate::fleet::payload("1.0.0")).await;
    let all = || ota_proto::admin::v1::target::Choice::All(true);
    admin.create_rollout(&release, all()).await.ok();
    agent.once().await;
    assert!(!agent.current("app").exists() && admin.deployments(&agent.name()).await.is_empty());
    let request = ApproveDeviceRequest { name: agent.name(), ..Default::default() };
    admin.devices().approve_device(request).await.expect("an operator lets it in");
    admin.create_rollout(&release, all()).await.expect("a rollout");
    agent.once().await;
    assert!(agent.current("app").exists());
}

/// Enrols from an address, as a proxy that is trusted says.
async fn enroll_from(server: &TestServer, address: &str, string: &EnrollmentString) -> Result<EnrollResponse, Status> {
    let mut request = Request::new(enroll_request(&string.to_string(), &TestKey::generate()));
    request.metadata_mut().insert("x-forwarded-for", address.parse().expect("an address"));
    Ok(EnrollmentServiceClient::new(server.channel()).enroll(request).await?.into_inner())
}

fn wait(refusal: &Status) -> Duration {
    assert_eq!(refusal.code(), Code::ResourceExhausted, "{refusal:?}");
    let wait = refusal.get_details_retry_info().and_then(|info| info.retry_delay);
    wait.expect("who is told to wait is told how long")
}

#[tokio::test(flavor = "multi_thread")]
async fn who_guesses_secrets_gets_few_guesses_and_keeps_nobody_else_out() {
    let trusted_proxies = vec!["127.0.0.1".parse().expect("a network")];
    let server = TestServer::with(Options { trusted_proxies, ..Options::default() }).await;
    let admin = server.admin();
    let (token, string) = create(&admin, EnrollToken { max_uses: 100, ..Default::default() }).await;
    let right: EnrollmentString = string.parse().expect("an enrolment string");
    let guess = |number: u8| EnrollmentString { secret: Secret([number; 32]), ..right.clone() };
    let (attacker, neighbour) = ("198.51.100.7", "198.51.100.8");
    let mut taken = 0;
    for number in 0..40 {
        let refusal = enroll_from(&server, attacker, &guess(number)).await.expect_err("a wrong secret");
        if refusal.code() == Code::Unauthenticated {
            assert_refused(&refusal, Code::Unauthenticated, "ENROLL_TOKEN_INVALID");
            taken += 1;
        } else {
            assert!(wait(&refusal) > Duration::ZERO);
        }
    }
    // Five at once, and one more every twelve seconds.
    assert!((5..=7).contains(&taken), "{taken} guesses were looked at");
    // A guess that is right comes too early as well.
    wait(&enroll_from(&server, attacker, &right).await.expect_err("too early"));
    assert_eq!((uses(&admin, &token).await, device_count(&admin).await), (0, 0));
    enroll_from(&server, neighbour, &right).await.expect("another address waits for nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_guesses_sessions_waits_ever_longer_and_keeps_no_device_out() {
    let trusted_proxies = vec!["127.0.0.1".parse().expect("a network")];
    let server = TestServer::with(Options { trusted_proxies, ..Options::default() }).await;
    let device = server.admin().enroll().await;
    let good = device.bearer().token().expect("a session").to_owned();
    let call = async |token: &str| {
        let mut request = Request::new(CheckInRequest { agent_version: "1.0.0".to_owned(), ..Default::default() });
        request.metadata_mut().insert("x-forwarded-for", "198.51.100.7".parse().expect("an address"));
        request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().expect("a header"));
        UpdateServiceClient::new(connect(&server.url())).check_in(request).await
    };
    let guess = |number: usize| {
        let mut bytes = good.clone().into_bytes();
        let at = bytes.len() - 1 - number % 20;
        bytes[at] = if bytes[at] == b'2' { b'3' } else { b'2' };
        String::from_utf8(bytes).expect("ASCII")
    };
    let mut answered = 0;
    for number in 0..20 {
        let refusal = call(&guess(number)).await.expect_err("no session");
        if refusal.code() == Code::Unauthenticated {
            answered += 1;
        } else {
            assert!(wait(&refusal) <= Duration::from_secs(64));
        }
    }
    assert!((11..=13).contains(&answered), "{answered} guesses were answered at once");
    call(&good).await.expect("a device at the same address works on");
}
