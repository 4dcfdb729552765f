//! Payloads in a real S3-compatible store, through real servers: nothing is lost, nothing is left behind, and whoever waits
//! learns why.

use bytes::Bytes;
use ota_e2e::{
    Binaries, ObjectStore, Operator, TestDevice, assert_refused,
    binaries::run,
    credential,
    device::{payload, sha256},
    eventually,
    operator::{PIECE_BYTES, pieces, unique_payload},
    process::{Process, ServerProcess},
};
use ota_proto::{
    admin::v1::{
        CreateUploadRequest, DeletePayloadRequest, DeleteUploadRequest, GetUploadRequest, Upload, UploadPayloadRequest,
        create_upload_response::Presence,
    },
    device::v1::DownloadRequest,
};
use ota_server::serve::health::READINESS;
use tokio::{
    process::Command,
    sync::mpsc,
    task::{JoinHandle, JoinSet},
    time::timeout,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};
use tonic_types::StatusExt as _;

use crate::replicas::{PATIENCE, Replicas, Shared, alone};

const MIB: usize = 1 << 20;

/// Bytes that the server sends to the store at once.
const PART: usize = 8 * MIB;

/// Announces a payload that the server does not have.
async fn announce(operator: &Operator, bytes: &Bytes) -> Upload {
    let upload = Upload { sha256: sha256(bytes).to_string(), size_bytes: bytes.len() as i64, ..Default::default() };
    let made = operator.packages().create_upload(CreateUploadRequest { upload: Some(upload) }).await.unwrap();
    match made.into_inner().presence {
        Some(Presence::Upload(upload)) => upload,
        other => panic!("the server had the bytes already: {other:?}"),
    }
}

/// Returns how far an upload has come for certain.
async fn offset(operator: &Operator, upload: &Upload) -> usize {
    let request = GetUploadRequest { name: upload.name.clone() };
    let read = operator.packages().get_upload(request).await.unwrap().into_inner();
    usize::try_from(read.upload.unwrap().offset).unwrap()
}

/// A stream to an upload that the test feeds piece by piece.
struct Sending {
    pieces: mpsc::Sender<UploadPayloadRequest>,
    ended: JoinHandle<Result<(), Status>>,
}

impl Sending {
    fn start(operator: &Operator) -> Self {
        let (sender, receiver) = mpsc::channel(1);
        let mut packages = operator.packages();
        let ended =
            tokio::spawn(async move { packages.upload_payload(ReceiverStream::new(receiver)).await.map(|_| ()) });
        Self { pieces: sender, ended }
    }

    /// Sends pieces; `false` when the server takes no more.
    async fn send(&self, pieces: &[UploadPayloadRequest]) -> bool {
        for piece in pieces {
            if self.pieces.send(piece.clone()).await.is_err() {
                return false;
            }
        }
        true
    }

    async fn end(self) -> Result<(), Status> {
        drop(self.pieces);
        self.ended.await.unwrap()
    }
}

/// Sends what is left of an upload.
async fn send_rest(operator: &Operator, upload: &Upload, bytes: &Bytes) -> Result<(), Status> {
    let offset = offset(operator, upload).await;
    let rest = pieces(&upload.name, bytes, offset as i64);
    operator.packages().upload_payload(tokio_stream::iter(rest)).await.map(|_| ())
}

/// A device that may download a payload.
async fn device_with(operator: &Operator, bytes: &Bytes) -> TestDevice {
    let device = operator.enroll().await;
    let release = operator.publish("app", "1.0.0", bytes).await;
    operator.assign(&release, &[&device]).await;
    assert_eq!(*payload(&device.granted().await).sha256, sha256(bytes).0);
    device
}

