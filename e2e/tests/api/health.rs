//! What load balancers and supervisors are told, on every port and whatever the database does.

use std::time::Duration;

use ota_e2e::{Options, TestServer, credential, database::DedicatedCluster, eventually};
use tonic::Code;
use tonic_health::pb::{
    HealthCheckRequest,
    health_check_response::ServingStatus::{self, NotServing, Serving},
    health_client::HealthClient,
};

/// How soon load balancers hear that the database does not answer, and some time for a busy machine.
const NOTICED: Duration = Duration::from_secs(15);

async fn ask(url: &str, service: &str) -> Result<ServingStatus, tonic::Status> {
    let mut client = HealthClient::new(credential::connect(url));
    let request = HealthCheckRequest { service: service.to_owned() };
    Ok(client.check(request).await?.into_inner().status())
}

/// Waits until the server says this of its readiness, and asserts all the while that it says that it lives.
async fn becomes(server: &TestServer, status: ServingStatus) {
    let url = server.metrics_url();
    eventually(&format!("the server is {status:?}"), NOTICED, async || {
        assert_eq!(ask(&url, "liveness").await.unwrap(), Serving);
        (ask(&url, "readiness").await.unwrap() == status).then_some(())
    })
    .await;
    assert_eq!(ask(&url, "").await.unwrap(), status);
    assert_eq!(ask(&server.url(), "readiness").await.unwrap(), status, "the ports agree");
}

#[tokio::test]
async fn the_supervisors_port_is_plain_also_when_the_others_are_encrypted() {
    let server = TestServer::with(Options::encrypted()).await;
    becomes(&server, Serving).await;
    assert_eq!(ask(&server.metrics_url(), "nothing").await.unwrap_err().code(), Code::NotFound);
    assert!(server.metrics().await.contains("ota_build_info"));
}

#[tokio::test]
async fn without_the_database_a_server_lives_and_is_not_ready() {
    let mut cluster = DedicatedCluster::start().await;
    let server = TestServer::on(&cluster, Options::default()).await;
    becomes(&server, Serving).await;
    cluster.stop().await;
    becomes(&server, NotServing).await;
    cluster.resume().await;
    becomes(&server, Serving).await;
}

#[tokio::test]
async fn a_database_that_answers_nothing_is_noticed_and_holds_nobody_up() {
    let cluster = DedicatedCluster::start().await;
    let server = TestServer::on(&cluster, Options::default()).await;
    becomes(&server, Serving).await;
    let frozen = cluster.freeze();
    becomes(&server, NotServing).await;
    drop(frozen);
    becomes(&server, Serving).await;
}
