//! The same against a real server and a real agent: the database says that a release fits.

use ota_proto::admin::v1::{Installer, Release};

use crate::fleet::{Fleet, payload};

#[tokio::test(flavor = "multi_thread")]
async fn a_release_that_the_database_calls_fitting_is_not_installed() {
    let fleet = Fleet::start().await;
    let release = Release {
        installer: Installer::File.into(),
        hardware: vec!["imx8".to_owned()],
        payload: format!("payloads/{}", fleet.admin.upload(&payload("2.0.0")).await),
        ..Default::default()
    };
    let release = fleet.admin.create_release("app", "2.0.0", release).await.expect("a release");
    fleet.tamper("UPDATE release SET hardware = '{test}' WHERE version = '2.0.0'").await;
    fleet.update_to(&release).await;
    assert_eq!(fleet.failure().await, "TRUST");
    fleet.assert_runs("1.0.0").await;
}
