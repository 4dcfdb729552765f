//! Reads a bundle that anybody may have made.

use std::{
    collections::BTreeMap,
    io::{self, Read, Seek, SeekFrom},
};

use ota_domain::{DeviceId, Sha256Digest};
use tar::{EntryType, Header};

use crate::{BLOCK_BYTES, Entry, MANIFEST_FORMAT, MANIFEST_VERSION, Manifest};

/// What a reader takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most entries.
    pub max_entries: usize,
    /// Most bytes of the manifest.
    pub max_manifest_bytes: u64,
    /// Most bytes of one check-in.
    pub max_check_in_bytes: u64,
}

impl Default for Limits {
    /// Enough for ten thousand devices with a hundred thousand signed releases between them.
    fn default() -> Self {
        Self { max_entries: 100_000, max_manifest_bytes: 16 << 20, max_check_in_bytes: 64 << 20 }
    }
}

/// Why a bundle was not read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file cannot be read.
    #[error("cannot read the bundle")]
    Read(#[source] io::Error),
    /// The file ends before its end.
    #[error("the bundle is cut short")]
    Truncated,
    /// A header is damaged.
    #[error("this is no bundle, or a damaged one: byte {offset} begins no entry")]
    Header {
        /// Where the header should be.
        offset: u64,
    },
    /// An entry that no bundle has.
    #[error("the bundle holds {path:?}, which does not belong there")]
    Unexpected {
        /// Its path as far as it can be told.
        path: String,
    },
    /// Two entries of one name.
    #[error("the bundle holds {path} twice")]
    Duplicate {
        /// The path.
        path: String,
    },
    /// More than the reader takes.
    #[error("the bundle's {what} is larger than {limit}")]
    TooLarge {
        /// What is.
        what: &'static str,
        /// The limit, in bytes or entries.
        limit: u64,
    },
    /// The manifest is not what it should be.
    #[error("the bundle's manifest is damaged")]
    Manifest(#[source] serde_json::Error),
    /// The manifest is of another program or another version.
    #[error("this is {format:?} version {version}, and not {MANIFEST_FORMAT:?} version {MANIFEST_VERSION}")]
    Version {
        /// What it says it is.
        format: String,
        /// Its version.
        version: u32,
    },
}

/// Where an entry's content lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Span {
    offset: u64,
    size: u64,
}

/// A bundle whose entries are known and whose content is read when asked for.
#[derive(Debug)]
pub struct Bundle<R> {
    source: R,
    entries: BTreeMap<Entry, Span>,
    manifest: Manifest,
    limits: Limits,
}

impl<R: Read + Seek> Bundle<R> {
    /// Walks the headers and reads the manifest.
    pub fn open(source: R) -> Result<Self, ReadError> {
        Self::open_within(source, Limits::default())
    }

    /// Does the same within other limits.
    pub fn open_within(mut source: R, limits: Limits) -> Result<Self, ReadError> {
        let entries = walk(&mut source, limits)?;
        let span = *entries.get(&Entry::Manifest).ok_or(ReadError::Truncated)?;
        let text = read(&mut source, span, "manifest", limits.max_manifest_bytes)?;
        let manifest: Manifest = serde_json::from_slice(&text).map_err(ReadError::Manifest)?;
        if (manifest.format.as_str(), manifest.version) != (MANIFEST_FORMAT, MANIFEST_VERSION) {
            return Err(ReadError::Version { format: manifest.format, version: manifest.version });
        }
        Ok(Self { source, entries, manifest, limits })
    }

    /// Returns what the bundle says it holds.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Reads what the server would answer to a device. `None` when the bundle is not for it.
    pub fn check_in(&mut self, device: DeviceId) -> Result<Option<Vec<u8>>, ReadError> {
        let Some(span) = self.entries.get(&Entry::CheckIn(device)).copied() else { return Ok(None) };
        read(&mut self.source, span, "check-in", self.limits.max_check_in_bytes).map(Some)
    }

