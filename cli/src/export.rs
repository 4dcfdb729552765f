//! The file of an export while it is being written: `FILE.part`, renamed to `FILE` when it is whole.
//!
//! Payloads come first in it, so that a run that was interrupted leaves whole payloads and the beginning of one, and the
//! next run keeps them: [`Part::open`] finds what is there, compares each payload with its name and cuts off the rest.
//! What the server signs comes last, because it runs out.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, BufWriter, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use ota_bundle::{BLOCK_BYTES, Entry, Manifest, Writer};
use ota_domain::{DeviceId, Sha256Digest};
use sha2::{Digest, Sha256};

use crate::{error::Failure, progress::Progress};

/// Bytes read at a time while the file of an earlier run is checked.
const BUFFER_BYTES: usize = 128 * 1024;

/// A bundle that is not whole yet.
#[derive(Debug)]
pub struct Part {
    path: PathBuf,
    target: PathBuf,
    writer: Writer<BufWriter<Locked>>,
    payloads: BTreeSet<Sha256Digest>,
    begun: Option<Begun>,
}

/// The file, in which nobody else may write until it is dropped.
#[derive(Debug)]
struct Locked(File);

impl Locked {
    /// Opens or creates the file and locks it; `None` while somebody else has the lock.
    fn open(path: &Path) -> io::Result<Option<Self>> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

impl Write for Locked {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl Drop for Locked {
    /// Says that the file is free. To close it would not do: a child that is just being started holds it too, until it
    /// becomes its program.
    fn drop(&mut self) {
        self.0.unlock().ok();
    }
}

/// A payload that an earlier run wrote the beginning of, at the end of the file.
#[derive(Debug, Clone)]
struct Begun {
    sha256: Sha256Digest,
    written: u64,
    hasher: Sha256,
}

impl Part {
    /// Opens the file of an interrupted run, or creates one. `wanted` are the payloads to keep, with their sizes.
    pub fn open(target: &Path, wanted: &BTreeMap<Sha256Digest, u64>) -> Result<Self, Failure> {
        let mut name = target.as_os_str().to_owned();
        name.push(".part");
        let path = PathBuf::from(name);
        let failed = |error: io::Error| Failure::because(format!("cannot write {}", path.display()), &error);
        let mut file = Locked::open(&path)
            .map_err(failed)?
            .ok_or_else(|| Failure::failed(format!("another export writes {}", path.display())))?;
        let found = Found::look(&mut file.0, wanted).map_err(failed)?;
        file.0.set_len(found.end).map_err(failed)?;
        file.0.seek(SeekFrom::Start(found.end)).map_err(failed)?;
        Ok(Self {
            target: target.to_owned(),
            writer: Writer::new(BufWriter::new(file)),
            payloads: found.payloads,
            begun: found.begun,
            path,
        })
    }

    /// Tells whether a payload is there as a whole.
    pub fn has(&self, sha256: Sha256Digest) -> bool {
        self.payloads.contains(&sha256)
    }

    /// Returns the payload that was begun and how many of its bytes are there. It has to be fetched first.
    pub fn begun(&self) -> Option<(Sha256Digest, u64)> {
        self.begun.as_ref().map(|begun| (begun.sha256, begun.written))
    }

    /// Begins or goes on with a payload.
    pub fn payload(&mut self, sha256: Sha256Digest, size: u64) -> Result<PayloadWriter<'_>, Failure> {
        let begun = self.begun.take();
        debug_assert!(begun.as_ref().is_none_or(|begun| begun.sha256 == sha256), "the one begun is fetched first");
        let (entry, written, hasher) = match begun {
            Some(begun) => (self.writer.resume_payload(sha256, size, begun.written), begun.written, begun.hasher),
            None => {
                let entry = self.writer.payload(sha256, size).map_err(|error| cannot_write(&self.path, &error))?;
                (entry, 0, Sha256::new())
            }
        };
        Ok(PayloadWriter { entry, written, hasher, sha256, path: &self.path, payloads: &mut self.payloads })
    }

