//! Payloads in a real S3-compatible store, through real servers: nothing is lost, nothing is left behind, and whoever waits
//! learns why.

use bytes::Bytes;
use ota_e2e::{
    Operator, TestDevice,
    device::{payload, sha256},
    eventually,
    operator::{PIECE_BYTES, pieces, unique_payload},
};
use ota_proto::admin::v1::{
    CreateUploadRequest, GetUploadRequest, Upload, UploadPayloadRequest, create_upload_response::Presence,
};
use tokio::{sync::mpsc, task::JoinHandle};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::replicas::{PATIENCE, Replicas};

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
