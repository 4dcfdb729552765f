//! Writes a bundle as a stream.

use std::io::{self, Write};

use ota_domain::{DeviceId, Sha256Digest};
use tar::{EntryType, Header};

use crate::{BLOCK_BYTES, Entry, Manifest};

/// Why a bundle was not written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The output cannot be written.
    #[error("cannot write the bundle")]
    Write(#[source] io::Error),
    /// An entry got other than its declared number of bytes.
    #[error("{path} has {written} bytes and not {declared}")]
    Size {
        /// The entry's path.
        path: String,
        /// Bytes announced.
        declared: u64,
        /// Bytes written.
        written: u64,
    },
}

/// A bundle being written: payloads and check-ins in any order, then [`Writer::finish`].
#[derive(Debug)]
pub struct Writer<W> {
    out: W,
}

impl<W: Write> Writer<W> {
    /// Begins a bundle, or goes on behind the last whole entry of one.
    pub fn new(out: W) -> Self {
        Self { out }
    }

    /// Begins a payload. Its bytes follow through the writer that is returned.
    pub fn payload(&mut self, sha256: Sha256Digest, size_bytes: u64) -> Result<EntryWriter<'_, W>, WriteError> {
        self.begin(Entry::Payload(sha256), size_bytes)
    }

    /// Goes on with a payload whose header and first `written` bytes the output has already.
    pub fn resume_payload(&mut self, sha256: Sha256Digest, size_bytes: u64, written: u64) -> EntryWriter<'_, W> {
        EntryWriter { out: &mut self.out, entry: Entry::Payload(sha256), declared: size_bytes, written }
    }

    /// Writes what the server would answer to a device.
    pub fn check_in(&mut self, device: DeviceId, response: &[u8]) -> Result<(), WriteError> {
        self.whole(Entry::CheckIn(device), response)
    }

    /// Writes the manifest and the end, and returns the output.
    pub fn finish(mut self, manifest: &Manifest) -> Result<W, WriteError> {
        let text = serde_json::to_vec_pretty(manifest).map_err(|error| WriteError::Write(error.into()))?;
        self.whole(Entry::Manifest, &text)?;
        // Two blocks of zeros end a tar.
        self.out.write_all(&[0; 2 * BLOCK_BYTES as usize]).map_err(WriteError::Write)?;
        Ok(self.out)
    }

    fn whole(&mut self, entry: Entry, bytes: &[u8]) -> Result<(), WriteError> {
        let mut writer = self.begin(entry, bytes.len() as u64)?;
        writer.write(bytes)?;
        writer.finish()
    }

    fn begin(&mut self, entry: Entry, size_bytes: u64) -> Result<EntryWriter<'_, W>, WriteError> {
        self.out.write_all(header(entry, size_bytes).as_bytes()).map_err(WriteError::Write)?;
        Ok(EntryWriter { out: &mut self.out, entry, declared: size_bytes, written: 0 })
    }
}

/// An entry being written.
#[derive(Debug)]
pub struct EntryWriter<'a, W> {
    out: &'a mut W,
    entry: Entry,
    declared: u64,
    written: u64,
}

impl<W: Write> EntryWriter<'_, W> {
    /// Adds bytes.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        self.written += bytes.len() as u64;
        if self.written > self.declared {
            return Err(self.wrong_size());
        }
        self.out.write_all(bytes).map_err(WriteError::Write)
    }

    /// Ends the entry.
    pub fn finish(self) -> Result<(), WriteError> {
        if self.written != self.declared {
            return Err(self.wrong_size());
        }
        let padding = self.declared.next_multiple_of(BLOCK_BYTES) - self.declared;
        let zeros = [0; BLOCK_BYTES as usize];
        self.out.write_all(&zeros[..usize::try_from(padding).unwrap_or(0)]).map_err(WriteError::Write)
    }

    fn wrong_size(&self) -> WriteError {
        WriteError::Size { path: self.entry.path(), declared: self.declared, written: self.written }
    }
}

/// Makes the header of an entry: a plain file that all may read, without a time or an owner.
fn header(entry: Entry, size_bytes: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_path(entry.path()).expect("no entry's path is longer than the 100 bytes of the field");
    header.set_entry_type(EntryType::Regular);
    header.set_size(size_bytes);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_cksum();
    header
}
