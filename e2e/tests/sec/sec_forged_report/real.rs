//! The same around a real agent: what others say for it is neither believed of it nor keeps it from its work.

use ota_e2e::device::sha256;
use ota_proto::{
    admin::v1::{DeploymentState as State, DeviceList, target::Choice},
    device::v1::{DeploymentState, Failure, FailureCode, ReportProgressRequest, RunningRelease},
};

use crate::fleet::{Fleet, payload};

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_updates_whatever_its_neighbour_reports_for_it() {
    let fleet = Fleet::start().await;
    let neighbour = fleet.admin.enroll().await;
    let release = fleet.publish("2.0.0").await;
    let choice = Choice::Devices(DeviceList { names: vec![fleet.agent.name()] });
    fleet.admin.create_rollout(&release, choice).await.expect("a release that is signed is assigned");
    let newest = async || fleet.admin.deployments(&fleet.agent.name()).await.swap_remove(0);
    let deployment = newest().await.name.trim_start_matches("deployments/").to_owned();
    let running = RunningRelease {
        package: "app".to_owned(),
        version: "2.0.0".to_owned(),
        payload_sha256: sha256(&payload("2.0.0")).0.to_vec().into(),
    };
    let success = ReportProgressRequest {
        deployment,
        attempt: 1,
        sequence: i64::MAX,
        state: DeploymentState::Succeeded.into(),
        running: vec![running],
        ..Default::default()
    };
    let failure = Failure { code: FailureCode::Health.into(), message: "broken".to_owned(), ..Default::default() };
    let failed =
        ReportProgressRequest { state: DeploymentState::RolledBack.into(), failure: Some(failure), ..success.clone() };
    for report in [success, failed] {
        neighbour.updates().report_progress(report).await.expect_err("it is not the neighbour's");
    }
    assert_eq!(newest().await.state(), State::Queued);
    fleet.assert_runs("1.0.0").await;
    fleet.agent.once().await;
    assert_eq!(newest().await.state(), State::Succeeded);
    fleet.assert_runs("2.0.0").await;
}
