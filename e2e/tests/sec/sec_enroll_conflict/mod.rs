//! A machine that says it is another one: a leaked enrolment string and a board's serial make nobody that device.
//!
//! That such machines wait, are shown, and are let in one at a time however many come at once is proven by
//! `api::identity`; here an attacker comes in with all of that beside a real agent at work.

use ota_e2e::{
    TestDevice, TestKey, TestServer, assert_refused, binaries::succeed, device::enroll_request, process::AgentProcess,
};
use ota_proto::{
    admin::v1::{DeviceList, EnrollToken, RejectDeviceRequest, target::Choice},
    device::v1::{EnrollRequest, EnrollmentState},
};
use tokio::process::Command;
use tonic::Code;

use crate::fleet::payload;

const SERIAL: &str = "board-0042";

#[tokio::test(flavor = "multi_thread")]
async fn who_knows_a_serial_and_a_token_gets_nothing_of_the_machine_that_has_it() {
    let server = TestServer::start().await;
    let admin = server.admin();
    let labels = [("site".to_owned(), "vault".to_owned())].into();
    let string = admin.enrollment_string(EnrollToken { max_uses: 100, labels, ..Default::default() }).await;
    let agent = AgentProcess::unenrolled();
    let mut command = Command::from(agent.command("enroll"));
    let output = succeed(command.args(["--server", &server.url(), "--hardware-id", SERIAL, &string])).await;
    let victim = format!("devices/{}", String::from_utf8_lossy(&output.stdout).trim());

    let key = TestKey::generate();
    let request = EnrollRequest { hardware_id: SERIAL.to_owned(), ..enroll_request(&string, &key) };
    let attacker = TestDevice::enroll_by(server.channel(), request, &key).await.expect("a machine enrols");
    assert_eq!(attacker.state(), EnrollmentState::Pending);
    assert_eq!(admin.device(&victim).await.identity_conflicts, [attacker.name()]);

    // The victim's work goes on, and the attacker sees nothing of it, waiting or sent away.
    let release = admin.publish("app", "1.0.0", &payload("1.0.0")).await;
    let choice = Choice::Selector("site=vault".to_owned());
    admin.create_rollout(&release, choice).await.expect("a rollout to whoever is there");
    let digest = ota_e2e::device::sha256(&payload("1.0.0")).0;
    let assert_out = async |reason: &str| {
        let refusals = [
            attacker.check_in().await.expect_err("a stranger is told nothing"),
            attacker.download(&digest, 0, 0).await.expect_err("a stranger downloads nothing"),
            attacker.watch().await.expect_err("a stranger hears nothing"),
        ];
        for refusal in refusals {
            assert_refused(&refusal, Code::PermissionDenied, reason);
        }
        assert!(admin.deployments(&attacker.name()).await.is_empty(), "only who is accepted gets work");
    };
    assert_out("DEVICE_PENDING").await;
    assert!(agent.once().await.status.success());
    assert_eq!(std::fs::read(agent.current("app").join("app")).ok(), Some(payload("1.0.0").to_vec()));
    admin.devices().reject_device(RejectDeviceRequest { name: attacker.name() }).await.expect("an operator says no");
    assert_out("DEVICE_REJECTED").await;
    assert!(agent.once().await.status.success(), "the machine that was there first works on");
    assert!(admin.deployments(&victim).await.iter().all(|one| one.device == victim));

    // Let in as a device of its own it still has nothing of the other's.
    let plain = DeviceList { names: vec![attacker.name()] };
    admin.create_rollout(&release, Choice::Devices(plain)).await.expect_err("a rejected device gets no work");
}