#[tokio::test]
async fn an_upload_goes_on_at_the_other_replica_when_a_server_is_killed() {
    let Some(mut replicas) = Replicas::start(&[]).await else { return };
    let bytes = unique_payload(3 * PART + 3 * MIB);
    let (here, there) = (replicas.at_a(), replicas.at_b());
    let upload = announce(&here, &bytes).await;
    let all = pieces(&upload.name, &bytes, 0);
    let sending = Sending::start(&here);
    // Two parts and a half. Before the third is taken up, the first is in the store; the half is lost with the server.
    assert!(sending.send(&all[..(2 * PART + PART / 2) / PIECE_BYTES]).await);
    eventually("the first part is in the store", PATIENCE, async || {
        (offset(&there, &upload).await >= PART).then_some(())
    })
    .await;
    replicas.a.kill();
    sending.end().await.unwrap_err();

    send_rest(&there, &upload, &bytes).await.unwrap();
    assert_eq!(replicas.store.objects().await.len(), 1);
    assert!(replicas.store.multipart_uploads().await.is_empty());
    let device = device_with(&there, &bytes).await;
    assert!(device.download(&sha256(&bytes).0, 0, 0).await.unwrap() == bytes);
}

#[tokio::test]
async fn what_is_refused_or_dropped_leaves_nothing_in_the_store() {
    let Some((server, store, _shared)) = alone().await else { return };
    let operator = server.admin();
    // Bytes that are not what was announced.
    let (announced, bytes) = (unique_payload(PART + MIB), unique_payload(PART + MIB));
    let upload = announce(&operator, &announced).await;
    let sent = operator.packages().upload_payload(tokio_stream::iter(pieces(&upload.name, &bytes, 0))).await;
    assert_refused(&sent.unwrap_err(), Code::InvalidArgument, "CHECKSUM_MISMATCH");
    assert!(store.multipart_uploads().await.is_empty());

    // An upload that breaks off, and that nobody wants any more.
    let upload = announce(&operator, &announced).await;
    let sending = Sending::start(&operator);
    assert!(sending.send(&pieces(&upload.name, &announced, 0)[..PART / PIECE_BYTES + 1]).await);
    sending.end().await.unwrap_err();
    assert_eq!(offset(&operator, &upload).await, PART);
    assert_eq!(store.multipart_uploads().await.len(), 1);
    operator.packages().delete_upload(DeleteUploadRequest { name: upload.name }).await.unwrap();
    assert!(store.multipart_uploads().await.is_empty());
    assert!(store.objects().await.is_empty());
}

#[tokio::test]
async fn a_payload_that_nobody_needs_is_deleted_from_the_store() {
    let Some((server, store, _shared)) = alone().await else { return };
    let operator = server.admin();
    let digest = operator.upload(&unique_payload(MIB)).await;
    assert_eq!(store.objects().await, [format!("ota/sha256/{}/{digest}", &digest.to_string()[..2])]);
    operator.packages().delete_payload(DeletePayloadRequest { name: format!("payloads/{digest}") }).await.unwrap();
    eventually("the object is gone", PATIENCE, async || store.objects().await.is_empty().then_some(())).await;
}

#[tokio::test]
async fn any_range_comes_from_either_replica_to_many_at_once() {
    const AT_ONCE: u64 = 40;
    let Some(replicas) = Replicas::start(&[]).await else { return };
    let bytes = unique_payload(PART + 3 * MIB);
    let device = device_with(&replicas.at_a(), &bytes).await;
    let digest = sha256(&bytes).0;
    let size = bytes.len() as u64;
    let mut downloads = JoinSet::new();
    for number in 0..AT_ONCE {
        let device = device.certified(if number % 2 == 0 { replicas.a.url() } else { replicas.b.url() }.as_str());
        let bytes = bytes.clone();
        // Begins and ends inside of parts, of pieces and of what is read at once.
        let offset = number * size / AT_ONCE + number;
        let length = (size - offset).min(3 * MIB as u64 + 17);
        downloads.spawn(async move {
            let got = device.download(&digest, offset, length).await.unwrap();
            assert!(got == bytes[offset as usize..(offset + length) as usize], "{length} bytes from {offset}");
        });
    }
    downloads.join_all().await;
    assert!(device.certified(&replicas.b.url()).download(&digest, 0, 0).await.unwrap() == bytes);
}

