//! A device can read and change nothing but its own, whatever it says.

use bytes::Bytes;
use ota_e2e::{
    Operator, TestDevice, TestServer, assert_refused,
    credential::Bearer,
    device::{self, payload, runs},
    operator::unique_payload,
    raw::RawClient,
};
use ota_proto::{
    admin::v1::{Deployment as SeenDeployment, Device, Event},
    device::v1::{
        CheckInRequest, Deployment, DeploymentState, DownloadRequest, Failure, Inventory, ReportInventoryRequest,
        ReportProgressRequest, RunningRelease,
    },
};
use proptest::{
    prelude::{Just, Strategy, any, prop, prop_oneof},
    strategy::ValueTree as _,
    test_runner::TestRunner,
};
use prost::Message as _;
use tonic::Code;

/// What the hostile device says its agent is.
const HOSTILE_VERSION: &str = "6.6.6";

/// All that an operator sees of a device.
async fn seen(admin: &Operator, device: &TestDevice) -> (Device, Vec<SeenDeployment>, Vec<Event>) {
    let mut seen = admin.device(&device.name()).await;
    assert_ne!(seen.agent_version, HOSTILE_VERSION);
    // Signs of life are written behind, at any time.
    seen.agent_version.clear();
    seen.last_seen_time = None;
    seen.online = false;
    (seen, admin.deployments(&device.name()).await, admin.events_of(&device.name()).await)
}

/// A device in the middle of its update.
async fn at_work(admin: &Operator, package: &str) -> (TestDevice, Deployment) {
    let device = admin.enroll().await;
    let release = admin.publish(package, "1.0.0", &unique_payload(1_000)).await;
    admin.assign(&release, &[&device]).await;
    let deployment = device.granted().await;
    device.report(&deployment, 1, DeploymentState::Downloading).await.unwrap();
    (device, deployment)
}

/// Something a hostile device says.
#[derive(Debug, Clone)]
enum Attempt {
    CheckIn(CheckInRequest),
    Download(DownloadRequest),
    Report(ReportProgressRequest),
    Inventory(ReportInventoryRequest),
}

impl Attempt {
    async fn make(&self, attacker: &TestDevice) {
        let mut updates = attacker.updates();
        match self.clone() {
            Self::CheckIn(request) => drop(updates.check_in(request).await),
            Self::Download(request) => {
                if let Ok(stream) = updates.download(request).await {
                    assert!(!matches!(stream.into_inner().message().await, Ok(Some(_))), "{self:?} brought bytes");
                }
            }
            Self::Report(request) => {
                let status = updates.report_progress(request).await.expect_err("another's deployment");
                assert!([Code::NotFound, Code::InvalidArgument].contains(&status.code()), "{self:?}: {status:?}");
            }
            Self::Inventory(request) => drop(updates.report_inventory(request).await),
        }
    }
}

/// What a device may say that knows everything of another but its secret.
fn attempt(victim: &TestDevice, deployment: &Deployment) -> impl Strategy<Value = Attempt> + use<> {
    let sha256 = payload(deployment).sha256;
    let running = runs(deployment);
    let id = prop_oneof![
        4 => Just(deployment.deployment.clone()),
        1 => Just(deployment.deployment.to_uppercase()),
        1 => Just(deployment.deployment.replace('-', "")),
        1 => Just(format!("deployments/{}", deployment.deployment)),
        1 => Just(victim.id().to_owned()),
    ];
    let list = prop::collection::vec(Just(running.clone()), 0..3);
    let report = (id, 0_u32..3, -1_i64..100, 0_i32..10, list.clone()).prop_map(
        move |(deployment, attempt, sequence, state, running)| {
            let failure = Some(Failure {
                code: 1,
                message: "mine now".to_owned(),
                log_tail: String::new(),
                ..Default::default()
            });
            Attempt::Report(ReportProgressRequest {
                deployment,
                attempt,
                sequence,
                state,
                bytes_done: 10,
                failure,
                running,
            })
        },
    );
    let download = (any::<i32>(), -1_i64..1_001, -1_i64..1_001).prop_map(move |(encoding, offset, length)| {
        let (encoding, base_sha256) = (encoding.rem_euclid(5), sha256.clone());
        Attempt::Download(DownloadRequest { sha256: sha256.clone(), encoding, offset, length, base_sha256 })
    });
    let check_in = list.prop_map(|running: Vec<RunningRelease>| {
        Attempt::CheckIn(CheckInRequest { running, agent_version: HOSTILE_VERSION.to_owned(), ..Default::default() })
    });
    let inventory = any::<[u8; 32]>().prop_map(|sha256| {
        let inventory = Some(Inventory { hostname: "victim".to_owned(), ..Default::default() });
        Attempt::Inventory(ReportInventoryRequest { sha256: Bytes::copy_from_slice(&sha256), inventory })
    });
    prop_oneof![4 => report, 3 => download, 2 => check_in, 1 => inventory]
}

