//! Writes an upload as parts of an object.
//!
//! While one part is hashed and sent, the next is gathered: two parts in memory, whatever the size. A part is sent from
//! the very pieces that came, without a copy.

use bytes::Bytes;
use object_store::PutPayload;
use tokio::task::{JoinSet, spawn_blocking};

use super::Claim;
use crate::{
    app::{Error, Result},
    blobs::{Checkpoint, Closed, Hash, Stopped},
};

/// Writes an upload as parts of an object.
#[derive(Debug)]
pub struct Writer {
    claim: Claim,
    /// How far the store has the parts.
    at: Checkpoint,
    /// Whether `at` is news to the caller.
    fresh: bool,
    gathered: Vec<Bytes>,
    gathered_bytes: u64,
    /// At most one part.
    sending: JoinSet<Result<Sent>>,
    failure: Option<Error>,
}

#[derive(Debug)]
struct Sent {
    bytes: u64,
    hash: Hash,
    etag: String,
}

impl Writer {
    /// `fresh` says that the caller does not know the checkpoint yet and should record it at once.
    pub(super) fn start(claim: Claim, at: Checkpoint, fresh: bool) -> Self {
        Self { claim, at, fresh, gathered: Vec::new(), gathered_bytes: 0, sending: JoinSet::new(), failure: None }
    }

    pub(in crate::blobs) async fn write(&mut self, mut bytes: Bytes) -> std::result::Result<(), Stopped> {
        while !bytes.is_empty() {
            let room = self.claim.part_bytes() - self.gathered_bytes;
            let taken = bytes.split_to(bytes.len().min(usize::try_from(room).unwrap_or(usize::MAX)));
            self.gathered_bytes += taken.len() as u64;
            self.gathered.push(taken);
            if self.gathered_bytes == self.claim.part_bytes() {
                self.settle().await;
                self.send();
            }
        }
        if self.failure.is_none() { Ok(()) } else { Err(Stopped) }
    }

    pub(in crate::blobs) fn checkpoint(&mut self) -> Option<Checkpoint> {
        if let Some(sent) = self.sending.try_join_next() {
            self.take(sent);
        }
        std::mem::take(&mut self.fresh).then(|| self.at.clone())
    }

    pub(in crate::blobs) async fn close(mut self) -> Closed {
        self.settle().await;
        // A part that is not full can only be the last; the bytes of any other are sent again.
        if self.gathered_bytes > 0 && self.at.received_bytes + self.gathered_bytes == self.claim.size_bytes {
            self.send();
            self.settle().await;
        }
        Closed {
            claim: crate::blobs::Claim::Object(self.claim),
            checkpoint: self.at,
            result: self.failure.map_or(Ok(()), Err),
        }
    }

    /// Starts to send what was gathered, unless an earlier part failed.
    fn send(&mut self) {
        if self.failure.is_some() {
            return;
        }
        let pieces = std::mem::take(&mut self.gathered);
        let bytes = std::mem::take(&mut self.gathered_bytes);
        let (remote, path) = (self.claim.remote.clone(), self.claim.path.clone());
        let multipart = self.at.parts.multipart.clone().unwrap_or_default();
        let number = self.at.parts.etags.len();
        let mut hash = self.at.hash.clone();
        let payload: PutPayload = pieces.iter().cloned().collect();
        self.sending.spawn(async move {
            let hashing = spawn_blocking(move || {
                pieces.iter().for_each(|piece| hash.update(piece));
                hash
            });
            let part = remote.store.put_part(&path, &multipart, number, payload).await;
            let part = part.map_err(|error| remote.part_failed(error))?;
            Ok(Sent { bytes, hash: hashing.await.map_err(Error::internal)?, etag: part.content_id })
        });
    }

    /// Waits for the part that is on its way.
    async fn settle(&mut self) {
        while let Some(sent) = self.sending.join_next().await {
            self.take(sent);
        }
    }

    fn take(&mut self, sent: std::result::Result<Result<Sent>, tokio::task::JoinError>) {
        match sent.map_err(Error::internal).and_then(|sent| sent) {
            Ok(sent) => {
                self.at.received_bytes += sent.bytes;
                self.at.hash = sent.hash;
                self.at.parts.etags.push(sent.etag);
                self.fresh = true;
            }
            Err(error) => self.failure = Some(error),
        }
    }
}
