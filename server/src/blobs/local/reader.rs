//! Reads a payload.
//!
//! What the system has in memory is read at once, without a change of threads; only the disk is waited for elsewhere.
//! Buffers are used again: to get fresh memory from the system for every piece costs as much as to fill it.

use std::{
    fs::File,
    io::{self, IoSliceMut},
    mem,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use bytes::Bytes;
use rustix::io::{Errno, ReadWriteFlags, preadv2};

use super::blocking;
use crate::app::Result;

/// Bytes in a buffer: a reading of this many stays in the processor's cache until it is sent.
pub(in crate::blobs) const READING_BYTES: usize = 256 * 1024;
/// Buffers kept for the next reading. More are in use only while the connection buffers that much.
const SPARE: usize = 4;

/// A payload, opened once however often it is read.
#[derive(Debug)]
pub struct Reader {
    file: Arc<File>,
    spare: Arc<Spare>,
}

impl Reader {
    pub(super) fn new(file: File) -> Self {
        Self { file: Arc::new(file), spare: Arc::default() }
    }

    pub(in crate::blobs) async fn read(&self, offset: u64, length: usize) -> Result<Bytes> {
        let mut buffer = Spare::take(&self.spare, length);
        let mut filled = 0;
        if fill(&self.file, offset, &mut buffer.memory[..length], &mut filled, ReadWriteFlags::NOWAIT).is_err() {
            let file = Arc::clone(&self.file);
            buffer = blocking(move || {
                fill(&file, offset, &mut buffer.memory[..length], &mut filled, ReadWriteFlags::empty())?;
                Ok(buffer)
            })
            .await?;
        }
        buffer.length = length;
        Ok(Bytes::from_owner(buffer))
    }
}

/// Reads until `memory` is full; `filled` tells how far it came also when it fails.
fn fill(file: &File, offset: u64, memory: &mut [u8], filled: &mut usize, flags: ReadWriteFlags) -> io::Result<()> {
    while *filled < memory.len() {
        let position = offset + *filled as u64;
        match preadv2(file, &mut [IoSliceMut::new(&mut memory[*filled..])], position, flags) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => *filled += read,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Memory that nobody uses at the moment.
#[derive(Debug, Default)]
struct Spare(Mutex<Vec<Vec<u8>>>);

impl Spare {
    fn take(spare: &Arc<Self>, length: usize) -> Buffer {
        let memory = spare.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let memory = memory.filter(|memory| memory.len() >= length);
        Buffer {
            memory: memory.unwrap_or_else(|| vec![0; length.max(READING_BYTES)]),
            length: 0,
            home: Arc::downgrade(spare),
        }
    }
}

/// Memory in use; goes back when the last view of it is dropped.
struct Buffer {
    memory: Vec<u8>,
    /// How much of it was read.
    length: usize,
    home: Weak<Spare>,
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.memory[..self.length]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let Some(home) = self.home.upgrade() {
            let mut spare = home.0.lock().unwrap_or_else(PoisonError::into_inner);
            if spare.len() < SPARE {
                spare.push(mem::take(&mut self.memory));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[tokio::test]
    async fn any_range_is_read_and_buffers_are_used_again() {
        let content: Vec<u8> = (0..3 * READING_BYTES + 77).map(|i| (i % 251) as u8).collect();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&content).unwrap();
        let reader = Reader::new(file);
        for (offset, length) in
            [(0, READING_BYTES), (1, 77), (READING_BYTES, 2 * READING_BYTES + 77), (5, READING_BYTES)]
        {
            let bytes = reader.read(offset as u64, length).await.unwrap();
            assert!(bytes == content[offset..offset + length], "{length} bytes at {offset}");
        }
        let (one, other) = (reader.read(0, 9).await.unwrap(), reader.read(9, 9).await.unwrap());
        assert_eq!((&one[..], &other[..]), (&content[..9], &content[9..18]), "a buffer in use is nobody else's");
        drop((one, other));
        assert_eq!(reader.spare.0.lock().unwrap().len(), 2);
        assert!(reader.read(content.len() as u64 - 1, 2).await.is_err(), "there is only one byte");
    }
}
