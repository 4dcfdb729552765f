//! Payloads in a folder of this machine, or one that several share.
//!
//! ```text
//! sha256/ab/ab03…   a payload: complete, hashed, durable
//! uploads/<id>      the bytes of an unfinished upload; who writes holds the lock on the file
//! ```
//! A payload is moved into its place by one rename, after its bytes are durable.

mod reader;
mod writer;

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io,
    ops::Deref,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use ota_domain::{Sha256Digest, UploadId, release::Payload};

use super::{Checkpoint, OpenError, Resumed};
use crate::app::{Dependency, Error, Reason, Result};

pub(super) use reader::{READING_BYTES, Reader};
pub(super) use writer::Writer;

/// The folder.
#[derive(Debug)]
pub(super) struct Folder {
    root: PathBuf,
}

impl Folder {
    pub(super) fn open(root: &Path) -> std::result::Result<Self, OpenError> {
        let prepare = || {
            fs::create_dir_all(root)?;
            // So that no later change of the working directory moves the store.
            let root = root.canonicalize()?;
            fs::create_dir_all(root.join("sha256"))?;
            fs::create_dir_all(root.join("uploads"))?;
            sync_folder(&root)?;
            Ok(Self { root })
        };
        prepare().map_err(|source| OpenError::Folder { folder: root.display().to_string(), source })
    }

    fn payload(&self, sha256: Sha256Digest) -> PathBuf {
        let name = sha256.to_string();
        self.root.join("sha256").join(&name[..2]).join(name)
    }

    pub(super) async fn reader(&self, payload: Payload) -> Result<Reader> {
        let path = self.payload(payload.sha256);
        blocking(move || {
            let file = File::open(path)?;
            let found = file.metadata()?.len();
            if found == payload.size_bytes {
                Ok(Reader::new(file))
            } else {
                Err(io::Error::other(format!("payload {} has {found} bytes in the blob folder", payload.sha256)))
            }
        })
        .await
    }

    pub(super) async fn delete(&self, sha256: Sha256Digest) -> Result<()> {
        let path = self.payload(sha256);
        blocking(move || remove(&path)).await
    }

    pub(super) async fn claim(&self, upload: UploadId, payload: Payload) -> Result<Claim> {
        let unfinished = self.root.join("uploads").join(upload.to_string());
        let finished = self.payload(payload.sha256);
        let file = {
            let path = unfinished.clone();
            blocking(move || lock(&path)).await?
        };
        let file = file.ok_or_else(|| {
            Error::refused(Reason::UploadBusy, format!("another stream writes to uploads/{upload} right now"))
        })?;
        Ok(Claim { file: Arc::new(file), unfinished, finished, size_bytes: payload.size_bytes, published: false })
    }
}

/// The file of an upload, in which nobody else may write until the last who works with it is done.
#[derive(Debug)]
struct Locked(File);

impl Deref for Locked {
    type Target = File;

    fn deref(&self) -> &File {
        &self.0
    }
}

impl Drop for Locked {
    /// Says that the file is free. To close it would not do: a child that is just being started holds it too, until it
    /// becomes its program.
    fn drop(&mut self) {
        self.0.unlock().ok();
    }
}

/// Opens and locks the file of an upload, whether or not there are bytes yet; `None` while somebody else has the lock.
fn lock(path: &Path) -> io::Result<Option<Locked>> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
    let file = match file.try_lock() {
        Ok(()) => Locked(file),
        Err(TryLockError::WouldBlock) => return Ok(None),
        Err(TryLockError::Error(error)) => return Err(error),
    };
    // Between opening and locking, the upload may have become the payload: to write to what we hold would destroy it.
    let held = file.metadata()?;
    let named = match fs::metadata(path) {
        Ok(named) => named,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    Ok(((held.dev(), held.ino()) == (named.dev(), named.ino())).then_some(file))
}

/// The lock on an unfinished upload.
#[derive(Debug)]
pub struct Claim {
    file: Arc<Locked>,
    unfinished: PathBuf,
    finished: PathBuf,
    size_bytes: u64,
    /// The payload is in its place already, and the unfinished file is only the one that was made for the lock.
    published: bool,
}

impl Claim {
    pub(super) async fn resume(mut self, checkpoint: Checkpoint) -> Result<Resumed> {
        let (file, finished, size) = (Arc::clone(&self.file), self.finished.clone(), self.size_bytes);
        let received = checkpoint.received_bytes;
        let found = blocking(move || {
            let length = file.metadata()?.len();
            if length > received {
                file.set_len(received)?;
            }
            if length >= received {
                return Ok(Found::Bytes);
            }
            match fs::metadata(finished) {
                Ok(payload) if payload.len() == size => Ok(Found::Payload),
                Ok(_) => Ok(Found::Less),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Found::Less),
                Err(error) => Err(error),
            }
        })
        .await?;
        Ok(match found {
            Found::Bytes => Resumed::Writing(Box::new(super::Writer::Local(Writer::start(self, checkpoint)))),
            Found::Payload => {
                self.published = true;
                Resumed::Complete(super::Claim::Local(self))
            }
            Found::Less => Resumed::Lost(super::Claim::Local(self)),
        })
    }

    pub(super) async fn publish(&self) -> Result<()> {
        let (unfinished, finished, published) = (self.unfinished.clone(), self.finished.clone(), self.published);
        blocking(move || {
            if published {
                return remove(&unfinished);
            }
            let folder = finished.parent().expect("a payload lies in a folder");
            match fs::create_dir(folder) {
                Ok(()) => sync_folder(folder.parent().expect("that folder lies in another"))?,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
            match fs::rename(&unfinished, &finished) {
                Ok(()) => {}
                // Done already, by a try whose commit failed.
                Err(error) if error.kind() == io::ErrorKind::NotFound && finished.exists() => {}
                Err(error) => return Err(error),
            }
            sync_folder(folder)
        })
        .await
    }

    pub(super) async fn discard(self) -> Result<()> {
        // The lock is held until the file is gone, so that nobody writes to it meanwhile.
        blocking(move || remove(&self.unfinished)).await
    }
}

/// What a claim finds on the disk.
enum Found {
    /// At least the bytes up to the checkpoint.
    Bytes,
    /// Fewer, but the payload itself is in its place.
    Payload,
    /// Fewer.
    Less,
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// Makes what was created or renamed in a folder survive a power cut.
fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(Error::internal)?.map_err(failed)
}

/// Tells a full disk from one that does not work.
fn failed(error: io::Error) -> Error {
    if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
        Error::refused(Reason::BlobStoreFull, "no space left in the blob store; what came is kept")
    } else {
        Error::Unavailable { dependency: Dependency::BlobStore, source: error.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upload_that_was_let_go_is_free_although_a_starting_child_still_has_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("upload");
        let (first, second) = (Arc::new(lock(&path).unwrap().unwrap()), lock(&path).unwrap());
        assert!(second.is_none());
        let (child, writing) = (first.try_clone().unwrap(), Arc::clone(&first));
        drop(first);
        assert!(lock(&path).unwrap().is_none(), "whoever still writes keeps it");
        drop(writing);
        assert!(lock(&path).unwrap().is_some());
        drop(child);
    }
}
