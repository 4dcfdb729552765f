//! Payloads in an S3-compatible object store, which all replicas share.
//!
//! ```text
//! <prefix>/sha256/ab/ab03…   a payload
//! ```
//! An upload is a multipart upload of that very object: it appears when it is completed and not before. The parts are
//! listed in the checkpoint, so that any replica can go on. A multipart upload whose first checkpoint was never recorded
//! leaves parts that nobody knows of: a lifecycle rule of the bucket for incomplete uploads clears those.

mod refusal;
mod writer;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use object_store::{
    ClientOptions, ObjectStore, ObjectStoreExt as _, RetryConfig,
    aws::{AmazonS3Builder, AmazonS3ConfigKey},
    multipart::{MultipartStore, PartId},
    path::Path,
};
use ota_domain::{Sha256Digest, release::Payload};

use super::{Checkpoint, Credentials, OpenError, Parts, Resumed, checkpoint::INTERVAL};
use crate::app::{Dependency, Error, Reason, Result};

pub use refusal::Refusal;
pub(super) use writer::Writer;

/// How long one request may take: a part on a slow line.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(120);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A caller waits, so an outage must show soon; who wants to wait longer calls again.
const RETRY_TIMEOUT: Duration = Duration::from_secs(15);
const RETRIES: usize = 4;
/// Most parts that S3 takes.
const MAX_PARTS: u64 = 10_000;
/// Bytes in one request for a part of a payload: more would make a slow download hold more.
pub(super) const READING_BYTES: usize = 1024 * 1024;

/// An object store in which objects can be put together from parts.
trait Store: ObjectStore + MultipartStore {}

impl<T: ObjectStore + MultipartStore> Store for T {}

/// A store, and what operators call it.
#[derive(Debug, Clone)]
struct Remote {
    store: Arc<dyn Store>,
    place: Arc<str>,
}

/// A bucket, or a folder in it.
#[derive(Debug)]
pub(super) struct Bucket {
    remote: Remote,
    prefix: Path,
}

impl Bucket {
    /// `place` is what follows `s3://`.
    pub(super) fn open(place: &str, credentials: Option<Credentials>) -> std::result::Result<Self, OpenError> {
        let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
        if bucket.is_empty() {
            return Err(OpenError::Scheme(format!("s3://{place}")));
        }
        let mut builder = AmazonS3Builder::from_env();
        if let Some(Credentials { access_key_id, secret_access_key }) = credentials {
            builder = builder.with_access_key_id(access_key_id).with_secret_access_key(secret_access_key);
        }
        let setting = |key| builder.get_config_value(&key).unwrap_or_default();
        let plain = setting(AmazonS3ConfigKey::Endpoint).starts_with("http://")
            || setting(AmazonS3ConfigKey::Client(object_store::ClientConfigKey::AllowHttp)) == "true";
        let store = builder
            .with_bucket_name(bucket)
            .with_client_options(
                ClientOptions::new()
                    .with_allow_http(plain)
                    .with_connect_timeout(CONNECT_TIMEOUT)
                    .with_timeout(REQUEST_TIMEOUT),
            )
            .with_retry(RetryConfig { max_retries: RETRIES, retry_timeout: RETRY_TIMEOUT, ..RetryConfig::default() })
            .build()
            .map_err(OpenError::Objects)?;
        let remote = Remote { store: Arc::new(store), place: format!("s3://{place}").into() };
        Ok(Self { remote, prefix: Path::from(prefix) })
    }

    /// Begins an upload and drops it, and looks for what is not there: whether the store lets the server work.
    pub(super) async fn try_out(&self) -> Result<()> {
        let Remote { store, .. } = &self.remote;
        let path = self.prefix.clone().join("tried-out");
        let unavailable = |error| self.remote.unavailable(error);
        let multipart = store.create_multipart(&path).await.map_err(unavailable)?;
        self.remote.absent_is_fine(store.abort_multipart(&path, &multipart).await)?;
        self.remote.absent_is_fine(store.get(&path).await.map(|_| ()))
    }

    fn path(&self, sha256: Sha256Digest) -> Path {
        let name = sha256.to_string();
        self.prefix.clone().join("sha256").join(&name[..2]).join(name)
    }

    pub(super) fn reader(&self, sha256: Sha256Digest) -> Reader {
        Reader { remote: self.remote.clone(), path: self.path(sha256) }
    }

    pub(super) async fn delete(&self, sha256: Sha256Digest) -> Result<()> {
        self.remote.absent_is_fine(self.remote.store.delete(&self.path(sha256)).await)
    }