    /// Returns a payload's size in bytes and a reader of them. `None` when the bundle does not hold it. The bytes are
    /// whatever the file has there: the caller compares their SHA-256.
    pub fn payload(&mut self, sha256: Sha256Digest) -> Result<Option<(u64, io::Take<&mut R>)>, ReadError> {
        let Some(span) = self.entries.get(&Entry::Payload(sha256)).copied() else { return Ok(None) };
        self.source.seek(SeekFrom::Start(span.offset)).map_err(ReadError::Read)?;
        Ok(Some((span.size, (&mut self.source).take(span.size))))
    }
}

/// Finds all entries, from header to header, without reading what they hold.
fn walk<R: Read + Seek>(source: &mut R, limits: Limits) -> Result<BTreeMap<Entry, Span>, ReadError> {
    let end = source.seek(SeekFrom::End(0)).map_err(ReadError::Read)?;
    let mut entries = BTreeMap::new();
    let mut offset = 0;
    loop {
        if end.saturating_sub(offset) < BLOCK_BYTES {
            return Err(ReadError::Truncated);
        }
        source.seek(SeekFrom::Start(offset)).map_err(ReadError::Read)?;
        let mut header = Header::new_gnu();
        source.read_exact(header.as_mut_bytes()).map_err(ReadError::Read)?;
        if header.as_bytes().iter().all(|byte| *byte == 0) {
            return Ok(entries);
        }
        let (entry, size) = parse(&header, offset)?;
        if entries.len() >= limits.max_entries {
            return Err(ReadError::TooLarge { what: "number of entries", limit: limits.max_entries as u64 });
        }
        let content = offset + BLOCK_BYTES;
        let padded = size.checked_next_multiple_of(BLOCK_BYTES).ok_or(ReadError::Truncated)?;
        let next = content.checked_add(padded).filter(|next| *next <= end).ok_or(ReadError::Truncated)?;
        if entries.insert(entry, Span { offset: content, size }).is_some() {
            return Err(ReadError::Duplicate { path: entry.path() });
        }
        offset = next;
    }
}

/// Reads one header. Its checksum must hold: without it, any text file would begin an entry.
fn parse(header: &Header, offset: u64) -> Result<(Entry, u64), ReadError> {
    let damaged = |_| ReadError::Header { offset };
    let sum: u32 = header.as_bytes().iter().enumerate().map(|(at, byte)| checksum_value(at, *byte)).sum();
    if header.cksum().map_err(damaged)? != sum {
        return Err(ReadError::Header { offset });
    }
    let path = header.path_bytes();
    let unexpected = || ReadError::Unexpected { path: String::from_utf8_lossy(&path).into_owned() };
    if header.entry_type() != EntryType::Regular {
        return Err(unexpected());
    }
    let entry = Entry::from_path(&path).ok_or_else(unexpected)?;
    Ok((entry, header.size().map_err(damaged)?))
}

/// Returns what a header's byte adds to its checksum. The checksum's own eight bytes, from 148 on, count as spaces.
fn checksum_value(at: usize, byte: u8) -> u32 {
    if (148..156).contains(&at) { u32::from(b' ') } else { u32::from(byte) }
}

/// Reads an entry into memory, when it is not too large for that.
fn read<R: Read + Seek>(source: &mut R, span: Span, what: &'static str, limit: u64) -> Result<Vec<u8>, ReadError> {
    if span.size > limit {
        return Err(ReadError::TooLarge { what, limit });
    }
    source.seek(SeekFrom::Start(span.offset)).map_err(ReadError::Read)?;
    let mut bytes = Vec::new();
    source.take(span.size).read_to_end(&mut bytes).map_err(ReadError::Read)?;
    if bytes.len() as u64 == span.size { Ok(bytes) } else { Err(ReadError::Truncated) }
}