#[tokio::test]
async fn nothing_a_device_says_touches_another() {
    const ATTEMPTS: usize = 400;
    let server = TestServer::start().await;
    let admin = server.admin();
    let (victim, deployment) = at_work(&admin, "app").await;
    let (attacker, _) = at_work(&admin, "other").await;
    let before = seen(&admin, &victim).await;

    let mut runner = TestRunner::deterministic();
    let strategy = attempt(&victim, &deployment);
    for _ in 0..ATTEMPTS {
        strategy.new_tree(&mut runner).unwrap().current().make(&attacker).await;
    }

    assert_eq!(seen(&admin, &victim).await, before);
    // The victim goes on as if nothing had been.
    assert_eq!(victim.granted().await, deployment);
    let bytes = victim.download(&payload(&deployment).sha256, 0, 0).await.unwrap();
    assert_eq!(bytes.len(), 1_000);
    victim.report(&deployment, 2, DeploymentState::Installing).await.unwrap();
}

#[tokio::test]
async fn a_device_is_told_of_its_own_work_only() {
    let server = TestServer::start().await;
    let admin = server.admin();
    let (one, first) = at_work(&admin, "app").await;
    let (other, second) = at_work(&admin, "other").await;
    assert_eq!((one.granted().await, other.granted().await), (first.clone(), second.clone()));
    let status = other.report(&first, 2, DeploymentState::Succeeded).await.unwrap_err();
    assert_refused(&status, Code::NotFound, "DEPLOYMENT_NOT_FOUND");
    let status = other.download(&payload(&first).sha256, 0, 0).await.unwrap_err();
    assert_refused(&status, Code::NotFound, "PAYLOAD_NOT_ASSIGNED");
}

#[tokio::test]
async fn ids_are_worth_nothing_without_the_key() {
    let server = TestServer::start().await;
    let admin = server.admin();
    let (victim, attacker) = (admin.enroll().await, admin.enroll().await);
    let session = attacker.bearer();
    let proof = session.token().unwrap().splitn(3, '_').nth(2).unwrap();
    let id = victim.id().replace('-', "");
    for token in
        [format!("otas_{id}_{proof}"), format!("otas_{id}_"), format!("otas_{id}"), format!("ota_{id}_{proof}")]
    {
        let client = RawClient::new(&server.url(), Bearer::new(&token));
        let status = client.call("/ota.device.v1.UpdateService/CheckIn", Bytes::new()).await.unwrap_err();
        assert!([Code::Unauthenticated, Code::PermissionDenied].contains(&status.code()), "{token}: {status:?}");
    }
    let refusal = device::session(&server.channel(), victim.id(), attacker.key()).await.unwrap_err();
    assert_refused(&refusal, Code::Unauthenticated, "CREDENTIAL_INVALID");
}

/// What gives a device away: nothing of it is in any answer to another. The names and hashes of what it is to run are not
/// among it: the list of what operators signed is the same for all devices.
async fn traces(device: &TestDevice, deployment: &Deployment) -> Vec<Vec<u8>> {
    let mut content = device.download(&payload(deployment).sha256, 0, 0).await.unwrap();
    content.truncate(64);
    vec![device.id().as_bytes().to_vec(), deployment.deployment.as_bytes().to_vec(), content]
}