    pub(super) fn claim(&self, payload: Payload) -> Claim {
        Claim { remote: self.remote.clone(), path: self.path(payload.sha256), size_bytes: payload.size_bytes }
    }
}

/// A payload.
#[derive(Debug)]
pub struct Reader {
    remote: Remote,
    path: Path,
}

impl Reader {
    pub(super) async fn read(&self, offset: u64, length: usize) -> Result<Bytes> {
        let range = offset..offset + length as u64;
        let read = self.remote.store.get_range(&self.path, range).await;
        let bytes = read.map_err(|error| self.remote.unavailable(error))?;
        if bytes.len() == length {
            Ok(bytes)
        } else {
            Err(Error::Unavailable {
                dependency: Dependency::BlobStore,
                source: format!("{} of {length} bytes at {offset} in {}", bytes.len(), self.path).into(),
            })
        }
    }
}

/// An upload. Not a lock: two streams may both send the next part, and the first whose checkpoint is recorded goes on.
#[derive(Debug)]
pub struct Claim {
    remote: Remote,
    path: Path,
    size_bytes: u64,
}

impl Claim {
    /// Size of every part but the last. Some stores want them all alike.
    fn part_bytes(&self) -> u64 {
        self.size_bytes.div_ceil(MAX_PARTS).next_multiple_of(1 << 20).max(INTERVAL)
    }

    pub(super) async fn resume(self, mut checkpoint: Checkpoint) -> Result<Resumed> {
        let parts = checkpoint.received_bytes.div_ceil(self.part_bytes());
        if checkpoint.parts.etags.len() as u64 != parts {
            return Ok(Resumed::Lost(super::Claim::Object(self)));
        }
        if checkpoint.received_bytes == self.size_bytes && self.is_published().await? {
            return Ok(Resumed::Complete(super::Claim::Object(self)));
        }
        let begun = checkpoint.parts.multipart.is_none();
        if begun {
            let multipart = self.remote.store.create_multipart(&self.path).await;
            checkpoint.parts.multipart = Some(multipart.map_err(|error| self.remote.unavailable(error))?);
        }
        let writer = Writer::start(self, checkpoint, begun);
        Ok(Resumed::Writing(Box::new(super::Writer::Object(writer))))
    }

    async fn is_published(&self) -> Result<bool> {
        match self.remote.store.head(&self.path).await {
            Ok(object) => Ok(object.size == self.size_bytes),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(self.remote.unavailable(error)),
        }
    }

    pub(super) async fn publish(&self, parts: &Parts) -> Result<()> {
        let list = parts.etags.iter().map(|etag| PartId { content_id: etag.clone() }).collect();
        let multipart = parts.multipart.clone().unwrap_or_default();
        match self.remote.store.complete_multipart(&self.path, &multipart, list).await {
            Ok(_) => Ok(()),
            // Completed by a try whose answer or whose commit was lost.
            Err(_) if self.is_published().await? => Ok(()),
            Err(error) => Err(self.remote.part_failed(error)),
        }
    }

    pub(super) async fn discard(self, parts: &Parts) -> Result<()> {
        match &parts.multipart {
            Some(multipart) => {
                self.remote.absent_is_fine(self.remote.store.abort_multipart(&self.path, multipart).await)
            }
            None => Ok(()),
        }
    }
}

impl Remote {
    fn absent_is_fine(&self, result: object_store::Result<()>) -> Result<()> {
        match result {
            Err(object_store::Error::NotFound { .. }) => Ok(()),
            result => result.map_err(|error| self.unavailable(error)),
        }
    }

    fn unavailable(&self, error: object_store::Error) -> Error {
        let source = match Refusal::find(&error, &self.place) {
            Some(refusal) => refusal.into(),
            None => error.into(),
        };
        Error::Unavailable { dependency: Dependency::BlobStore, source }
    }

    /// Tells a store that no longer knows the upload, or other parts of it than we do, from one that does not work. The
    /// library has a variant for the first, which also says that the bucket is gone; the second is only in S3's answer.
    fn part_failed(&self, error: object_store::Error) -> Error {
        let code = refusal::code(&error);
        let lost = matches!(error, object_store::Error::NotFound { .. }) && code.as_deref() != Some("NoSuchBucket")
            || matches!(code.as_deref(), Some("NoSuchUpload" | "InvalidPart"));
        if lost {
            Error::refused(Reason::UploadNotFound, "the object store lost parts of the upload; begin again")
        } else {
            self.unavailable(error)
        }
    }
}

#[cfg(test)]
mod tests;