/// What callers are told when the bucket is gone.
const REFUSED: &str = "the object store s3://payloads/ota refuses the server: NoSuchBucket";

/// Asserts that the caller is told of the outage, and when to try again.
fn assert_outage(status: &Status) {
    assert_refused(status, Code::Unavailable, "BLOB_STORE_UNAVAILABLE");
    assert!(status.get_error_details().retry_info().is_some(), "{status:?}");
}

#[tokio::test]
async fn an_upload_survives_an_outage_of_the_store() {
    let Some((server, mut store, _shared)) = alone().await else { return };
    let operator = server.admin();
    let bytes = unique_payload(4 * PART + 5);
    let upload = announce(&operator, &bytes).await;
    let all = pieces(&upload.name, &bytes, 0);
    let sending = Sending::start(&operator);
    assert!(sending.send(&all[..(2 * PART) / PIECE_BYTES + 1]).await);
    eventually("a part is in the store", PATIENCE, async || (offset(&operator, &upload).await >= PART).then_some(()))
        .await;
    store.kill();
    // The server takes what it may hold, and then says that it cannot go on.
    sending.send(&all[(2 * PART) / PIECE_BYTES + 1..]).await;
    assert_outage(&sending.end().await.unwrap_err());
    assert_outage(&send_rest(&operator, &upload, &bytes).await.unwrap_err());
    // Devices can be told what to do all the while: this replica is as good as any.
    assert_eq!(readiness(&server).await, ServingStatus::Serving);
    let kept = offset(&operator, &upload).await;
    assert!(kept >= PART, "{kept} bytes are left");

    store.restart().await;
    send_rest(&operator, &upload, &bytes).await.unwrap();
    assert!(store.multipart_uploads().await.is_empty());
    let device = device_with(&operator, &bytes).await;
    assert!(device.download(&sha256(&bytes).0, 0, 0).await.unwrap() == bytes);
}

#[tokio::test]
async fn a_download_survives_an_outage_of_the_store() {
    let Some((server, mut store, _shared)) = alone().await else { return };
    // More than all buffers between server and device hold.
    let bytes = unique_payload(24 * MIB);
    let device = device_with(&server.admin(), &bytes).await;
    let digest = sha256(&bytes).0;
    let request = DownloadRequest { sha256: digest.to_vec().into(), ..Default::default() };
    let mut stream = device.updates().download(request).await.unwrap().into_inner();
    let mut got = stream.message().await.unwrap().unwrap().data.to_vec();
    store.kill();
    let status = loop {
        match stream.message().await {
            Ok(piece) => got.extend_from_slice(&piece.expect("the payload is longer than this").data),
            Err(status) => break status,
        }
    };
    assert_outage(&status);
    assert_outage(&device.download(&digest, got.len() as u64, 0).await.unwrap_err());
    assert_eq!(readiness(&server).await, ServingStatus::Serving);

    store.restart().await;
    got.extend(device.download(&digest, got.len() as u64, 0).await.unwrap());
    assert!(got == bytes);
}

async fn readiness(server: &ServerProcess) -> ServingStatus {
    let request = HealthCheckRequest { service: READINESS.to_owned() };
    let mut client = HealthClient::new(credential::connect(&server.url()));
    client.check(request).await.unwrap().get_ref().status()
}

