//! A payload on its way: its bytes and, beside them, a CRC-32C for each block of 256 KiB.
//!
//! A block's checksum is written after the block, so what the checksums vouch for was written whole. After a crash the
//! end of the part is read again and cut where the two disagree: a power cut may leave garbage of the right length.
//! Only what was not synced can be garbage, so a large part is taken up again as fast as a small one. The payload's own
//! SHA-256 is taken from the whole file once it is complete, as it can be read back from the disk.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::Path;

use ota_domain::Sha256Digest;
use ota_domain::release::Payload;
use rustix::fs::{Advice, fadvise};
use sha2::{Digest, Sha256};

/// Bytes that one checksum vouches for. At most this much of what was received is lost when the agent dies.
pub const BLOCK_BYTES: usize = 256 * 1024;

/// Bytes after which the part is synced, so that a power cut costs no more.
const SYNC_BYTES: u64 = 8 * 1024 * 1024;

/// Bytes at the end of a part that are checked before it is taken up again: twice what can be unsynced.
const CHECKED_BYTES: u64 = 2 * SYNC_BYTES;

const CHECKSUM_BYTES: u64 = 4;

/// An open part.
#[derive(Debug)]
pub struct Part {
    bytes: File,
    checksums: File,
    size: u64,
    /// Bytes in blocks that are written and vouched for.
    written: u64,
    unsynced: u64,
    block: Vec<u8>,
}

impl Part {
    /// Opens or creates the part of a payload of `size` bytes and keeps of it what its checksums vouch for.
    pub fn open(bytes: &Path, checksums: &Path, size: u64) -> io::Result<Self> {
        let open = |path| OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
        let (bytes, checksums) = (open(bytes)?, open(checksums)?);
        let written = vouched(&bytes, &checksums, size)?;
        bytes.set_len(written)?;
        checksums.set_len(written.div_ceil(BLOCK_BYTES as u64) * CHECKSUM_BYTES)?;
        Ok(Self { bytes, checksums, size, written, unsynced: 0, block: Vec::with_capacity(BLOCK_BYTES) })
    }

    /// Returns how many bytes are here; the next byte to fetch has this offset.
    pub fn len(&self) -> u64 {
        self.written + self.block.len() as u64
    }

    /// Tells whether nothing is here.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Tells whether all bytes are here.
    pub fn is_complete(&self) -> bool {
        self.len() == self.size
    }

    /// Takes in the next bytes. They must not go past the payload's size.
    pub fn append(&mut self, mut data: &[u8]) -> io::Result<()> {
        while !data.is_empty() {
            let (now, later) = data.split_at(data.len().min(BLOCK_BYTES - self.block.len()));
            self.block.extend_from_slice(now);
            data = later;
            if self.block.len() == BLOCK_BYTES || self.is_complete() {
                self.write_block()?;
            }
        }
        Ok(())
    }

    fn write_block(&mut self) -> io::Result<()> {
        self.bytes.write_all_at(&self.block, self.written)?;
        let checksum = crc_fast::crc32_iscsi(&self.block).to_le_bytes();
        self.checksums.write_all_at(&checksum, self.written / BLOCK_BYTES as u64 * CHECKSUM_BYTES)?;
        self.written += self.block.len() as u64;
        self.unsynced += self.block.len() as u64;
        self.block.clear();
        if self.unsynced >= SYNC_BYTES || self.is_complete() {
            self.bytes.sync_data()?;
            self.checksums.sync_data()?;
            self.unsynced = 0;
        }
        Ok(())
    }
}

/// Returns the length of the prefix that the checksums vouch for. Damage further back than a power cut reaches makes the
/// whole part be looked at.
fn vouched(bytes: &File, checksums: &File, size: u64) -> io::Result<u64> {
    let blocks = bytes.metadata()?.len().div_ceil(BLOCK_BYTES as u64).min(checksums.metadata()?.len() / CHECKSUM_BYTES);
    let first = blocks.saturating_sub(CHECKED_BYTES / BLOCK_BYTES as u64);
    let vouched = vouched_from(first, bytes, checksums, size)?;
    if first > 0 && vouched == first * BLOCK_BYTES as u64 {
        return vouched_from(0, bytes, checksums, size);
    }
    Ok(vouched)
}

/// Returns where the first block at or after block `first` is that does not match its checksum.
fn vouched_from(first: u64, mut bytes: &File, mut checksums: &File, size: u64) -> io::Result<u64> {
    let mut written = first * BLOCK_BYTES as u64;
    bytes.seek(SeekFrom::Start(written))?;
    checksums.seek(SeekFrom::Start(first * CHECKSUM_BYTES))?;
    let mut block = vec![0; BLOCK_BYTES];
    loop {
        let expected_bytes = usize::try_from(size.saturating_sub(written)).unwrap_or(BLOCK_BYTES).min(BLOCK_BYTES);
        let mut checksum = [0; CHECKSUM_BYTES as usize];
        if expected_bytes == 0
            || !read_whole(&mut bytes, &mut block[..expected_bytes])?
            || !read_whole(&mut checksums, &mut checksum)?
            || crc_fast::crc32_iscsi(&block[..expected_bytes]) != u32::from_le_bytes(checksum)
        {
            return Ok(written.min(size));
        }
        written += expected_bytes as u64;
    }
}