/// The messages of the device API that a device may send, about its own work or about that of the other.
fn calls(own: &Deployment, other: &Deployment) -> impl Strategy<Value = (&'static str, Bytes)> + use<> {
    let either = prop_oneof![Just(own.clone()), Just(other.clone())];
    (either, 0..6_u8, 0..12_i64, any::<[u8; 32]>()).prop_map(|(about, call, number, random)| {
        let sha256 = payload(&about).sha256;
        match call {
            0 => {
                let running = vec![RunningRelease {
                    package: about.package.clone(),
                    version: about.version.clone(),
                    payload_sha256: sha256,
                }];
                let request = CheckInRequest { running, agent_version: "1.0.0".to_owned(), ..Default::default() };
                ("/ota.device.v1.UpdateService/CheckIn", request.encode_to_vec().into())
            }
            1 => {
                let nonce = Bytes::copy_from_slice(&random);
                let request = CheckInRequest { agent_version: "1.0.0".to_owned(), nonce, ..Default::default() };
                ("/ota.device.v1.UpdateService/CheckIn", request.encode_to_vec().into())
            }
            2 => {
                let request = DownloadRequest { sha256, offset: number * 100, ..Default::default() };
                ("/ota.device.v1.UpdateService/Download", request.encode_to_vec().into())
            }
            3 => {
                let request = ReportProgressRequest {
                    deployment: about.deployment.clone(),
                    attempt: about.attempt,
                    sequence: number,
                    state: i32::try_from(number % 9).unwrap(),
                    ..Default::default()
                };
                ("/ota.device.v1.UpdateService/ReportProgress", request.encode_to_vec().into())
            }
            4 => {
                let inventory = Some(Inventory { hostname: about.package.clone(), ..Default::default() });
                let request = ReportInventoryRequest { sha256: Bytes::copy_from_slice(&random), inventory };
                ("/ota.device.v1.UpdateService/ReportInventory", request.encode_to_vec().into())
            }
            _ => ("/ota.device.v1.UpdateService/Watch", Bytes::new()),
        }
    })
}

/// Everything that a call is answered with: messages and what a refusal says. A watch is left after its first ring.
async fn answered(client: &RawClient, path: &str, message: Bytes) -> Vec<u8> {
    let mut told = Vec::new();
    let mut stream = match client.open(path, message).await {
        Ok(stream) => stream,
        Err(status) => return format!("{status:?}").into_bytes(),
    };
    if path.ends_with("/Watch") {
        return told;
    }
    loop {
        match stream.message().await {
            Ok(Some(answer)) => told.extend_from_slice(&answer),
            Ok(None) => return told,
            Err(status) => {
                told.extend_from_slice(format!("{status:?}").as_bytes());
                return told;
            }
        }
    }
}

#[tokio::test]
async fn two_devices_never_read_anything_of_each_other() {
    const CALLS: usize = 300;
    let server = TestServer::start().await;
    let admin = server.admin();
    let (one, first) = at_work(&admin, "alpha-app").await;
    let (other, second) = at_work(&admin, "omega-app").await;
    let (of_one, of_other) = (traces(&one, &first).await, traces(&other, &second).await);
    let mut runner = TestRunner::deterministic();
    for number in 0..CALLS {
        let (caller, own, foreign, forbidden) =
            if number % 2 == 0 { (&one, &first, &second, &of_other) } else { (&other, &second, &first, &of_one) };
        let (path, message) = calls(own, foreign).new_tree(&mut runner).unwrap().current();
        let client = RawClient::new(&server.url(), caller.bearer());
        let told = answered(&client, path, message.clone()).await;
        for trace in forbidden {
            let contains = |bytes: &[u8]| bytes.windows(trace.len()).any(|window| window == trace.as_slice());
            // A refusal may repeat what it was asked with.
            let refused = told.starts_with(b"Status") && contains(&message);
            assert!(!contains(&told) || refused, "{path}: {}", String::from_utf8_lossy(&told));
        }
    }
}
