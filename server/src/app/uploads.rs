//! Uploads: announced, received piece by piece, gone on with after an interruption, and turned into payloads.

use std::{future::Future, time::Duration};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use crc_fast::{CrcAlgorithm, checksum};
use futures_util::{Stream, StreamExt as _};
use ota_domain::{
    Sha256Digest, UploadId, Violations,
    event::Kind,
    payload::{Payload, Stored},
    upload::{LIFETIME, MAX_PIECE_BYTES, Upload},
};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{App, Error, Reason, Result, payloads};
use crate::{
    auth::Caller,
    blobs::{Checkpoint, Claim, Closed, Resumed, Writer},
    db::{self, event::NewEvent, upload::Unfinished},
};

/// How long a stream may send nothing before it is taken for dead and the upload is free for another one.
const STALL: Duration = Duration::from_secs(60);

/// Uploads forgotten in one round.
const BATCH: i64 = 100;

/// What there is of a payload that was announced.
#[derive(Debug)]
pub enum Presence {
    /// All of it.
    Payload(Stored),
    /// Nothing or a part.
    Upload(Upload),
}

/// A piece of a payload as it came.
#[derive(Debug)]
pub struct Piece {
    /// Where it starts.
    pub offset: u64,
    /// CRC-32C of the bytes.
    pub crc32c: u32,
    /// The bytes.
    pub data: Bytes,
}

/// The client went away, or its stream broke.
#[derive(Debug)]
pub struct Broken;

/// Announces a payload.
///
/// # Errors
/// `PAYLOAD_TOO_LARGE`; `Invalid` for a size that cannot be.
pub async fn create(app: &App, payload: Payload, now: DateTime<Utc>) -> Result<Presence> {
    let Payload { sha256, size_bytes } = payload;
    if size_bytes == 0 {
        return Err(Error::invalid("upload.size_bytes", "must be at least 1: an empty payload installs nothing"));
    }
    let most = app.settings.max_payload_bytes;
    if size_bytes > most {
        return Err(Error::refused(
            Reason::PayloadTooLarge,
            format!("the payload has {size_bytes} bytes and this server takes at most {most}"),
        ));
    }
    let mut tx = app.pool.begin().await?;
    if let Some(stored) = db::payload::find(&mut tx, sha256).await? {
        return if stored.payload == payload {
            Ok(Presence::Payload(stored))
        } else {
            let there = stored.payload.size_bytes;
            Err(Error::invalid("upload.size_bytes", format!("the bytes with this SHA-256 are {there} in number")))
        };
    }
    let id = UploadId(Uuid::now_v7());
    let upload = db::upload::announce(&mut tx, id, payload, now, now + LIFETIME).await?;
    tx.commit().await?;
    Ok(Presence::Upload(upload))
}

/// Reads an upload.
///
/// # Errors
/// `UPLOAD_NOT_FOUND`.
pub async fn get(app: &App, id: UploadId) -> Result<Upload> {
    Ok(find(&mut *app.pool.acquire().await?, id).await?.upload)
}

async fn find(connection: &mut PgConnection, id: UploadId) -> Result<Unfinished> {
    db::upload::find(connection, id).await?.ok_or_else(|| not_found(id))
}

fn not_found(id: UploadId) -> Error {
    Error::refused(
        Reason::UploadNotFound,
        format!("there is no uploads/{id}; it is complete, dropped or expired: announce the payload again"),
    )
}

/// Drops an upload and its bytes.
///
/// # Errors
/// `UPLOAD_NOT_FOUND`; `UPLOAD_BUSY`.
pub async fn delete(app: &App, id: UploadId) -> Result<()> {
    let unfinished = find(&mut *app.pool.acquire().await?, id).await?;
    let claim = app.blobs.claim(id, unfinished.upload.payload).await?;
    let unfinished = find(&mut *app.pool.acquire().await?, id).await?;
    forget(app, claim, id, &unfinished.checkpoint).await
}

/// Drops an upload: first its bytes, so that a crash in between leaves a row by which the rest is found again.
async fn forget(app: &App, claim: Claim, id: UploadId, checkpoint: &Checkpoint) -> Result<()> {
    claim.discard(&checkpoint.parts).await?;
    db::upload::delete(&mut *app.pool.acquire().await?, id).await?;
    Ok(())
}

