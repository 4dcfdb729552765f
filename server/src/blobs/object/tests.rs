//! Uploads against the library's store in memory, which behaves as S3 does but for the names it gives to parts.

use object_store::memory::InMemory;
use ota_domain::UploadId;

use super::*;
use crate::blobs::{Blobs, Closed, Stopped};

const PART: usize = INTERVAL as usize;

/// Two parts and a rest, of bytes that differ from part to part.
fn content() -> Bytes {
    (0..2 * PART + 1_000).map(|i| (i % 251) as u8).collect::<Vec<_>>().into()
}

fn payload(bytes: &Bytes) -> Payload {
    let mut hash = super::super::Hash::default();
    hash.update(bytes);
    Payload { sha256: hash.digest(), size_bytes: bytes.len() as u64 }
}

fn blobs() -> (Blobs, Arc<InMemory>) {
    let memory = Arc::new(InMemory::new());
    let remote = Remote { store: memory.clone(), place: "s3://bucket/ota".into() };
    let bucket = Bucket { remote, prefix: Path::from("ota") };
    (Blobs { store: crate::blobs::Store::Bucket(bucket), uploads: Default::default() }, memory)
}

/// What a checkpoint is after it was stored and read again.
fn stored(checkpoint: &Checkpoint) -> Checkpoint {
    Checkpoint {
        received_bytes: checkpoint.received_bytes,
        hash: super::super::Hash::from_state(&checkpoint.hash.state()).unwrap(),
        parts: serde_json::from_str(&serde_json::to_string(&checkpoint.parts).unwrap()).unwrap(),
    }
}

async fn resume(blobs: &Blobs, payload: Payload, checkpoint: &Checkpoint) -> Resumed {
    let claim = blobs.claim(UploadId(uuid::Uuid::nil()), payload).await.unwrap();
    claim.resume(stored(checkpoint)).await.unwrap()
}

/// Sends bytes in pieces whose size has nothing to do with that of the parts.
async fn send(resumed: Resumed, bytes: &Bytes) -> Closed {
    let Resumed::Writing(mut writer) = resumed else { panic!("there is something to send: {resumed:?}") };
    let mut rest = bytes.clone();
    while !rest.is_empty() {
        let piece = rest.split_to(rest.len().min(300_001));
        if let Err(Stopped) = writer.write(piece).await {
            break;
        }
    }
    writer.close().await
}

#[tokio::test]
async fn an_upload_that_stops_goes_on_behind_the_last_whole_part() {
    let (blobs, _) = blobs();
    let content = content();
    let payload = payload(&content);
    let nothing = Checkpoint::default();
    let first = send(resume(&blobs, payload, &nothing).await, &content.slice(..PART + 500)).await;
    first.result.unwrap();
    assert_eq!(first.checkpoint.received_bytes, INTERVAL);

    let second = send(resume(&blobs, payload, &first.checkpoint).await, &content.slice(PART..)).await;
    second.result.unwrap();
    assert_eq!(second.checkpoint.received_bytes, payload.size_bytes);
    assert_eq!(second.checkpoint.hash.digest(), payload.sha256);

    assert!(blobs.reader(payload).await.unwrap().read(0, 1).await.is_err(), "nothing is there before it is published");
    second.claim.publish(&second.checkpoint.parts).await.unwrap();
    let reader = blobs.reader(payload).await.unwrap();
    for (offset, length) in [(0, content.len()), (PART - 1, 2), (content.len() - 1, 1)] {
        assert!(reader.read(offset as u64, length).await.unwrap() == content[offset..offset + length]);
    }
}

#[tokio::test]
async fn the_store_is_told_of_an_upload_before_its_first_part() {
    let (blobs, _) = blobs();
    let content = content();
    let Resumed::Writing(mut writer) = resume(&blobs, payload(&content), &Checkpoint::default()).await else {
        panic!("nothing is there");
    };
    let begun = writer.checkpoint().expect("the name of the multipart upload is to be recorded");
    assert!(begun.received_bytes == 0 && begun.parts.multipart.is_some());
    assert!(writer.checkpoint().is_none(), "each checkpoint is told once");
}

#[tokio::test]
async fn a_payload_whose_commit_was_lost_is_found() {
    let (blobs, _) = blobs();
    let content = content();
    let payload = payload(&content);
    let all = send(resume(&blobs, payload, &Checkpoint::default()).await, &content).await;
    all.claim.publish(&all.checkpoint.parts).await.unwrap();
    let Resumed::Complete(claim) = resume(&blobs, payload, &all.checkpoint).await else { panic!("it is complete") };
    claim.publish(&all.checkpoint.parts).await.unwrap();
    blobs.delete(payload.sha256).await.unwrap();
    blobs.delete(payload.sha256).await.unwrap();
}

#[tokio::test]
async fn a_checkpoint_without_its_parts_is_lost() {
    let (blobs, _) = blobs();
    let checkpoint = Checkpoint { received_bytes: INTERVAL, ..Checkpoint::default() };
    assert!(matches!(resume(&blobs, payload(&content()), &checkpoint).await, Resumed::Lost(_)));
}

#[tokio::test]
async fn an_upload_that_was_discarded_takes_nothing_more() {
    let (blobs, memory) = blobs();
    let content = content();
    let payload = payload(&content);
    let first = send(resume(&blobs, payload, &Checkpoint::default()).await, &content.slice(..PART)).await;
    let multipart = first.checkpoint.parts.multipart.clone().unwrap();
    first.claim.discard(&first.checkpoint.parts).await.unwrap();
    let path = Path::from("ota/x");
    assert!(memory.put_part(&path, &multipart, 1, Bytes::from_static(b"x").into()).await.is_err());
    let second = send(resume(&blobs, payload, &first.checkpoint).await, &content.slice(PART..)).await;
    assert!(second.result.is_err());
    assert_eq!(second.checkpoint.received_bytes, INTERVAL);
}

#[test]
fn parts_are_few_enough_for_the_largest_payload() {
    let (blobs, _) = blobs();
    let crate::blobs::Store::Bucket(bucket) = &blobs.store else { panic!("a bucket") };
    for size_bytes in [1, INTERVAL, INTERVAL * MAX_PARTS, INTERVAL * MAX_PARTS + 1, 5 << 40] {
        let part = bucket.claim(Payload { sha256: Sha256Digest([0; 32]), size_bytes }).part_bytes();
        assert!(part >= INTERVAL && size_bytes.div_ceil(part) <= MAX_PARTS, "{size_bytes}");
    }
}

#[test]
fn a_bucket_has_a_name() {
    assert!(matches!(Bucket::open("/prefix", None), Err(OpenError::Scheme(_))));
    assert!(matches!(Blobs::open("ftp://host/x", None), Err(OpenError::Scheme(_))));
}
