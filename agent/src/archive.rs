//! Unpacks a tar archive as if an attacker had written it.
//!
//! Walks the raw entries itself and creates each file beneath one directory descriptor. Never calls the `tar` crate's
//! `unpack`, which drops some hostile entries in silence and creates others; never follows a link, never leaves the
//! directory, never reads an extension header of unbounded size into memory. On any error the caller throws the whole
//! directory away: a half-unpacked tree is never used.

mod beneath;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;

use ota_domain::archive_path::{EntryPath, PathError};
use sha2::{Digest, Sha256};
use tar::EntryType;

use crate::failure::is_disk_full;
use crate::tree::{Mode, Tree};
use beneath::Beneath;

/// Most bytes of an extension header (a long name or a set of PAX records) that are read into memory.
const MAX_EXTENSION_BYTES: u64 = 16 * 1024;

/// Bytes copied at a time from the archive to a file.
const COPY_BUFFER_BYTES: usize = 128 * 1024;

/// PAX records that change nothing this walk keeps: times and owners.
const IGNORED_PAX_KEYS: [&str; 8] = ["mtime", "atime", "ctime", "uid", "gid", "uname", "gname", "comment"];

/// What an archive may grow to on this device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most files and directories, those that an entry's path implies included.
    pub max_entries: u32,
    /// Most bytes of all files together.
    pub max_unpacked_bytes: u64,
}

