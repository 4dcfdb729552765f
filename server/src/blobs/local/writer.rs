//! Writes an upload into its file.
//!
//! Three things go on at once: the caller receives, one thread writes and hashes, another makes durable what was written
//! some mebibytes ago. A few pieces wait between the first two, so memory stays bounded whatever the size.

use std::{fs::File, io, sync::Arc};

use bytes::Bytes;
use tokio::{
    sync::{
        mpsc::{self, error::TrySendError},
        watch,
    },
    task::{JoinHandle, spawn_blocking},
};

use super::{Claim, blocking, failed};
use crate::{
    app::Error,
    blobs::{Checkpoint, Closed, Stopped, checkpoint::INTERVAL},
};

/// Pieces that wait to be written. They have up to 1 MiB each.
const QUEUE: usize = 4;

/// Writes an upload into its file.
#[derive(Debug)]
pub struct Writer {
    claim: Claim,
    pieces: mpsc::Sender<Bytes>,
    writing: JoinHandle<(Checkpoint, io::Result<()>)>,
    syncing: JoinHandle<io::Result<()>>,
    durable: watch::Receiver<Checkpoint>,
}

impl Writer {
    /// Starts after the bytes of `checkpoint`, where the claim has cut the file.
    pub(super) fn start(claim: Claim, checkpoint: Checkpoint) -> Self {
        let (pieces, waiting) = mpsc::channel(QUEUE);
        let (written, to_sync) = mpsc::channel(1);
        let (synced, durable) = watch::channel(checkpoint.clone());
        let file = Arc::clone(&claim.file);
        let syncing = spawn_blocking(move || sync(&file, to_sync, &synced));
        let file = Arc::clone(&claim.file);
        let writing = spawn_blocking(move || write(&file, checkpoint, waiting, &written));
        Self { claim, pieces, writing, syncing, durable }
    }

    pub(in crate::blobs) async fn write(&mut self, piece: Bytes) -> std::result::Result<(), Stopped> {
        self.pieces.send(piece).await.map_err(|_| Stopped)
    }

    pub(in crate::blobs) fn checkpoint(&mut self) -> Option<Checkpoint> {
        // No news from a thread that has ended: closing says why.
        self.durable.has_changed().unwrap_or(false).then(|| self.durable.borrow_and_update().clone())
    }

    pub(in crate::blobs) async fn close(self) -> Closed {
        let Self { claim, pieces, writing, syncing, durable } = self;
        drop(pieces);
        let (written, synced) = (writing.await, syncing.await);
        let file = Arc::clone(&claim.file);
        let sync = async {
            synced.map_err(Error::internal)?.map_err(failed)?;
            blocking(move || file.sync_data()).await
        };
        let (checkpoint, result) = match (written, sync.await) {
            (Ok((written, result)), Ok(())) => (written, result.map_err(failed)),
            // After a failed sync nobody knows what the disk has of the bytes since the one before.
            (Ok((_, result)), Err(error)) => (durable.borrow().clone(), result.map_err(failed).and(Err(error))),
            (Err(panic), _) => (durable.borrow().clone(), Err(Error::internal(panic))),
        };
        Closed { claim: crate::blobs::Claim::Local(claim), checkpoint, result }
    }
}

/// Writes and hashes until no more comes or the disk refuses. Returns how far it came, to the byte.
fn write(
    file: &File,
    mut at: Checkpoint,
    mut pieces: mpsc::Receiver<Bytes>,
    written: &mpsc::Sender<Checkpoint>,
) -> (Checkpoint, io::Result<()>) {
    let mut handed_on = at.received_bytes;
    while let Some(piece) = pieces.blocking_recv() {
        if let Err(error) = append(file, &mut at, &piece) {
            return (at, Err(error));
        }
        if at.received_bytes - handed_on < INTERVAL {
            continue;
        }
        match written.try_send(at.clone()) {
            Ok(()) => handed_on = at.received_bytes,
            // The disk is still busy with the last one: a later checkpoint will do.
            Err(TrySendError::Full(_)) => {}
            // Syncing failed, which closing tells.
            Err(TrySendError::Closed(_)) => return (at, Ok(())),
        }
    }
    (at, Ok(()))
}

/// Appends a piece; after an error, `at` stands after the part of it that was taken.
fn append(file: &File, at: &mut Checkpoint, mut piece: &[u8]) -> io::Result<()> {
    while !piece.is_empty() {
        let taken = match rustix::io::pwrite(file, piece, at.received_bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(taken) => taken,
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        };
        at.hash.update(&piece[..taken]);
        at.received_bytes += taken as u64;
        piece = &piece[taken..];
    }
    Ok(())
}

/// Makes durable what was written. Linux tells of a failed sync once, so it ends here and is passed on.
fn sync(file: &File, mut written: mpsc::Receiver<Checkpoint>, durable: &watch::Sender<Checkpoint>) -> io::Result<()> {
    while let Some(checkpoint) = written.blocking_recv() {
        file.sync_data()?;
        durable.send_replace(checkpoint);
    }
    Ok(())
}
