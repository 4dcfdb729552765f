//! The same at a real server with a real agent: somebody writes a dependency into the server's database.

use ota_proto::admin::v1::{DeploymentState, DeviceList, Installer, Release, target::Choice};

use crate::fleet::{Fleet, payload};

#[tokio::test(flavor = "multi_thread")]
async fn a_dependency_that_the_database_slips_in_is_not_installed() {
    let fleet = Fleet::start().await;
    let upload = fleet.admin.upload(&payload("a dependency")).await;
    let release =
        Release { installer: Installer::File.into(), payload: format!("payloads/{upload}"), ..Default::default() };
    let extra = fleet.admin.create_unsigned_release("lib", "1.0.0", release).await.expect("a release");
    fleet.tamper("UPDATE release SET signed_at = now() WHERE signed_at IS NULL").await;
    let choice = Choice::Devices(DeviceList { names: vec![fleet.agent.name()] });
    fleet.admin.create_rollout(&extra, choice).await.expect("to the server it is signed");
    let second = fleet.publish("2.0.0").await;
    fleet.update_to(&second).await;

    fleet.assert_runs("2.0.0").await;
    assert!(!fleet.agent.current("lib").exists());
    let deployments = fleet.admin.deployments(&fleet.agent.name()).await;
    let slipped_in = deployments.iter().find(|one| one.release == extra.name).expect("its deployment");
    let code = slipped_in.failure.as_ref().map(|failure| failure.code.as_str());
    assert_eq!((slipped_in.state(), code), (DeploymentState::Failed, Some("TRUST")));
}