/// Why an archive was not unpacked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The archive could not be read, ends early or has a damaged header.
    #[error("cannot read the archive")]
    Read(#[source] io::Error),
    /// An entry ends before its declared size.
    #[error("the archive ends inside {path:?}")]
    Truncated {
        /// The entry's path.
        path: String,
    },
    /// An entry's path breaks a rule.
    #[error("the archive holds a path that is not allowed")]
    Path(#[source] PathError),
    /// An entry is neither a regular file nor a directory.
    #[error("the archive holds {path:?}, which is {kind}; only regular files and directories are allowed")]
    Kind {
        /// The entry's path as far as it can be told.
        path: String,
        /// What it is.
        kind: &'static str,
    },
    /// A PAX record asks for something this walk does not do.
    #[error("the archive holds the extension {key:?}, which is not allowed")]
    Extension {
        /// The record's key.
        key: String,
    },
    /// Two entries have the same path, or paths that differ in upper and lower case alone.
    #[error("the archive holds {path:?} twice (upper and lower case count as the same)")]
    Duplicate {
        /// The later path.
        path: String,
    },
    /// The archive holds more entries than the device allows.
    #[error("the archive holds more than {limit} entries")]
    TooManyEntries {
        /// The limit.
        limit: u32,
    },
    /// The archive grows to more bytes than the device allows.
    #[error("the archive unpacks to more than {limit} bytes")]
    TooLarge {
        /// The limit.
        limit: u64,
    },
    /// A file or directory could not be created or written.
    #[error("cannot write {path:?}")]
    Write {
        /// The entry's path.
        path: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl Error {
    /// Tells whether the disk was full, which is no fault of the archive's.
    pub fn is_disk_full(&self) -> bool {
        if let Self::Write { source, .. } = self { is_disk_full(source) } else { false }
    }
}

/// Unpacks `archive` into the empty directory `into` and returns what was made.
///
/// Nothing is synced to disk: the caller does that once for the whole tree.
pub fn unpack(archive: impl Read, into: OwnedFd, limits: Limits) -> Result<Tree, Error> {
    let mut archive = tar::Archive::new(archive);
    let mut walk = Walk { beneath: Beneath::new(into), limits, bytes: 0, seen: Seen::default(), tree: Tree::default() };
    let mut long_name = None;
    // Raw: extension headers arrive as entries, so that their size is checked before they are read.
    for entry in archive.entries().map_err(Error::Read)?.raw(true) {
        let mut entry = entry.map_err(Error::Read)?;
        let kind = entry.header().entry_type();
        if kind.is_gnu_longname() {
            long_name = Some(read_long_name(&mut entry)?);
        } else if kind.is_pax_local_extensions() {
            long_name = read_pax_path(&mut entry)?.or(long_name);
        } else if kind.is_file() || kind.is_contiguous() {
            let path = entry_path(&entry, long_name.take())?;
            walk.file(path, &mut entry)?;
        } else if kind.is_dir() {
            let path = entry_path(&entry, long_name.take())?;
            walk.directory(path)?;
        } else {
            let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            return Err(Error::Kind { path, kind: describe(kind) });
        }
    }
    Ok(walk.tree)
}

/// The state of one walk.
struct Walk {
    beneath: Beneath,
    limits: Limits,
    bytes: u64,
    seen: Seen,
    tree: Tree,
}

impl Walk {
    fn directory(&mut self, path: Option<EntryPath>) -> Result<(), Error> {
        // The archive's own root, `./`, is the directory that exists already.
        let Some(path) = path else { return Ok(()) };
        self.parents(&path)?;
        self.seen.claim(&path)?;
        self.make_directory(&path)
    }

    fn file(&mut self, path: Option<EntryPath>, entry: &mut tar::Entry<'_, impl Read>) -> Result<(), Error> {
        let Some(path) = path else {
            return Err(Error::Kind { path: "./".to_owned(), kind: "a file in the place of the root" });
        };
        let size = entry.size();
        self.bytes = self.bytes.saturating_add(size);
        if self.bytes > self.limits.max_unpacked_bytes {
            return Err(Error::TooLarge { limit: self.limits.max_unpacked_bytes });
        }
        self.parents(&path)?;
        self.seen.claim(&path)?;
        if self.tree.has_directory(path.as_str()) {
            return Err(Error::Duplicate { path: path.as_str().to_owned() });
        }
        self.count()?;
        let mode = Mode::from_bits(entry.header().mode().map_err(Error::Read)?);
        let write_error = |source| Error::Write { path: path.as_str().to_owned(), source };
        let mut file = self.beneath.create_file(&path, mode).map_err(write_error)?;
        let mut hash = Sha256::new();
        let mut copied = 0;
        let mut buffer = vec![0; COPY_BUFFER_BYTES];
        loop {
            let count = entry.read(&mut buffer).map_err(Error::Read)?;
            if count == 0 {
                break;
            }
            let piece = &buffer[..count];
            hash.update(piece);
            file.write_all(piece).map_err(write_error)?;
            copied += count as u64;
        }
        if copied != size {
            return Err(Error::Truncated { path: path.as_str().to_owned() });
        }
        self.tree.add_file(path.as_str(), mode, hash.finalize().into());
        Ok(())
    }

    /// Makes the directories above `path` that no entry has named yet.
    fn parents(&mut self, path: &EntryPath) -> Result<(), Error> {
        for parent in path.ancestors() {
            if self.seen.imply(&parent)? {
                self.make_directory(&parent)?;
            } else if !self.tree.has_directory(parent.as_str()) {
                return Err(Error::Duplicate { path: path.as_str().to_owned() });
            }
        }
        Ok(())
    }

    fn make_directory(&mut self, path: &EntryPath) -> Result<(), Error> {
        if self.tree.has_directory(path.as_str()) {
            return Ok(());
        }
        self.count()?;
        self.beneath.make_directory(path).map_err(|source| Error::Write { path: path.as_str().to_owned(), source })?;
        self.tree.add_directory(path.as_str());
        Ok(())
    }

    /// Makes sure that one more entry is allowed.
    fn count(&self) -> Result<(), Error> {
        if self.tree.len() >= self.limits.max_entries as usize {
            return Err(Error::TooManyEntries { limit: self.limits.max_entries });
        }
        Ok(())
    }
}

/// The paths met so far, told apart without regard to upper and lower case, because some file systems do not either.
#[derive(Default)]
struct Seen {
    spelling: HashMap<String, String>,
    claimed: HashSet<String>,
}

impl Seen {
    /// Notes a path that an entry names itself; each may be named once.
    fn claim(&mut self, path: &EntryPath) -> Result<(), Error> {
        self.imply(path)?;
        if self.claimed.insert(path.as_str().to_owned()) {
            Ok(())
        } else {
            Err(Error::Duplicate { path: path.as_str().to_owned() })
        }
    }

    /// Notes a path that some entry lies beneath; tells whether it is the first to do so.
    fn imply(&mut self, path: &EntryPath) -> Result<bool, Error> {
        match self.spelling.get(&path.folded()) {
            None => {
                self.spelling.insert(path.folded(), path.as_str().to_owned());
                Ok(true)
            }
            Some(spelling) if spelling == path.as_str() => Ok(false),
            Some(_) => Err(Error::Duplicate { path: path.as_str().to_owned() }),
        }
    }
}

/// Returns the entry's path, or `None` for the archive's own root.
fn entry_path<R: Read>(entry: &tar::Entry<'_, R>, long_name: Option<Vec<u8>>) -> Result<Option<EntryPath>, Error> {
    let bytes = long_name.unwrap_or_else(|| entry.path_bytes().into_owned());
    EntryPath::parse(&bytes).map_err(Error::Path)
}

fn read_extension(entry: &mut tar::Entry<'_, impl Read>) -> Result<Vec<u8>, Error> {
    let size = entry.size();
    if size > MAX_EXTENSION_BYTES {
        return Err(Error::Extension { key: format!("header of {size} bytes") });
    }
    let mut bytes = Vec::new();
    entry.read_to_end(&mut bytes).map_err(Error::Read)?;
    if bytes.len() as u64 != size {
        return Err(Error::Truncated { path: "an extension header".to_owned() });
    }
    Ok(bytes)
}

fn read_long_name(entry: &mut tar::Entry<'_, impl Read>) -> Result<Vec<u8>, Error> {
    let mut bytes = read_extension(entry)?;
    // GNU tar ends the name with a zero byte.
    if bytes.last() == Some(&0) {
        bytes.pop();
    }
    Ok(bytes)
}

/// Returns the path that a PAX header gives to the entry after it, if it does.
fn read_pax_path(entry: &mut tar::Entry<'_, impl Read>) -> Result<Option<Vec<u8>>, Error> {
    let bytes = read_extension(entry)?;
    let mut path = None;
    for record in tar::PaxExtensions::new(&bytes) {
        let record = record.map_err(Error::Read)?;
        let key = String::from_utf8_lossy(record.key_bytes()).into_owned();
        if key == "path" {
            path = Some(record.value_bytes().to_vec());
        } else if !IGNORED_PAX_KEYS.contains(&key.as_str()) {
            // `size` above all: two readers that disagree on a size see two different archives.
            return Err(Error::Extension { key });
        }
    }
    Ok(path)
}

fn describe(kind: EntryType) -> &'static str {
    if kind.is_symlink() {
        "a symbolic link"
    } else if kind.is_hard_link() {
        "a hard link"
    } else if kind.is_fifo() {
        "a FIFO"
    } else if kind.is_block_special() || kind.is_character_special() {
        "a device"
    } else if kind.is_gnu_sparse() {
        "a sparse file"
    } else if kind.is_pax_global_extensions() {
        "a global extension header"
    } else {
        "of an unknown kind"
    }
}
