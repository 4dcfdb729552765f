//! `PackageService`: uploads. Whatever happens, what the server says it has is there, and what is not a payload is no
//! payload.

use std::{fs, path::PathBuf, time::Duration};

use bytes::Bytes;
use chrono::{TimeDelta, Utc};
use ota_domain::Sha256Digest;
use ota_e2e::{
    Operator, Options, TestServer, assert_refused, assert_violates, eventually,
    operator::{PIECE_BYTES, pieces, unique_payload},
};
use ota_proto::admin::v1::{
    CreateUploadRequest, DeletePayloadRequest, DeleteUploadRequest, GetPayloadRequest, GetUploadRequest,
    ListEventsRequest, Upload, UploadPayloadRequest, create_upload_response::Presence,
};
use sha2::{Digest as _, Sha256};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};

/// Several pieces and a rest.
const SIZE: usize = 3 * PIECE_BYTES + 1_000;

/// Until a broken test fails.
const DEADLINE: Duration = Duration::from_secs(20);

fn digest(bytes: &[u8]) -> Sha256Digest {
    Sha256Digest(Sha256::digest(bytes).into())
}

async fn announce(operator: &Operator, sha256: &str, size_bytes: i64) -> Result<Presence, Status> {
    let upload = Upload { sha256: sha256.to_owned(), size_bytes, ..Default::default() };
    let request = CreateUploadRequest { upload: Some(upload) };
    Ok(operator.packages().create_upload(request).await?.into_inner().presence.expect("an answer says what there is"))
}

/// The upload of bytes that the server does not have in full.
async fn begin(operator: &Operator, bytes: &[u8]) -> Upload {
    match announce(operator, &digest(bytes).to_string(), bytes.len() as i64)
        .await
        .expect("a publisher announces a payload")
    {
        Presence::Upload(upload) => upload,
        Presence::Payload(payload) => panic!("{} is there already", payload.name),
    }
}

async fn send(operator: &Operator, pieces: Vec<UploadPayloadRequest>) -> Result<String, Status> {
    let sent = operator.packages().upload_payload(tokio_stream::iter(pieces)).await?;
    Ok(sent.into_inner().payload.expect("an answer has the payload").name)
}

async fn offset(operator: &Operator, name: &str) -> Result<i64, Status> {
    let request = GetUploadRequest { name: name.to_owned() };
    Ok(operator.packages().get_upload(request).await?.into_inner().upload.expect("an answer has the upload").offset)
}

async fn is_payload(operator: &Operator, sha256: Sha256Digest) -> bool {
    let request = GetPayloadRequest { name: format!("payloads/{sha256}") };
    operator.packages().get_payload(request).await.is_ok()
}

fn unfinished(server: &TestServer, upload: &Upload) -> PathBuf {
    server.blob_store().join("uploads").join(upload.name.strip_prefix("uploads/").expect("the name of an upload"))
}

fn blob(server: &TestServer, sha256: Sha256Digest) -> PathBuf {
    let name = sha256.to_string();
    server.blob_store().join("sha256").join(&name[..2]).join(name)
}

/// Sets what the server believes to have, as a crash at some moment would leave it.
async fn believe(server: &TestServer, upload: &Upload, bytes: &[u8]) {
    let mut hash = ota_server::blobs::Hash::default();
    hash.update(bytes);
    sqlx::query("UPDATE upload SET received_bytes = $1, hash_state = $2")
        .bind(bytes.len() as i64)
        .bind(hash.state())
        .execute(server.pool())
        .await
        .expect("an update");
    assert_eq!(offset(&server.admin(), &upload.name).await.expect("the upload"), bytes.len() as i64);
}