/// Fills the buffer, or tells that the file ends before.
fn read_whole(file: &mut &File, buffer: &mut [u8]) -> io::Result<bool> {
    match file.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

/// Tells whether a complete part is the payload, by length and SHA-256, as the disk gives it back.
pub fn is_payload(part: &Path, payload: Payload) -> io::Result<bool> {
    let mut file = File::open(part)?;
    if file.metadata()?.len() != payload.size_bytes {
        return Ok(false);
    }
    // Only a hint: without it the bytes may come from memory and not from the disk that has to hold them.
    fadvise(&file, 0, None, Advice::DontNeed)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; BLOCK_BYTES];
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            return Ok(Sha256Digest(hash.finalize().into()) == payload.sha256);
        }
        hash.update(&buffer[..count]);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::Index;

    use super::*;

    const SIZE: usize = 3 * BLOCK_BYTES + 1000;

    struct Fixture {
        folder: tempfile::TempDir,
        content: Vec<u8>,
    }

    impl Fixture {
        fn new() -> Self {
            let content = (0..SIZE).map(|n| (n % 251) as u8).collect();
            Self { folder: tempfile::tempdir().unwrap(), content }
        }

        fn open(&self) -> Part {
            let path = |name| self.folder.path().join(name);
            Part::open(&path("part"), &path("part.crc"), SIZE as u64).unwrap()
        }

        fn payload(&self) -> Payload {
            let sha256 = Sha256Digest(Sha256::digest(&self.content).into());
            Payload { sha256, size_bytes: SIZE as u64 }
        }

        fn is_payload(&self) -> bool {
            is_payload(&self.folder.path().join("part"), self.payload()).unwrap()
        }

        /// Fetches the rest in pieces.
        fn complete(&self, piece: usize) {
            let mut part = self.open();
            while !part.is_complete() {
                let from = usize::try_from(part.len()).unwrap();
                part.append(&self.content[from..SIZE.min(from + piece)]).unwrap();
            }
        }
    }

    #[test]
    fn pieces_of_any_length_make_the_payload() {
        for piece in [1000, BLOCK_BYTES, 2 * BLOCK_BYTES + 1, SIZE] {
            let fixture = Fixture::new();
            fixture.complete(piece);
            assert!(fixture.is_payload());
            assert!(fixture.open().is_complete(), "a complete part is found complete");
        }
    }

    #[test]
    fn a_restart_loses_less_than_one_block() {
        let fixture = Fixture::new();
        let mut part = fixture.open();
        part.append(&fixture.content[..2 * BLOCK_BYTES + 77]).unwrap();
        assert_eq!(part.len(), 2 * BLOCK_BYTES as u64 + 77);
        drop(part);
        assert_eq!(fixture.open().len(), 2 * BLOCK_BYTES as u64);
    }

    #[test]
    fn of_a_large_part_the_end_is_checked_and_all_of_it_when_that_does_not_fit() {
        let folder = tempfile::tempdir().unwrap();
        let (bytes, checksums) = (folder.path().join("part"), folder.path().join("part.crc"));
        let blocks = CHECKED_BYTES as usize / BLOCK_BYTES + 4;
        let size = (blocks * BLOCK_BYTES) as u64 + 1;
        let block = vec![7; BLOCK_BYTES];
        let mut part = Part::open(&bytes, &checksums, size).unwrap();
        for _ in 0..blocks {
            part.append(&block).unwrap();
        }
        drop(part);
        let len = || Part::open(&bytes, &checksums, size).unwrap().len();
        let damage = |block: usize| {
            let file = OpenOptions::new().write(true).open(&bytes).unwrap();
            file.write_all_at(b"x", (block * BLOCK_BYTES) as u64).unwrap();
        };
        assert_eq!(len(), (blocks * BLOCK_BYTES) as u64);
        damage(blocks - 1);
        assert_eq!(len(), ((blocks - 1) * BLOCK_BYTES) as u64);
        damage(1);
        damage(blocks - 1 - CHECKED_BYTES as usize / BLOCK_BYTES);
        assert_eq!(len(), BLOCK_BYTES as u64, "damage where none should be is looked for everywhere");
    }

    #[test]
    fn the_wrong_bytes_of_the_right_length_are_not_the_payload() {
        let fixture = Fixture::new();
        fixture.complete(BLOCK_BYTES);
        let file = OpenOptions::new().write(true).open(fixture.folder.path().join("part")).unwrap();
        file.write_all_at(b"x", 5).unwrap();
        assert!(!fixture.is_payload());
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

        /// Whatever a power cut does to the two files, what is kept is a true prefix, and the rest is fetched again.
        #[test]
        fn damage_never_survives_a_resume(
            received in 0..SIZE,
            cut_bytes in prop::option::of(any::<Index>()),
            cut_checksums in prop::option::of(any::<Index>()),
            flips in prop::collection::vec((any::<bool>(), any::<Index>()), 0..3),
            grow in any::<bool>(),
        ) {
            let fixture = Fixture::new();
            fixture.open().append(&fixture.content[..received]).unwrap();
            for (name, cut) in [("part", cut_bytes), ("part.crc", cut_checksums)] {
                let path = fixture.folder.path().join(name);
                let mut bytes = std::fs::read(&path).unwrap();
                if let (Some(cut), false) = (cut, bytes.is_empty()) {
                    bytes.truncate(cut.index(bytes.len()));
                }
                for (in_checksums, at) in &flips {
                    if *in_checksums == (name == "part.crc") && !bytes.is_empty() {
                        let at = at.index(bytes.len());
                        bytes[at] ^= 0x10;
                    }
                }
                if grow {
                    bytes.extend([0; 700]);
                }
                std::fs::write(&path, &bytes).unwrap();
            }
            let kept = usize::try_from(fixture.open().len()).unwrap();
            let on_disk = std::fs::read(fixture.folder.path().join("part")).unwrap();
            prop_assert!(kept <= received);
            prop_assert_eq!(&on_disk[..], &fixture.content[..kept]);
            fixture.complete(BLOCK_BYTES);
            prop_assert!(fixture.is_payload());
        }
    }
}
