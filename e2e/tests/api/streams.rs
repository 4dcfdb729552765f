//! Every call that streams, against those who stall: nobody holds a buffer, a file or a lock by doing nothing.
//!
//! The server under test is one that loses its patience soon; what is prepared is prepared with another.

use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use ota_e2e::{
    Operator, Options, TestDevice, TestServer, assert_refused,
    credential::Bearer,
    device::payload,
    operator::{PIECE_BYTES, pieces, unique_payload},
    raw::{RawClient, streams},
};
use ota_proto::{
    admin::v1::{
        CreateUploadRequest, DownloadPayloadRequest, GetUploadRequest, Upload, WatchEventsRequest, WatchEventsResponse,
        create_upload_response::Presence,
    },
    device::v1::{DownloadRequest, EncodingKind, WatchResponse},
};
use ota_server::serve::Pace;
use sha2::{Digest as _, Sha256};
use tokio_stream::StreamExt as _;
use tonic::{Code, Status, Streaming};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use crate::policy::DESCRIPTORS;

/// What bounds a stream, besides the size of its messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Limit {
    /// The caller takes what comes, or is cut off.
    Taken,
    /// The caller sends what is due, or is refused.
    Sent,
    /// Nothing may come for long. It ends with its connection, whose other end answers pings.
    Quiet,
}

/// The limit of each. Whoever adds a stream says which it has, and has it tested below.
const LIMITS: [(&str, Limit); 8] = [
    ("/ota.device.v1.UpdateService/Watch", Limit::Quiet),
    ("/ota.device.v1.UpdateService/Download", Limit::Taken),
    ("/ota.admin.v1.EventService/WatchEvents", Limit::Quiet),
    ("/ota.admin.v1.PackageService/UploadPayload", Limit::Sent),
    ("/ota.admin.v1.PackageService/DownloadPayload", Limit::Taken),
    ("/grpc.health.v1.Health/Watch", Limit::Quiet),
    ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", Limit::Sent),
    ("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", Limit::Sent),
];

/// More than a client takes before it is asked to.
const SIZE: usize = 24 << 20;
/// How long the server waits.
const SOON: Duration = Duration::from_millis(500);
/// How long a broken test takes to fail.
const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn every_stream_has_a_limit() {
    let served: Vec<_> = DESCRIPTORS.into_iter().flat_map(streams).collect();
    let limited = |path: &str| LIMITS.iter().any(|(name, _)| *name == path);
    let unlimited: Vec<_> = served.iter().filter(|path| !limited(path)).collect();
    assert!(unlimited.is_empty(), "{unlimited:?} have no limit in this file");
    assert_eq!(served.len(), LIMITS.len(), "limits of streams that are none");
    assert!(!limited("/ota.admin.v1.PackageService/GetPackage"));
}

async fn impatient(server: &TestServer) -> TestServer {
    // However much is handed over at once has to be gone soon.
    let pace = Pace { bytes: u64::MAX, window: SOON };
    server.replica_with(Options { pace, ..Options::default() }).await
}

/// Waits until a stream that is held on the same connection breaks.
async fn cut(mut bell: Streaming<WatchResponse>) {
    let breaks = async { while let Ok(Some(_)) = bell.message().await {} };
    tokio::time::timeout(PATIENCE, breaks).await.expect("the connection is cut");
}

/// Takes what is there, and says how the stream ended and after how many bytes.
async fn rest<T>(mut stream: Streaming<T>, bytes: impl Fn(T) -> Bytes) -> (usize, Result<(), Status>) {
    let mut taken = 0;
    loop {
        match stream.message().await {
            Ok(Some(piece)) => taken += bytes(piece).len(),
            Ok(None) => return (taken, Ok(())),
            Err(status) => return (taken, Err(status)),
        }
    }
}

async fn download(device: &TestDevice, sha256: Bytes) -> Streaming<ota_proto::device::v1::DownloadResponse> {
    let request = DownloadRequest { sha256, encoding: EncodingKind::Identity.into(), ..Default::default() };
    device.updates().download(request).await.unwrap().into_inner()
}

#[tokio::test]
async fn who_does_not_take_what_they_asked_for_is_cut_off() {
    let server = TestServer::start().await;
    let impatient = impatient(&server).await;
    let admin = server.admin();
    let device = admin.enroll().await;
    let release = admin.publish("app", "1.0.0", &unique_payload(SIZE)).await;
    admin.assign(&release, &[&device]).await;
    let deployment = device.granted().await;
    let sha256 = payload(&deployment).sha256;

    let device = device.at(&impatient.url());
    let bell = device.watch().await.unwrap();
    let stalled = download(&device, sha256.clone()).await;
    cut(bell).await;
    let (taken, ended) = rest(stalled, |piece| piece.data).await;
    assert!(ended.is_err() && taken < SIZE / 2, "{taken} bytes came");
    // Who takes them gets them all, over another connection.
    let (taken, ended) = rest(download(&device, sha256.clone()).await, |piece| piece.data).await;
    ended.unwrap();
    assert_eq!(taken, SIZE);

    let admin = admin.at(&impatient.url());
    let ask = async || {
        let name = format!("payloads/{}", hex::encode(&sha256));
        let request = DownloadPayloadRequest { name, ..Default::default() };
        admin.packages().download_payload(request).await.unwrap().into_inner()
    };
    let mut events = watch_events(&admin).await;
    let stalled = ask().await;
    let breaks = async { while let Ok(Some(_)) = events.message().await {} };
    tokio::time::timeout(PATIENCE, breaks).await.expect("the connection is cut");
    let (taken, ended) = rest(stalled, |piece| piece.data).await;
    assert!(ended.is_err() && taken < SIZE / 2, "{taken} bytes came");
    let (taken, ended) = rest(ask().await, |piece| piece.data).await;
    ended.unwrap();
    assert_eq!(taken, SIZE);
}

