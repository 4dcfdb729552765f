//! A server that is told to stop takes no new calls, lets those in progress finish for a while, and then ends.

use std::time::{Duration, Instant};

use bytes::Bytes;
use ota_e2e::{
    Options, TestDevice, TestServer, assert_refused,
    device::{payload, sha256},
    eventually,
    operator::{pieces, unique_payload},
};
use ota_proto::{
    admin::v1::{
        CreateUploadRequest, GetUploadRequest, Upload, UploadPayloadRequest, WatchEventsRequest,
        create_upload_response::Presence,
    },
    device::v1::{DownloadRequest, DownloadResponse},
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Streaming};

/// How long a broken test takes to fail.
const PATIENCE: Duration = Duration::from_secs(30);

/// More than all buffers between server and device hold.
const SIZE: usize = 24 << 20;

/// A device in the middle of its download: it has read one piece and leaves the rest.
async fn downloading(server: &TestServer, bytes: &Bytes) -> (TestDevice, Streaming<DownloadResponse>, usize) {
    let admin = server.admin();
    let device = admin.enroll().await;
    let release = admin.publish("app", "1.0.0", bytes).await;
    admin.assign(&release, &[&device]).await;
    let sha256 = payload(&device.granted().await).sha256;
    let request = DownloadRequest { sha256, ..Default::default() };
    let mut stream = device.updates().download(request).await.unwrap().into_inner();
    let piece = stream.message().await.unwrap().expect("a first piece");
    (device, stream, piece.data.len())
}

async fn refuses_connections(url: &str) {
    let address = url.strip_prefix("http://").unwrap();
    eventually("the server takes no new connections", PATIENCE, async || {
        tokio::net::TcpStream::connect(address).await.err()
    })
    .await;
}

#[tokio::test]
async fn a_download_in_progress_is_finished() {
    let server = TestServer::with(Options { drain_timeout: PATIENCE, ..Options::default() }).await;
    let bytes = unique_payload(SIZE);
    let (_device, mut stream, mut read) = downloading(&server, &bytes).await;
    let url = server.url();
    let stopped = tokio::spawn(server.stop());
    refuses_connections(&url).await;
    while let Some(piece) = stream.message().await.unwrap() {
        assert!(piece.data == bytes[read..read + piece.data.len()]);
        read += piece.data.len();
    }
    assert_eq!(read, SIZE);
    tokio::time::timeout(PATIENCE, stopped).await.expect("the server stops").unwrap();
}

#[tokio::test]
async fn a_download_that_takes_too_long_is_cut_off_and_goes_on_elsewhere() {
    let drain_timeout = Duration::from_millis(200);
    let server = TestServer::with(Options { drain_timeout, ..Options::default() }).await;
    let replica = server.replica().await;
    let bytes = unique_payload(SIZE);
    let (device, mut stream, mut read) = downloading(&server, &bytes).await;
    let begin = Instant::now();
    server.stop().await;
    assert!(begin.elapsed() < PATIENCE, "{:?}", begin.elapsed());
    let error = loop {
        match stream.message().await {
            Ok(Some(piece)) => read += piece.data.len(),
            Ok(None) => panic!("a download that was cut off looks complete after {read} bytes"),
            Err(error) => break error,
        }
    };
    assert!(read < SIZE, "nothing was cut off");
    assert!([Code::Unavailable, Code::Unknown, Code::Internal, Code::Cancelled].contains(&error.code()), "{error:?}");
    let rest = device.at(&replica.url()).download(&sha256(&bytes).0, read as u64, 0).await.unwrap();
    assert!(rest == bytes[read..]);
}

/// An upload that stays open after its first piece.
async fn uploading(server: &TestServer, bytes: &Bytes) -> (Upload, mpsc::Sender<UploadPayloadRequest>, Answer) {
    let upload = Upload { sha256: sha256(bytes).to_string(), size_bytes: bytes.len() as i64, ..Default::default() };
    let request = CreateUploadRequest { upload: Some(upload) };
    let made = server.admin().packages().create_upload(request).await.unwrap().into_inner();
    let Some(Presence::Upload(upload)) = made.presence else { panic!("the server had these bytes already") };
    let (sender, receiver) = mpsc::channel(1);
    let mut packages = server.admin().packages();
    let answer = tokio::spawn(async move { packages.upload_payload(ReceiverStream::new(receiver)).await.map(drop) });
    (upload, sender, answer)
}

type Answer = tokio::task::JoinHandle<Result<(), tonic::Status>>;

#[tokio::test]
async fn an_upload_in_progress_is_finished() {
    let server = TestServer::with(Options { drain_timeout: PATIENCE, ..Options::default() }).await;
    let replica = server.replica().await;
    let bytes = unique_payload(3 << 20);
    let (upload, sender, answer) = uploading(&server, &bytes).await;
    let mut pieces = pieces(&upload.name, &bytes, 0).into_iter();
    sender.send(pieces.next().unwrap()).await.unwrap();
    sender.send(pieces.next().unwrap()).await.unwrap();
    let url = server.url();
    let stopped = tokio::spawn(server.stop());
    refuses_connections(&url).await;
    for piece in pieces {
        sender.send(piece).await.unwrap();
    }
    drop(sender);
    answer.await.unwrap().unwrap();
    tokio::time::timeout(PATIENCE, stopped).await.expect("the server stops").unwrap();
    replica.admin().publish("app", "1.0.0", &bytes).await;
}

#[tokio::test]
async fn an_upload_that_takes_too_long_keeps_what_came() {
    let drain_timeout = Duration::from_millis(500);
    let server = TestServer::with(Options { drain_timeout, ..Options::default() }).await;
    let replica = server.replica().await;
    let bytes = unique_payload(3 << 20);
    let (upload, sender, answer) = uploading(&server, &bytes).await;
    let mut pieces = pieces(&upload.name, &bytes, 0).into_iter();
    // With one place in the channel, taking the fourth means that two have gone to the connection.
    for piece in pieces.by_ref().take(4) {
        sender.send(piece).await.unwrap();
    }
    server.stop().await;
    answer.await.unwrap().unwrap_err();
    let request = GetUploadRequest { name: upload.name.clone() };
    let kept = replica.admin().packages().get_upload(request).await.unwrap().into_inner().upload.unwrap().offset;
    assert!(kept >= 256 * 1024, "{kept} bytes were kept");
    replica.admin().publish("app", "1.0.0", &bytes).await;
}

#[tokio::test]
async fn watchers_of_events_are_told_to_go() {
    let server = TestServer::start().await;
    let watch = server.admin().events().watch_events(WatchEventsRequest::default()).await;
    let mut stream = watch.unwrap().into_inner();
    let stopped = tokio::spawn(server.stop());
    let status = loop {
        match tokio::time::timeout(PATIENCE, stream.message()).await.expect("the stream ends") {
            Ok(event) => assert!(event.is_some(), "the stream ended without a word"),
            Err(status) => break status,
        }
    };
    assert_refused(&status, Code::Unavailable, "SHUTTING_DOWN");
    tokio::time::timeout(PATIENCE, stopped).await.expect("the server stops").unwrap();
}
