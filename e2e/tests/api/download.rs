//! `UpdateService.Download`: any range of what the device needs, and of nothing else.

use bytes::Bytes;
use ota_e2e::{TestDevice, TestServer, assert_refused, assert_violates, device::payload, operator::unique_payload};
use ota_proto::device::v1::{DownloadRequest, EncodingKind};
use tonic::{Code, Status};

/// More than one reading of the server's, and not a multiple of anything.
const SIZE: usize = 2 * 1024 * 1024 + 12_345;

const PIECE: u64 = 256 * 1024;

/// A device to which `bytes` are assigned, and their name.
async fn assigned(server: &TestServer, bytes: &Bytes) -> (TestDevice, Bytes) {
    let admin = server.admin();
    let device = admin.enroll().await;
    let release = admin.publish("app", "1.0.0", bytes).await;
    admin.assign(&release, &[&device]).await;
    let deployment = device.granted().await;
    (device, payload(&deployment).sha256)
}

/// Asks for a range as it is, sane or not, and returns how that ends.
async fn ask(device: &TestDevice, request: DownloadRequest) -> Status {
    match device.updates().download(request).await {
        Err(status) => status,
        Ok(stream) => stream.into_inner().message().await.expect_err("a refusal"),
    }
}

#[tokio::test]
async fn every_range_brings_its_bytes() {
    let server = TestServer::start().await;
    let bytes = unique_payload(SIZE);
    let (device, sha256) = assigned(&server, &bytes).await;
    let size = SIZE as u64;
    let edges = [0, 1, PIECE - 1, PIECE, PIECE + 1, 4 * PIECE - 1, 4 * PIECE, 4 * PIECE + 1, size - 1, size];
    for offset in edges {
        let left = size - offset;
        let lengths = [1, PIECE - 1, PIECE, PIECE + 1, 4 * PIECE, 4 * PIECE + 1, left.saturating_sub(1), left, 0];
        for length in lengths.into_iter().filter(|length| *length <= left) {
            // No length means up to the end.
            let end = if length == 0 { size } else { offset + length };
            let got = device.download(&sha256, offset, length).await.unwrap();
            assert!(got == bytes[offset as usize..end as usize], "{length} bytes from {offset}");
        }
    }
}

#[tokio::test]
async fn a_payload_of_one_byte_arrives() {
    let server = TestServer::start().await;
    let bytes = Bytes::from_static(b"x");
    let (device, sha256) = assigned(&server, &bytes).await;
    assert_eq!(device.download(&sha256, 0, 0).await.unwrap(), b"x");
    assert_eq!(device.download(&sha256, 1, 0).await.unwrap(), b"");
}

#[tokio::test]
async fn a_range_outside_the_payload_is_refused() {
    let server = TestServer::start().await;
    let (device, sha256) = assigned(&server, &unique_payload(1_000)).await;
    for (offset, length) in [(1_001, 0), (0, 1_001), (999, 2), (1_000, 1), (-1, 0), (0, -1), (i64::MAX, i64::MAX)] {
        let request = DownloadRequest { sha256: sha256.clone(), offset, length, ..Default::default() };
        let status = ask(&device, request).await;
        assert_refused(&status, Code::OutOfRange, "RANGE_INVALID");
    }
    assert_eq!(device.download(&sha256, 0, 0).await.unwrap().len(), 1_000);
}

#[tokio::test]
async fn a_payload_that_no_deployment_names_is_not_found() {
    let server = TestServer::start().await;
    let (device, sha256) = assigned(&server, &unique_payload(1_000)).await;
    let uploaded = server.admin().upload(&unique_payload(1_000)).await;
    for unassigned in [&uploaded.0[..], &[7; 32]] {
        let status = device.download(unassigned, 0, 0).await.unwrap_err();
        assert_refused(&status, Code::NotFound, "PAYLOAD_NOT_ASSIGNED");
    }
    let other = server.admin().enroll().await;
    let status = other.download(&sha256, 0, 0).await.unwrap_err();
    assert_refused(&status, Code::NotFound, "PAYLOAD_NOT_ASSIGNED");
}

#[tokio::test]
async fn a_payload_whose_deployment_has_ended_is_not_found() {
    let server = TestServer::start().await;
    let admin = server.admin();
    let device = admin.enroll().await;
    let release = admin.publish("app", "1.0.0", &unique_payload(1_000)).await;
    admin.assign(&release, &[&device]).await;
    let deployment = device.granted().await;
    device.complete(&deployment).await;
    let status = device.download(&payload(&deployment).sha256, 0, 0).await.unwrap_err();
    assert_refused(&status, Code::NotFound, "PAYLOAD_NOT_ASSIGNED");
}

#[tokio::test]
async fn what_is_no_sha256_is_told_so() {
    let server = TestServer::start().await;
    let (device, _) = assigned(&server, &unique_payload(1_000)).await;
    for sha256 in [&[][..], &[7; 31], &[7; 33]] {
        let request = DownloadRequest { sha256: Bytes::copy_from_slice(sha256), ..Default::default() };
        assert_violates(&ask(&device, request).await, "sha256");
    }
}

#[tokio::test]
async fn encodings_that_do_not_exist_are_refused() {
    let server = TestServer::start().await;
    let (device, sha256) = assigned(&server, &unique_payload(1_000)).await;
    for encoding in [EncodingKind::Zstd.into(), EncodingKind::Patch.into(), 4_711] {
        let request = DownloadRequest { sha256: sha256.clone(), encoding, ..Default::default() };
        let status = ask(&device, request).await;
        assert_refused(&status, Code::FailedPrecondition, "ENCODING_UNAVAILABLE");
    }
}

#[tokio::test]
async fn a_device_that_goes_away_in_the_middle_leaves_the_server_well() {
    let server = TestServer::start().await;
    let bytes = unique_payload(SIZE);
    let (device, sha256) = assigned(&server, &bytes).await;
    for _ in 0..20 {
        let request = DownloadRequest { sha256: sha256.clone(), ..Default::default() };
        let mut stream = device.updates().download(request).await.unwrap().into_inner();
        stream.message().await.unwrap().expect("a first piece");
    }
    assert!(device.download(&sha256, 0, 0).await.unwrap() == bytes);
}