#[tokio::test]
async fn an_uploaded_payload_is_there_under_its_name_and_recorded_once() {
    let server = TestServer::start().await;
    let admin = server.admin();
    let bytes = unique_payload(SIZE);
    let upload = begin(&admin, &bytes).await;
    let name = send(&admin, pieces(&upload.name, &bytes, 0)).await.unwrap();
    assert_eq!(name, format!("payloads/{}", digest(&bytes)));
    assert!(fs::read(blob(&server, digest(&bytes))).unwrap() == bytes);
    assert!(!unfinished(&server, &upload).exists());
    let answer = announce(&admin, &digest(&bytes).to_string(), SIZE as i64).await.unwrap();
    assert!(matches!(answer, Presence::Payload(payload) if payload.name == name && payload.size_bytes == SIZE as i64));
    let events = admin.events().list_events(ListEventsRequest::default()).await.unwrap().into_inner().events;
    assert_eq!(events.iter().filter(|event| event.kind == "payload.stored" && event.subject == name).count(), 1);
}

#[tokio::test]
async fn what_cannot_be_a_payload_is_refused_when_announced() {
    let options = Options { max_payload_bytes: 1_000, ..Options::default() };
    let server = TestServer::with(options).await;
    let admin = server.admin();
    let sha256 = digest(b"x").to_string();
    for size in [0, -1] {
        assert_violates(&announce(&admin, &sha256, size).await.unwrap_err(), "upload.size_bytes");
    }
    for sha256 in ["", "12", &"g".repeat(64), &"7".repeat(65)] {
        assert_violates(&announce(&admin, sha256, 1).await.unwrap_err(), "upload.sha256");
    }
    for size in [1_001, i64::MAX] {
        let status = announce(&admin, &sha256, size).await.unwrap_err();
        assert_refused(&status, Code::FailedPrecondition, "PAYLOAD_TOO_LARGE");
    }
    let uploads: i64 = sqlx::query_scalar("SELECT count(*) FROM upload").fetch_one(server.pool()).await.unwrap();
    assert_eq!(uploads, 0);
    admin.upload(&unique_payload(1_000)).await;
}

#[tokio::test]
async fn a_truncated_upload_keeps_what_came_and_goes_on() {
    let server = TestServer::start().await;
    let admin = server.admin();
    let bytes = unique_payload(SIZE);
    let upload = begin(&admin, &bytes).await;
    let half = pieces(&upload.name, &bytes, 0).into_iter().take(2).collect();
    let status = send(&admin, half).await.unwrap_err();
    assert_refused(&status, Code::Cancelled, "UPLOAD_INCOMPLETE");
    assert!(!is_payload(&admin, digest(&bytes)).await);
    // On another replica, as after a failover.
    let replica = server.replica().await;
    let admin = admin.at(&replica.url());
    let again = begin(&admin, &bytes).await;
    assert_eq!((again.name.as_str(), again.offset), (upload.name.as_str(), 2 * PIECE_BYTES as i64));
    send(&admin, pieces(&again.name, &bytes, again.offset)).await.unwrap();
    assert!(fs::read(blob(&server, digest(&bytes))).unwrap() == bytes);
}

#[tokio::test]
async fn a_client_that_goes_away_finds_all_that_it_sent() {
    let server = TestServer::start().await;
    let admin = server.admin();
    let bytes = unique_payload(SIZE);
    let upload = begin(&admin, &bytes).await;
    let (sender, receiver) = tokio::sync::mpsc::channel(4);
    for piece in pieces(&upload.name, &bytes, 0).into_iter().take(3) {
        sender.send(piece).await.unwrap();
    }
    let mut client = admin.packages();
    let stream = tokio::spawn(async move { client.upload_payload(ReceiverStream::new(receiver)).await });
    let sent = 3 * PIECE_BYTES as u64;
    eventually("the server has what was sent", DEADLINE, async || {
        fs::metadata(unfinished(&server, &upload)).ok().filter(|file| file.len() == sent)
    })
    .await;
    stream.abort();
    eventually("the server says so", DEADLINE, async || {
        (offset(&admin, &upload.name).await.unwrap() as u64 == sent).then_some(())
    })
    .await;
    send(&admin, pieces(&upload.name, &bytes, sent as i64)).await.unwrap();
    drop(sender);
}

