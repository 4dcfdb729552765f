//! The blob store is full: what came is kept, and goes on when there is space again.

use bytes::Bytes;
use ota_e2e::{
    Options, SmallDisk, TestServer, assert_refused,
    device::sha256,
    operator::{pieces, unique_payload},
};
use ota_proto::admin::v1::{CreateUploadRequest, GetUploadRequest, Upload, create_upload_response::Presence};
use tonic::Code;

const MIB: usize = 1024 * 1024;

async fn announce(server: &TestServer, bytes: &Bytes) -> Upload {
    let upload = Upload { sha256: sha256(bytes).to_string(), size_bytes: bytes.len() as i64, ..Default::default() };
    let request = CreateUploadRequest { upload: Some(upload) };
    match server.admin().packages().create_upload(request).await.unwrap().into_inner().presence {
        Some(Presence::Upload(upload)) => upload,
        Some(Presence::Payload(_)) | None => panic!("the server had these bytes already"),
    }
}

#[tokio::test]
async fn what_came_is_kept_and_the_upload_goes_on_when_there_is_space() {
    let Some(disk) = SmallDisk::make("a full blob store", 4 * MIB) else { return };
    let blob_store = Some(disk.path().join("blobs").to_string_lossy().into_owned());
    let server = TestServer::with(Options { blob_store, ..Options::default() }).await;
    let bytes = unique_payload(6 * MIB);
    let upload = announce(&server, &bytes).await;
    let mut packages = server.admin().packages();

    let sent = packages.upload_payload(tokio_stream::iter(pieces(&upload.name, &bytes, 0))).await;
    assert_refused(&sent.unwrap_err(), Code::ResourceExhausted, "BLOB_STORE_FULL");
    let request = GetUploadRequest { name: upload.name.clone() };
    let kept = packages.get_upload(request).await.unwrap().into_inner().upload.unwrap().offset;
    assert!((2 * MIB..=4 * MIB).contains(&usize::try_from(kept).unwrap()), "{kept} bytes were kept");
    // Nobody can be given a payload that is not whole.
    let name = format!("payloads/{}", upload.sha256);
    let request = ota_proto::admin::v1::GetPayloadRequest { name };
    assert_refused(&packages.get_payload(request).await.unwrap_err(), Code::NotFound, "PAYLOAD_NOT_FOUND");

    disk.resize(16 * MIB);
    let sent = packages.upload_payload(tokio_stream::iter(pieces(&upload.name, &bytes, kept))).await;
    assert_eq!(sent.unwrap().into_inner().payload.unwrap().size_bytes, bytes.len() as i64);

    let admin = server.admin();
    let device = admin.enroll().await;
    let release = admin.publish("app", "1.0.0", &bytes).await;
    admin.assign(&release, &[&device]).await;
    let deployment = device.granted().await;
    device.complete(&deployment).await;
    server.stop().await;
}
