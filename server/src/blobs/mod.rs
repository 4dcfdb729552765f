//! Where payloads are kept: a folder of this machine, or an S3-compatible object store that all replicas share.
//!
//! A payload is named by its SHA-256 and appears under that name in one step, when all its bytes are there, hashed and
//! durable; it never changes afterwards. Until then its bytes belong to an upload, which one [`Claim`] at a time may
//! write to.
//!
//! The store knows nothing of the database. Which blobs may go is decided in `app::payloads`, under a lock on their name.

mod checkpoint;
mod local;
mod object;

use std::{path::Path, time::Duration};

use bytes::Bytes;
use ota_domain::{Sha256Digest, UploadId, release::Payload};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use crate::app::{Error, Result};

pub use checkpoint::{Checkpoint, Hash, Parts};
pub use object::Refusal;

/// How long a start waits for an object store.
const TRY_OUT_LIMIT: Duration = Duration::from_secs(5);

/// The blob store.
#[derive(Debug)]
pub struct Blobs {
    store: Store,
    uploads: TaskTracker,
}

#[derive(Debug)]
enum Store {
    Folder(local::Folder),
    Bucket(object::Bucket),
}

/// What an object store asks for.
pub struct Credentials {
    /// Who asks.
    pub access_key_id: String,
    /// What proves it.
    pub secret_access_key: String,
}

/// The blob store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The folder cannot be made.
    #[error("cannot prepare the blob folder {folder}")]
    Folder {
        /// Which one.
        folder: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The URL is not of a kind that is known.
    #[error("the blob store must be a folder or s3://bucket/prefix, not {0:?}")]
    Scheme(String),
    /// The object store's settings do not add up.
    #[error("cannot set up the object store")]
    Objects(#[source] object_store::Error),
}

impl Blobs {
    /// Opens a folder, or with `s3://bucket/prefix` an object store whose region and endpoint are in the `AWS_*` variables
    /// of the environment, and whose `credentials` are too when there are none here. An endpoint with `http://` is taken at
    /// its word.
    ///
    /// # Errors
    /// When the folder cannot be made or the settings do not add up. Whether an object store answers is found out later.
    pub fn open(spec: &str, credentials: Option<Credentials>) -> std::result::Result<Self, OpenError> {
        let store = match spec.split_once("://") {
            None => Store::Folder(local::Folder::open(Path::new(spec))?),
            Some(("s3", place)) => Store::Bucket(object::Bucket::open(place, credentials)?),
            Some(_) => return Err(OpenError::Scheme(spec.to_owned())),
        };
        Ok(Self { store, uploads: TaskTracker::new() })
    }

    /// Tries whether the store lets the server work, so that an operator hears of wrong credentials before the first upload
    /// does. A store that does not answer may come later and is no fault.
    ///
    /// # Errors
    /// When it refuses the server.
    pub async fn try_out(&self) -> std::result::Result<(), Refusal> {
        let Store::Bucket(bucket) = &self.store else { return Ok(()) };
        match timeout(TRY_OUT_LIMIT, bucket.try_out()).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(Error::Unavailable { source, .. })) => match source.downcast() {
                Ok(refusal) => Err(*refusal),
                Err(error) => {
                    tracing::warn!(error, "the object store does not answer; payloads can be had when it does");
                    Ok(())
                }
            },
            Ok(Err(error)) => {
                tracing::warn!(%error, "the object store could not be tried out");
                Ok(())
            }
            Err(_) => {
                tracing::warn!("the object store does not answer; payloads can be had when it does");
                Ok(())
            }
        }
    }

    /// The kind of store, for the status page.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self.store {
            Store::Folder(_) => "local",
            Store::Bucket(_) => "s3",
        }
    }

    /// Where uploads run, which outlive the call that brought them to put away what came.
    #[must_use]
    pub fn uploads(&self) -> &TaskTracker {
        &self.uploads
    }

    /// Waits for the uploads in progress. To be called by a server that stops, when it takes no calls any more.
    pub async fn settle(&self) {
        self.uploads.close();
        self.uploads.wait().await;
    }

    /// Opens a payload to be read.
    ///
    /// # Errors
    /// `Unavailable` when the store does not answer or does not have it in full.
    pub async fn reader(&self, payload: Payload) -> Result<Reader> {
        Ok(match &self.store {
            Store::Folder(folder) => Reader::Local(folder.reader(payload).await?),
            Store::Bucket(bucket) => Reader::Object(bucket.reader(payload.sha256)),
        })
    }

    /// Deletes a payload, if it is there. Only to be called under the lock on its name (`db::payload::lock`).
    ///
    /// # Errors
    /// `Unavailable` when the store does not answer.
    pub async fn delete(&self, sha256: Sha256Digest) -> Result<()> {
        match &self.store {
            Store::Folder(folder) => folder.delete(sha256).await,
            Store::Bucket(bucket) => bucket.delete(sha256).await,
        }
    }

    /// Claims an upload, to write to it or to discard it.
    ///
    /// # Errors
    /// `UPLOAD_BUSY` while another stream has the claim; `Unavailable` when the store does not answer.
    pub async fn claim(&self, upload: UploadId, payload: Payload) -> Result<Claim> {
        Ok(match &self.store {
            Store::Folder(folder) => Claim::Local(folder.claim(upload, payload).await?),
            Store::Bucket(bucket) => Claim::Object(bucket.claim(payload)),
        })
    }
}