#[tokio::test]
async fn bytes_with_another_hash_are_dropped() {
    let server = TestServer::start().await;
    let admin = server.admin();
    let (declared, sent) = (unique_payload(SIZE), unique_payload(SIZE));
    let upload = begin(&admin, &declared).await;
    let status = send(&admin, pieces(&upload.name, &sent, 0)).await.unwrap_err();
    assert_refused(&status, Code::InvalidArgument, "CHECKSUM_MISMATCH");
    assert!(!unfinished(&server, &upload).exists());
    assert!(!is_payload(&admin, digest(&declared)).await && !is_payload(&admin, digest(&sent)).await);
    let status = offset(&admin, &upload.name).await.unwrap_err();
    assert_refused(&status, Code::NotFound, "UPLOAD_NOT_FOUND");
    assert_eq!(begin(&admin, &declared).await.offset, 0);
}

#[tokio::test]
async fn a_wrong_piece_stops_the_upload_behind_the_right_ones() {
    let server = TestServer::start().await;
    let admin = server.admin();
    let bytes = unique_payload(SIZE);
    let upload = begin(&admin, &bytes).await;
    let spoilt = |number: usize, spoil: &dyn Fn(&mut UploadPayloadRequest)| {
        let mut pieces = pieces(&upload.name, &bytes, number as i64 * PIECE_BYTES as i64);
        spoil(&mut pieces[1]);
        pieces
    };
    let status = send(&admin, spoilt(0, &|piece| piece.crc32c ^= 1)).await.unwrap_err();
    assert_refused(&status, Code::DataLoss, "CHUNK_CORRUPT");
    assert_eq!(offset(&admin, &upload.name).await.unwrap(), PIECE_BYTES as i64);
    for wrong in [0, PIECE_BYTES as i64 - 1, PIECE_BYTES as i64 + 1, -1, i64::MIN, i64::MAX] {
        let mut pieces = pieces(&upload.name, &bytes, PIECE_BYTES as i64);
        pieces[0].offset = wrong;
        let status = send(&admin, pieces).await.unwrap_err();
        assert_refused(&status, Code::Aborted, "OFFSET_MISMATCH");
    }
    let status = send(&admin, spoilt(1, &|piece| piece.offset += 1)).await.unwrap_err();
    assert_refused(&status, Code::Aborted, "OFFSET_MISMATCH");
    assert_eq!(offset(&admin, &upload.name).await.unwrap(), 2 * PIECE_BYTES as i64);
    send(&admin, pieces(&upload.name, &bytes, 2 * PIECE_BYTES as i64)).await.unwrap();
}

#[tokio::test]
async fn bytes_past_the_end_are_refused_and_publish_nothing() {
    let server = TestServer::start().await;
    let admin = server.admin();
    let bytes = unique_payload(SIZE);
    let mut longer = bytes.to_vec();
    longer.push(0);
    let longer = Bytes::from(longer);
    let upload = begin(&admin, &bytes).await;
    let status = send(&admin, pieces(&upload.name, &longer, 0)).await.unwrap_err();
    assert_refused(&status, Code::OutOfRange, "RANGE_INVALID");
    assert!(!is_payload(&admin, digest(&bytes)).await);
    // Also when the bytes before came to the payload exactly.
    let mut exact = pieces(&upload.name, &bytes, offset(&admin, &upload.name).await.unwrap());
    exact.extend(pieces("", &longer, SIZE as i64));
    let status = send(&admin, exact).await.unwrap_err();
    assert_refused(&status, Code::OutOfRange, "RANGE_INVALID");
    assert!(!is_payload(&admin, digest(&bytes)).await);
    // All bytes are there: to go on is to say so.
    assert_eq!(offset(&admin, &upload.name).await.unwrap(), SIZE as i64);
    let nothing = UploadPayloadRequest { name: upload.name, offset: SIZE as i64, ..Default::default() };
    send(&admin, vec![nothing]).await.unwrap();
}