    /// Writes what a device would be answered.
    pub fn check_in(&mut self, device: DeviceId, response: &[u8]) -> Result<(), Failure> {
        self.writer.check_in(device, response).map_err(|error| cannot_write(&self.path, &error))
    }

    /// Writes the end, and gives the file its name.
    pub fn finish(self, manifest: &Manifest) -> Result<(), Failure> {
        let out = self.writer.finish(manifest).map_err(|error| cannot_write(&self.path, &error))?;
        let rename = || -> io::Result<()> {
            let file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
            file.0.sync_all()?;
            fs::rename(&self.path, &self.target)?;
            let folder = self.target.parent().filter(|folder| !folder.as_os_str().is_empty());
            File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
        };
        rename().map_err(|error| Failure::because(format!("cannot write {}", self.target.display()), &error))
    }
}

/// A payload being written.
#[derive(Debug)]
pub struct PayloadWriter<'a> {
    entry: ota_bundle::EntryWriter<'a, BufWriter<Locked>>,
    written: u64,
    hasher: Sha256,
    sha256: Sha256Digest,
    path: &'a Path,
    payloads: &'a mut BTreeSet<Sha256Digest>,
}

impl PayloadWriter<'_> {
    /// Returns how many bytes are there.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Adds bytes.
    pub fn write(&mut self, bytes: &[u8], progress: &Progress) -> Result<(), Failure> {
        self.entry.write(bytes).map_err(|error| cannot_write(self.path, &error))?;
        self.hasher.update(bytes);
        self.written += bytes.len() as u64;
        progress.add(bytes.len() as u64);
        Ok(())
    }

    /// Ends the payload, which has to be the one that was asked for.
    pub fn finish(self) -> Result<(), Failure> {
        let found = Sha256Digest(self.hasher.finalize().into());
        if found != self.sha256 {
            return Err(Failure::failed(format!("the server sent other bytes than payload {}", self.sha256))
                .hint("the server's store is damaged, or something on the way changed them: repeat the command"));
        }
        self.entry.finish().map_err(|error| cannot_write(self.path, &error))?;
        self.payloads.insert(self.sha256);
        Ok(())
    }
}

/// What an earlier run left.
struct Found {
    payloads: BTreeSet<Sha256Digest>,
    begun: Option<Begun>,
    /// Where to go on.
    end: u64,
}

impl Found {
    /// Reads from the beginning for as long as there are payloads that are wanted and right.
    fn look(file: &mut File, wanted: &BTreeMap<Sha256Digest, u64>) -> io::Result<Self> {
        let length = file.metadata()?.len();
        let mut found = Self { payloads: BTreeSet::new(), begun: None, end: 0 };
        while length >= found.end + BLOCK_BYTES {
            file.seek(SeekFrom::Start(found.end))?;
            let mut header = tar::Header::new_gnu();
            file.read_exact(header.as_mut_bytes())?;
            let Some(Entry::Payload(sha256)) = Entry::from_path(&header.path_bytes()) else { break };
            // Nothing wrong is kept, whatever the header says: the hash decides.
            let Some(size) = wanted.get(&sha256).copied().filter(|size| header.size().ok() == Some(*size)) else {
                break;
            };
            let content = found.end + BLOCK_BYTES;
            let present = size.min(length - content);
            let hasher = hash(Read::by_ref(file).take(present))?;
            if present < size {
                found.begun = Some(Begun { sha256, written: present, hasher });
                found.end = content + present;
                break;
            }
            let next = content + size.next_multiple_of(BLOCK_BYTES);
            if Sha256Digest(hasher.finalize().into()) != sha256 || next > length {
                break;
            }
            found.payloads.insert(sha256);
            found.end = next;
        }
        Ok(found)
    }
}

fn hash(mut reader: impl Read) -> io::Result<Sha256> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        match reader.read(&mut buffer)? {
            0 => return Ok(hasher),
            read => hasher.update(&buffer[..read]),
        }
    }
}

fn cannot_write(path: &Path, error: &ota_bundle::WriteError) -> Failure {
    Failure::because(format!("cannot write {}", path.display()), error)
}

#[cfg(test)]
mod tests;