/// A payload to be read.
#[derive(Debug)]
pub enum Reader {
    /// From a folder.
    Local(local::Reader),
    /// From an object store.
    Object(object::Reader),
}

impl Reader {
    /// How many bytes are best read at a time.
    #[must_use]
    pub fn reading_bytes(&self) -> usize {
        match self {
            Self::Local(_) => local::READING_BYTES,
            Self::Object(_) => object::READING_BYTES,
        }
    }

    /// Whether a reading takes so long that the next should be on its way before it is needed.
    #[must_use]
    pub fn is_remote(&self) -> bool {
        match self {
            Self::Local(_) => false,
            Self::Object(_) => true,
        }
    }

    /// Reads exactly `length` bytes. The range lies in the payload: callers check it first.
    ///
    /// # Errors
    /// `Unavailable` when the store does not answer or no longer has the payload.
    pub async fn read(&self, offset: u64, length: usize) -> Result<Bytes> {
        match self {
            Self::Local(reader) => reader.read(offset, length).await,
            Self::Object(reader) => reader.read(offset, length).await,
        }
    }
}

/// The right to write to an upload or to discard it. Given up when dropped.
#[derive(Debug)]
pub enum Claim {
    /// In a folder: the lock on the unfinished file, against every process that shares the folder.
    Local(local::Claim),
    /// In an object store, which has no locks: there the conditional update of the checkpoint decides between two.
    Object(object::Claim),
}

/// What a claim finds when it goes on from a checkpoint.
#[derive(Debug)]
pub enum Resumed {
    /// The bytes up to the checkpoint; send the rest.
    Writing(Box<Writer>),
    /// The payload itself, from an earlier try whose commit was lost.
    Complete(Claim),
    /// Less than the checkpoint says. The upload is of no use any more.
    Lost(Claim),
}

impl Claim {
    /// Goes on from `checkpoint`, which must have been read under this claim. What came after it is cut off.
    ///
    /// # Errors
    /// `Unavailable` when the store does not answer.
    pub async fn resume(self, checkpoint: Checkpoint) -> Result<Resumed> {
        match self {
            Self::Local(claim) => claim.resume(checkpoint).await,
            Self::Object(claim) => claim.resume(checkpoint).await,
        }
    }

    /// Makes the payload appear under its name. Only to be called when all bytes are there and their hash was found
    /// right, and under the lock on that name (`db::payload::lock`). May be repeated.
    ///
    /// # Errors
    /// `UPLOAD_NOT_FOUND` when the store lost the bytes, else `Unavailable`.
    pub async fn publish(&self, parts: &Parts) -> Result<()> {
        match self {
            Self::Local(claim) => claim.publish().await,
            Self::Object(claim) => claim.publish(parts).await,
        }
    }

    /// Drops the bytes. May be repeated.
    ///
    /// # Errors
    /// `Unavailable` when the store does not answer.
    pub async fn discard(self, parts: &Parts) -> Result<()> {
        match self {
            Self::Local(claim) => claim.discard().await,
            Self::Object(claim) => claim.discard(parts).await,
        }
    }
}

/// Takes the bytes of an upload, hashes and stores them while more come.
#[derive(Debug)]
pub enum Writer {
    /// Into a folder.
    Local(local::Writer),
    /// Into an object store.
    Object(object::Writer),
}

/// The writer has stopped; closing it tells why.
#[derive(Debug)]
pub struct Stopped;

/// What is left when a writer is closed.
#[derive(Debug)]
pub struct Closed {
    /// The claim it wrote under.
    pub claim: Claim,
    /// How far the store has the bytes.
    pub checkpoint: Checkpoint,
    /// Whether it stopped by itself, and why.
    pub result: Result<()>,
}

impl Writer {
    /// Takes the next bytes; waits while too many are on their way.
    ///
    /// # Errors
    /// When the writer has stopped.
    pub async fn write(&mut self, bytes: Bytes) -> std::result::Result<(), Stopped> {
        match self {
            Self::Local(writer) => writer.write(bytes).await,
            Self::Object(writer) => writer.write(bytes).await,
        }
    }

    /// The newest checkpoint, if it was not returned before.
    pub fn checkpoint(&mut self) -> Option<Checkpoint> {
        match self {
            Self::Local(writer) => writer.checkpoint(),
            Self::Object(writer) => writer.checkpoint(),
        }
    }

    /// Stores what was taken, waits until that is durable and says how far the store came.
    pub async fn close(self) -> Closed {
        match self {
            Self::Local(writer) => writer.close().await,
            Self::Object(writer) => writer.close().await,
        }
    }
}