#[tokio::test]
async fn two_streams_never_write_to_one_upload() {
    let server = TestServer::start().await;
    let admin = server.admin();
    let bytes = unique_payload(SIZE);
    let upload = begin(&admin, &bytes).await;
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    let mut all = pieces(&upload.name, &bytes, 0).into_iter();
    let mut client = admin.packages();
    let stream = tokio::spawn(async move { client.upload_payload(ReceiverStream::new(receiver)).await });
    sender.send(all.next().unwrap()).await.unwrap();
    eventually("the first stream writes", DEADLINE, async || {
        fs::metadata(unfinished(&server, &upload)).ok().filter(|file| file.len() > 0)
    })
    .await;
    let replica = server.replica().await;
    for other in [&admin, &admin.at(&replica.url())] {
        let status = send(other, pieces(&upload.name, &bytes, 0)).await.unwrap_err();
        assert_refused(&status, Code::Aborted, "UPLOAD_BUSY");
        let request = DeleteUploadRequest { name: upload.name.clone() };
        let status = other.packages().delete_upload(request).await.unwrap_err();
        assert_refused(&status, Code::Aborted, "UPLOAD_BUSY");
    }
    for piece in all {
        sender.send(piece).await.unwrap();
    }
    drop(sender);
    stream.await.unwrap().unwrap();
    assert!(fs::read(blob(&server, digest(&bytes))).unwrap() == bytes);
}

#[tokio::test]
async fn a_full_disk_refuses_and_keeps_what_came() {
    let server = TestServer::start().await;
    let admin = server.admin();
    let bytes = unique_payload(SIZE);
    let upload = begin(&admin, &bytes).await;
    // A device that is always full, where the file would be.
    std::os::unix::fs::symlink("/dev/full", unfinished(&server, &upload)).unwrap();
    let status = send(&admin, pieces(&upload.name, &bytes, 0)).await.unwrap_err();
    assert_refused(&status, Code::ResourceExhausted, "BLOB_STORE_FULL");
    assert_eq!(offset(&admin, &upload.name).await.unwrap(), 0);
    fs::remove_file(unfinished(&server, &upload)).unwrap();
    send(&admin, pieces(&upload.name, &bytes, 0)).await.unwrap();
}

#[tokio::test]
async fn what_was_written_after_the_last_checkpoint_is_written_again() {
    let server = TestServer::start().await;
    let admin = server.admin();
    let bytes = unique_payload(SIZE);
    let upload = begin(&admin, &bytes).await;
    // A server that was killed: the file is ahead of what was recorded, and what is ahead may be anything.
    let mut file = bytes[..1_000].to_vec();
    file.extend_from_slice(&[0; 5_000]);
    fs::write(unfinished(&server, &upload), file).unwrap();
    believe(&server, &upload, &bytes[..1_000]).await;
    send(&admin, pieces(&upload.name, &bytes, 1_000)).await.unwrap();
    assert!(fs::read(blob(&server, digest(&bytes))).unwrap() == bytes);
}

#[tokio::test]
async fn bytes_in_place_whose_commit_was_lost_become_the_payload() {
    let server = TestServer::start().await;
    let admin = server.admin();
    let bytes = unique_payload(SIZE);
    let upload = begin(&admin, &bytes).await;
    believe(&server, &upload, &bytes).await;
    fs::create_dir_all(blob(&server, digest(&bytes)).parent().unwrap()).unwrap();
    fs::write(blob(&server, digest(&bytes)), &bytes).unwrap();
    let nothing = UploadPayloadRequest { name: upload.name.clone(), offset: SIZE as i64, ..Default::default() };
    send(&admin, vec![nothing]).await.unwrap();
    assert!(is_payload(&admin, digest(&bytes)).await && !unfinished(&server, &upload).exists());
    assert!(fs::read(blob(&server, digest(&bytes))).unwrap() == bytes);
}

#[tokio::test]
async fn an_upload_whose_bytes_are_gone_begins_again() {
    let server = TestServer::start().await;
    let admin = server.admin();
    let bytes = unique_payload(SIZE);
    let upload = begin(&admin, &bytes).await;
    believe(&server, &upload, &bytes[..1_000]).await;
    fs::write(unfinished(&server, &upload), &bytes[..999]).unwrap();
    let status = send(&admin, pieces(&upload.name, &bytes, 1_000)).await.unwrap_err();
    assert_refused(&status, Code::NotFound, "UPLOAD_NOT_FOUND");
    let again = begin(&admin, &bytes).await;
    assert_eq!(again.offset, 0);
    send(&admin, pieces(&again.name, &bytes, 0)).await.unwrap();
}