#[tokio::test]
async fn a_store_that_refuses_the_server_is_named_before_the_first_upload() {
    let Some(store) = ObjectStore::start().await else { return };
    let shared = Shared::fresh().await;
    let wrong = [
        ("AWS_SECRET_ACCESS_KEY", "another", "SignatureDoesNotMatch", "check the access key"),
        ("AWS_ACCESS_KEY_ID", "ANOTHER", "InvalidAccessKeyId", "check the access key"),
        ("OTA_BLOB_STORE", "s3://nowhere/ota", "NoSuchBucket", "make the bucket"),
    ];
    for (name, value, code, hint) in wrong {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new(&Binaries::get().server);
        command.args(["--listen", "127.0.0.1:0", "--data-dir"]).arg(folder.path());
        let ended = timeout(PATIENCE, run(command.envs(shared.environment(&store)).env(name, value))).await;
        let output = ended.unwrap_or_else(|_| panic!("{name}: the server starts"));
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{name}: {told}");
        let place = if name == "OTA_BLOB_STORE" { value.to_owned() } else { store.url() };
        for part in [format!("the object store {place} refuses the server: {code}"), format!("hint: {hint}")] {
            assert!(told.contains(&part), "{name}: {told}");
        }
    }
    assert!(store.multipart_uploads().await.is_empty());
}

#[tokio::test]
async fn whoever_uploads_learns_that_the_store_refuses_the_server() {
    let Some((server, store, _shared)) = alone().await else { return };
    let bytes = unique_payload(PART + MIB);
    let operator = server.admin();
    let device = device_with(&operator, &bytes).await;
    store.delete_bucket().await;
    let other = unique_payload(MIB);
    let upload = announce(&operator, &other).await;
    let uploaded = send_rest(&operator, &upload, &other).await.unwrap_err();
    let downloaded = device.download(&sha256(&bytes).0, 0, 0).await.unwrap_err();
    for status in [uploaded, downloaded] {
        assert_outage(&status);
        assert_eq!(status.message(), REFUSED);
    }

    let file = server.scratch().join("app");
    std::fs::write(&file, unique_payload(MIB)).unwrap();
    let log = server.scratch().join("otactl.log");
    let mut otactl = std::process::Command::new(&Binaries::get().otactl);
    otactl.env("OTACTL_CONFIG", server.scratch().join("otactl.toml")).args(["--no-input", "--server", &server.url()]);
    otactl.arg("--token-file").arg(server.admin_token_file()).arg("--ca-file").arg(server.authority_file());
    otactl.arg("upload").arg(&file).args(["--package", "app", "--version", "2.0.0"]);
    // It goes on trying for a while, and says from the first time on what is wrong.
    let _otactl = Process::start(&mut otactl, &log, None);
    eventually("otactl says who refuses whom", PATIENCE, async || {
        std::fs::read_to_string(&log).ok()?.contains(REFUSED).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_server_starts_while_the_store_is_away() {
    let Some(mut store) = ObjectStore::start().await else { return };
    let shared = Shared::fresh().await;
    store.kill();
    let server = shared.server(&store, &[]).await;
    assert_eq!(readiness(&server).await, ServingStatus::Serving);
    store.restart().await;
    server.admin().upload(&unique_payload(MIB)).await;
}

#[tokio::test]
async fn a_large_payload_costs_the_server_little_memory() {
    let Some((mut server, _store, _shared)) = alone().await else { return };
    // Once through everything: what is loaded and set up then belongs to being idle.
    let operator = server.admin();
    let small = unique_payload(3 * PART);
    let device = device_with(&operator, &small).await;
    device.download(&sha256(&small).0, 0, 0).await.unwrap();
    let memory = |server: &mut ServerProcess, line| server.process().memory_bytes(line).unwrap();
    let idle = memory(&mut server, "VmRSS");
    let large = unique_payload(256 * MIB);
    let release = operator.publish("app", "2.0.0", &large).await;
    operator.assign(&release, &[&device]).await;
    device.granted().await;
    let (mut at, size) = (0, large.len() as u64);
    while at < size {
        let got = device.download(&sha256(&large).0, at, (size - at).min(64 * MIB as u64)).await.unwrap();
        assert!(got == large[at as usize..at as usize + got.len()]);
        at += got.len() as u64;
    }
    let peak = memory(&mut server, "VmHWM");
    eprintln!("ota-server: {} MiB when idle, {} MiB at most", idle >> 20, peak >> 20);
    assert!(peak < idle + 64 * MIB as u64, "{peak} bytes at most, {idle} when idle");
}