/// Forgets uploads that nobody went on with in time.
///
/// # Errors
/// When the database or the blob store does not answer.
pub async fn expire(app: &App, now: DateTime<Utc>) -> Result<()> {
    let expired = db::upload::expired(&mut *app.pool.acquire().await?, now, BATCH).await?;
    for id in expired {
        match abandon(app, id).await {
            Ok(()) => tracing::info!(upload.id = %id, "forgot an upload that nobody went on with"),
            // Somebody goes on with it or dropped it.
            Err(Error::Refused { reason: Reason::UploadBusy | Reason::UploadNotFound, .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

async fn abandon(app: &App, id: UploadId) -> Result<()> {
    let Upload { payload, received_bytes, .. } = get(app, id).await?;
    delete(app, id).await?;
    // All bytes were there, so they may have been moved into place by a try whose commit was lost.
    if received_bytes == payload.size_bytes {
        let mut tx = app.pool.begin().await?;
        if db::payload::find(&mut tx, payload.sha256).await?.is_none() {
            db::payload::drop_bytes(&mut tx, payload.sha256).await?;
        }
        tx.commit().await?;
    }
    Ok(())
}

/// Receives an upload from its offset on. The work goes on when the caller drops the future, until `pieces` says that the
/// client is gone: then what came is put away, so that the client goes on behind it.
///
/// # Errors
/// As `UploadPayload` of the API. Unless the error says that the upload is gone, what came is kept.
pub async fn receive(
    app: &App,
    caller: &Caller,
    id: UploadId,
    pieces: impl Stream<Item = std::result::Result<Piece, Broken>> + Send + 'static,
    clock: fn() -> DateTime<Utc>,
) -> Result<Stored> {
    let receiving = Receiving { app: app.clone(), caller: caller.clone(), id, clock };
    app.blobs.uploads().spawn(receiving.run(pieces)).await.map_err(Error::internal)?
}

/// One stream that sends to one upload.
struct Receiving {
    app: App,
    caller: Caller,
    id: UploadId,
    clock: fn() -> DateTime<Utc>,
}

impl Receiving {
    async fn run(self, pieces: impl Stream<Item = std::result::Result<Piece, Broken>> + Send) -> Result<Stored> {
        let payload = get(&self.app, self.id).await?.payload;
        let claim = self.app.blobs.claim(self.id, payload).await?;
        // Read again: until the claim was ours, another stream may have gone on with the upload or completed it.
        let unfinished = find(&mut *self.app.pool.acquire().await?, self.id).await;
        let Unfinished { upload, checkpoint } = match unfinished {
            Err(error @ Error::Refused { .. }) => {
                claim.discard(&Checkpoint::default().parts).await?;
                return Err(error);
            }
            unfinished => unfinished?,
        };
        match claim.resume(checkpoint.clone()).await? {
            Resumed::Complete(claim) => self.finish(&claim, payload, &checkpoint).await,
            Resumed::Lost(claim) => self.lost(claim, &checkpoint).await,
            Resumed::Writing(mut writer) => {
                let mut recorded = upload.received_bytes;
                let poured = self.pour(&mut writer, &mut recorded, payload, pieces).await;
                let Closed { claim, checkpoint, result } = writer.close().await;
                self.record(&mut recorded, &checkpoint).await?;
                if let Err(Error::Refused { reason: Reason::UploadNotFound, .. }) = result {
                    return self.lost(claim, &checkpoint).await;
                }
                // The writer's reason first: the stream ends early because of it.
                result.and(poured)?;
                if checkpoint.hash.digest() == payload.sha256 {
                    self.finish(&claim, payload, &checkpoint).await
                } else {
                    self.refuse(claim, payload, &checkpoint).await
                }
            }
        }
    }

    /// Hands the pieces to the writer and records its checkpoints, until all bytes came or something is wrong.
    async fn pour(
        &self,
        writer: &mut Writer,
        recorded: &mut u64,
        payload: Payload,
        pieces: impl Stream<Item = std::result::Result<Piece, Broken>> + Send,
    ) -> Result<()> {
        let mut pieces = std::pin::pin!(pieces);
        let mut position = *recorded;
        loop {
            let (at, size) = (position, payload.size_bytes);
            let incomplete = |why| {
                Error::refused(Reason::UploadIncomplete, format!("{why} at byte {at} of {size}; go on from there"))
            };
            let piece = match within(STALL, pieces.next()).await {
                Some(Some(Ok(piece))) => piece,
                Some(None) if position == payload.size_bytes => return Ok(()),
                Some(None) => return Err(incomplete("the stream ended")),
                Some(Some(Err(Broken))) => return Err(incomplete("the stream broke")),
                None => return Err(incomplete("the stream stalled")),
            };
            piece.check(position, payload.size_bytes)?;
            position += piece.data.len() as u64;
            if !piece.data.is_empty() && writer.write(piece.data).await.is_err() {
                return Err(incomplete("the blob store stopped"));
            }
            if let Some(checkpoint) = writer.checkpoint() {
                self.record(recorded, &checkpoint).await?;
            }
        }
    }

    async fn record(&self, recorded: &mut u64, checkpoint: &Checkpoint) -> Result<()> {
        let mut connection = self.app.pool.acquire().await?;
        let expires_at = (self.clock)() + LIFETIME;
        if db::upload::record(&mut connection, self.id, *recorded, checkpoint, expires_at).await? {
            *recorded = checkpoint.received_bytes;
            return Ok(());
        }
        // Somebody else moved it on, or away.
        find(&mut connection, self.id).await?;
        Err(Error::refused(Reason::UploadBusy, format!("another stream went on with uploads/{}", self.id)))
    }

    /// Makes the payload appear: the blob in its place first, then the row that says so, both under the lock on its name.
    async fn finish(&self, claim: &Claim, payload: Payload, checkpoint: &Checkpoint) -> Result<Stored> {
        let now = (self.clock)();
        let Payload { sha256, size_bytes } = payload;
        // The transaction waits for the blob store: `app::payloads` tells why.
        let mut tx = self.app.pool.begin().await?;
        let lock = db::payload::lock(&mut tx, sha256).await?;
        claim.publish(&checkpoint.parts).await?;
        if db::payload::insert(&mut tx, &lock, size_bytes, now).await? {
            let event =
                NewEvent::new(Kind::PayloadStored, format!("payloads/{sha256}")).detail("size_bytes", size_bytes);
            db::event::record(&mut tx, &self.caller, event).await?;
            db::notify::events(&mut tx).await?;
        }
        db::upload::delete(&mut tx, self.id).await?;
        let stored = db::payload::find(&mut tx, sha256).await?.ok_or_else(|| payloads::not_found(sha256))?;
        tx.commit().await?;
        Ok(stored)
    }

    async fn refuse(&self, claim: Claim, payload: Payload, checkpoint: &Checkpoint) -> Result<Stored> {
        let found: Sha256Digest = checkpoint.hash.digest();
        forget(&self.app, claim, self.id, checkpoint).await?;
        Err(Error::refused(
            Reason::ChecksumMismatch,
            format!("the bytes hash to {found} and not to {}; they were dropped", payload.sha256),
        ))
    }

    async fn lost(&self, claim: Claim, checkpoint: &Checkpoint) -> Result<Stored> {
        tracing::warn!(upload.id = %self.id, "the blob store lost bytes of an upload, which begins again");
        forget(&self.app, claim, self.id, checkpoint).await?;
        Err(not_found(self.id))
    }
}

impl Piece {
    /// Whether this is the next piece of a payload of `size` bytes that has come up to `position`.
    fn check(&self, position: u64, size: u64) -> Result<()> {
        let Self { offset, crc32c, data } = self;
        let mut violations = Violations::default();
        let fits = data.len() <= MAX_PIECE_BYTES;
        violations.require(fits, "data", format!("must have at most {MAX_PIECE_BYTES} bytes"));
        violations.finish(Some(()))?;
        if *offset != position {
            return Err(Error::refused(
                Reason::OffsetMismatch,
                format!("the piece starts at byte {offset} and the upload stands at {position}"),
            ));
        }
        if checksum(CrcAlgorithm::Crc32Iscsi, data) != u64::from(*crc32c) {
            return Err(Error::refused(
                Reason::ChunkCorrupt,
                format!("the piece at byte {offset} does not have the CRC-32C it came with; send it again"),
            ));
        }
        if data.len() as u64 > size - position {
            return Err(Error::refused(
                Reason::RangeInvalid,
                format!("the piece at byte {offset} goes past the end of the payload at {size}"),
            ));
        }
        Ok(())
    }
}

/// `None` when the time is up.
async fn within<T>(limit: Duration, future: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(limit, future).await.ok()
}