#[tokio::test]
async fn an_upload_that_does_not_exist_leaves_no_file() {
    let server = TestServer::start().await;
    let admin = server.admin();
    let bytes = unique_payload(1_000);
    let unknown = "uploads/01890a5d-ac96-774b-bcce-b302099a8057";
    let status = send(&admin, pieces(unknown, &bytes, 0)).await.unwrap_err();
    assert_refused(&status, Code::NotFound, "UPLOAD_NOT_FOUND");
    for name in ["", "uploads/../../etc/passwd", "payloads/x"] {
        let mut pieces = pieces(unknown, &bytes, 0);
        pieces[0].name = name.to_owned();
        assert_violates(&send(&admin, pieces).await.unwrap_err(), "name");
    }
    assert_refused(&send(&admin, Vec::new()).await.unwrap_err(), Code::Cancelled, "UPLOAD_INCOMPLETE");
    assert_eq!(fs::read_dir(server.blob_store().join("uploads")).unwrap().count(), 0);
}

#[tokio::test]
async fn a_dropped_upload_leaves_nothing() {
    let server = TestServer::start().await;
    let admin = server.admin();
    let bytes = unique_payload(SIZE);
    let upload = begin(&admin, &bytes).await;
    let half = pieces(&upload.name, &bytes, 0).into_iter().take(2).collect();
    send(&admin, half).await.unwrap_err();
    let request = DeleteUploadRequest { name: upload.name.clone() };
    admin.packages().delete_upload(request.clone()).await.unwrap();
    assert!(!unfinished(&server, &upload).exists());
    let status = admin.packages().delete_upload(request).await.unwrap_err();
    assert_refused(&status, Code::NotFound, "UPLOAD_NOT_FOUND");
}

#[tokio::test]
async fn an_upload_is_forgotten_a_day_after_it_last_went_on() {
    let server = TestServer::start().await;
    let admin = server.admin();
    let bytes = unique_payload(SIZE);
    let upload = begin(&admin, &bytes).await;
    let half = pieces(&upload.name, &bytes, 0).into_iter().take(2).collect();
    send(&admin, half).await.unwrap_err();
    let expire = async |hours| {
        ota_server::app::uploads::expire(server.app(), Utc::now() + TimeDelta::hours(hours)).await.unwrap();
    };
    expire(23).await;
    assert_eq!(offset(&admin, &upload.name).await.unwrap(), 2 * PIECE_BYTES as i64);
    expire(25).await;
    let status = offset(&admin, &upload.name).await.unwrap_err();
    assert_refused(&status, Code::NotFound, "UPLOAD_NOT_FOUND");
    assert!(!unfinished(&server, &upload).exists());
}

#[tokio::test]
async fn bytes_of_a_deleted_payload_go_and_those_that_came_again_stay() {
    let server = TestServer::start().await;
    let admin = server.admin();
    let bytes = unique_payload(SIZE);
    let sha256 = admin.upload(&bytes).await;
    let delete = DeletePayloadRequest { name: format!("payloads/{sha256}") };
    admin.packages().delete_payload(delete.clone()).await.unwrap();
    assert!(!blob(&server, sha256).exists());
    let status = admin.packages().delete_payload(delete).await.unwrap_err();
    assert_refused(&status, Code::NotFound, "PAYLOAD_NOT_FOUND");
    // A server that was killed after the row was gone, and a client that uploads again before the bytes are.
    admin.upload(&bytes).await;
    sqlx::query("INSERT INTO dropped_payload VALUES ($1)").bind(&sha256.0[..]).execute(server.pool()).await.unwrap();
    ota_server::app::payloads::collect_dropped(server.app()).await.unwrap();
    assert!(blob(&server, sha256).exists());
    let notes: i64 = sqlx::query_scalar("SELECT count(*) FROM dropped_payload").fetch_one(server.pool()).await.unwrap();
    assert_eq!(notes, 0);
}