async fn watch_events(operator: &Operator) -> Streaming<WatchEventsResponse> {
    operator.events().watch_events(WatchEventsRequest::default()).await.unwrap().into_inner()
}

#[tokio::test]
async fn who_does_not_send_what_they_announced_is_refused() {
    let server = TestServer::start().await;
    let impatient = impatient(&server).await;
    let admin = server.admin();
    let bytes = unique_payload(4 * PIECE_BYTES);
    let upload =
        Upload { sha256: hex::encode(Sha256::digest(&bytes)), size_bytes: bytes.len() as i64, ..Default::default() };
    let request = CreateUploadRequest { upload: Some(upload) };
    let presence = admin.packages().create_upload(request).await.unwrap().into_inner().presence.unwrap();
    let Presence::Upload(upload) = presence else { panic!("nobody has these bytes") };

    for whole_pieces in [0, 2] {
        let mut sent = pieces(&upload.name, &bytes, 0);
        sent.truncate(whole_pieces);
        let stalls = tokio_stream::iter(sent).chain(tokio_stream::pending());
        let mut stalled = admin.at(&impatient.url()).packages();
        let ended = tokio::time::timeout(PATIENCE, stalled.upload_payload(stalls)).await.expect("it is broken off");
        let refusal = ended.unwrap_err();
        if whole_pieces > 0 {
            assert_refused(&refusal, Code::Cancelled, "UPLOAD_INCOMPLETE");
        }
    }
    // What came is kept, and nobody holds the upload.
    let request = GetUploadRequest { name: upload.name.clone() };
    let offset = admin.packages().get_upload(request).await.unwrap().into_inner().upload.unwrap().offset;
    assert_eq!(offset, 2 * PIECE_BYTES as i64);
    let rest = pieces(&upload.name, &bytes, offset);
    admin.packages().upload_payload(tokio_stream::iter(rest)).await.unwrap();

    for (path, _) in LIMITS.iter().filter(|(path, limit)| *limit == Limit::Sent && path.starts_with("/grpc.")) {
        let client = RawClient::new(&impatient.url(), Bearer::anonymous());
        let ended = tokio::time::timeout(PATIENCE, client.stall(path)).await.expect("it is broken off");
        // Reflection ends without a word.
        assert!(!matches!(ended, Ok(Some(_))), "{path}: {ended:?}");
    }
}

#[tokio::test]
async fn who_waits_on_a_quiet_stream_is_left_alone() {
    let server = TestServer::start().await;
    let impatient = impatient(&server).await;
    let admin = server.admin();
    let (waiting, stalling) = (admin.enroll().await, admin.enroll().await);
    let release = admin.publish("app", "1.0.0", &unique_payload(SIZE)).await;
    admin.assign(&release, &[&stalling]).await;
    let deployment = stalling.granted().await;

    let mut bell = waiting.at(&impatient.url()).watch().await.unwrap();
    let mut events = watch_events(&admin.at(&impatient.url())).await;
    let mut health = HealthClient::new(impatient.channel());
    let mut health = health.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    health.message().await.unwrap().expect("it says how it is at once");

    // The patience of the server has an end, as somebody else shows.
    let stalling = stalling.at(&impatient.url());
    let other_bell = stalling.watch().await.unwrap();
    let stalled = download(&stalling, payload(&deployment).sha256).await;
    cut(other_bell).await;
    drop(stalled);

    assert!(bell.message().now_or_never().is_none(), "nothing rang, and nothing ended");
    assert!(health.message().now_or_never().is_none(), "nothing changed, and nothing ended");
    admin.assign(&release, &[&waiting]).await;
    tokio::time::timeout(PATIENCE, bell.message()).await.expect("it rings").unwrap().expect("a ring");
    tokio::time::timeout(PATIENCE, events.message()).await.expect("something happened").unwrap().expect("an event");
}

#[tokio::test]
async fn no_stream_takes_a_message_without_end() {
    let server = TestServer::start().await;
    let admin = server.admin();
    let device = admin.enroll().await;
    for (path, _) in LIMITS {
        let bearer = if path.starts_with("/ota.device.") { device.bearer() } else { admin.bearer() };
        let message = Bytes::from(vec![0; 5 << 20]);
        match RawClient::new(&server.url(), bearer).call(path, message).await {
            Err(refusal) => assert_eq!(refusal.code(), Code::OutOfRange, "{path}: {refusal:?}"),
            // Reflection ends without a word.
            Ok(answer) => assert!(answer.is_none() && path.starts_with("/grpc.reflection."), "{path}: {answer:?}"),
        }
    }
}
