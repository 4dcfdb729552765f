//! Operators with a port of their own: what each port has, that neither has the other's, and that both stop as one.

use std::time::Duration;

use bytes::Bytes;
use ota_e2e::{
    Options, TestDevice, TestServer, assert_refused,
    credential::{self, Bearer},
    operator::unique_payload,
    raw::RawClient,
};
use ota_proto::{
    admin::v1::{EnrollToken, GetStatusRequest, WatchEventsRequest},
    device::v1::DownloadRequest,
};
use ota_server::auth::policy;
use tonic::Code;
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};

/// How long a broken test takes to fail.
const PATIENCE: Duration = Duration::from_secs(30);

async fn apart() -> TestServer {
    TestServer::with(Options { admin_port: true, drain_timeout: PATIENCE, ..Options::default() }).await
}

async fn enroll(server: &TestServer) -> TestDevice {
    let string = server.admin().enrollment_string(EnrollToken { max_uses: 1, ..Default::default() }).await;
    TestDevice::enroll(&server.url(), &string, "test").await.unwrap()
}

/// The services that a port says it has.
async fn listed(url: &str) -> Vec<String> {
    let request = ServerReflectionRequest {
        message_request: Some(MessageRequest::ListServices(String::new())),
        ..Default::default()
    };
    let mut client = ServerReflectionClient::new(credential::connect(url));
    let answer = client.server_reflection_info(tokio_stream::iter([request])).await.unwrap();
    match answer.into_inner().message().await.unwrap().unwrap().message_response {
        Some(MessageResponse::ListServicesResponse(list)) => list.service.into_iter().map(|one| one.name).collect(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn no_port_has_what_is_the_others() {
    let server = apart().await;
    assert_ne!(server.url(), server.admin_url());
    // With the best credentials there are: the port decides, not who calls.
    let device = RawClient::new(&server.admin_url(), enroll(&server).await.bearer());
    let admin = RawClient::new(&server.url(), Bearer::new(server.admin_token()));
    let address = |url: String| url.rsplit(':').next().unwrap().to_owned();
    let mut refused = 0;
    for (path, _) in policy::rows().filter(|(path, _)| path.starts_with("/ota.")) {
        let (client, api, elsewhere) = if path.starts_with("/ota.admin.") {
            (&admin, "admin", server.admin_url())
        } else {
            (&device, "device", server.url())
        };
        let status = client.call(&path, Bytes::new()).await.unwrap_err();
        assert_refused(&status, Code::Unimplemented, "NOT_IMPLEMENTED");
        assert_eq!(status.message(), format!("the {api} API is served at another address of this server"), "{path}");
        assert!(!format!("{status:?}").contains(&address(elsewhere)), "a stranger learns where: {status:?}");
        refused += 1;
    }
    assert!(refused > 60, "{refused}");
}

#[tokio::test]
async fn each_port_has_its_own_api_and_says_so() {
    let server = apart().await;
    server.admin().status().get_status(GetStatusRequest {}).await.unwrap();
    enroll(&server).await.check_in().await.unwrap();
    for (url, own, other) in
        [(server.url(), "ota.device.v1.", "ota.admin.v1."), (server.admin_url(), "ota.admin.v1.", "ota.device.v1.")]
    {
        let services = listed(&url).await;
        assert!(services.iter().any(|name| name.starts_with(own)), "{services:?}");
        assert!(!services.iter().any(|name| name.starts_with(other)), "{services:?}");
        assert!(services.iter().any(|name| name == "grpc.health.v1.Health"), "{services:?}");
        RawClient::new(&url, Bearer::anonymous()).call("/grpc.health.v1.Health/Check", Bytes::new()).await.unwrap();
    }
}

#[tokio::test]
async fn calls_on_both_ports_finish_when_the_server_stops() {
    let server = apart().await;
    let (admin, bytes) = (server.admin(), unique_payload(24 << 20));
    let device = enroll(&server).await;
    let release = admin.publish("app", "1.0.0", &bytes).await;
    admin.assign(&release, &[&device]).await;
    let sha256 = ota_e2e::device::payload(&device.granted().await).sha256;
    let request = DownloadRequest { sha256, ..Default::default() };
    let mut download = device.updates().download(request).await.unwrap().into_inner();
    let mut read = download.message().await.unwrap().unwrap().data.len();
    let mut events = admin.events().watch_events(WatchEventsRequest::default()).await.unwrap().into_inner();

    let stopped = tokio::spawn(server.stop());
    let status = loop {
        match tokio::time::timeout(PATIENCE, events.message()).await.expect("the stream ends") {
            Ok(event) => assert!(event.is_some(), "the stream ended without a word"),
            Err(status) => break status,
        }
    };
    assert_refused(&status, Code::Unavailable, "SHUTTING_DOWN");
    while let Some(piece) = download.message().await.unwrap() {
        read += piece.data.len();
    }
    assert_eq!(read, bytes.len());
    tokio::time::timeout(PATIENCE, stopped).await.expect("the server stops").unwrap();
}
