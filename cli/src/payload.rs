//! What `upload` sends: the exact bytes, their SHA-256 and size.
//!
//! A folder becomes a deterministic tar in an unnamed temporary file, so that the same folder has the same SHA-256 on
//! every machine and nothing is left behind. Nothing is sent from here.

mod entry;
mod folder;
mod inspect;
#[cfg(test)]
mod tests;

use std::{
    fs::File,
    io::{self, BufReader, Read, Seek, Write},
    path::{Path, PathBuf},
};

use clap::ValueEnum;
use ota_domain::Sha256Digest;
use ota_proto::admin::v1 as wire;
use sha2::{Digest, Sha256};

use crate::{error::Failure, progress::Progress};

pub use folder::Folder;

/// Bytes read at a time while hashing.
const READ_BYTES: usize = 256 * 1024;

/// How devices install a payload, as far as otactl can make one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Installer {
    /// A tree of files, switched as a whole
    Directory,
    /// One file
    File,
}

impl From<Installer> for wire::Installer {
    fn from(installer: Installer) -> Self {
        match installer {
            Installer::Directory => Self::Directory,
            Installer::File => Self::File,
        }
    }
}

/// What a path holds, checked as far as that needs no reading of contents.
#[derive(Debug)]
pub enum Source {
    /// A folder, to become a tar.
    Folder(Folder),
    /// A file, to be sent as it is.
    File {
        /// Where it is.
        path: PathBuf,
        /// Its open handle: what is hashed is what is sent, even when the path changes hands meanwhile.
        file: File,
        /// Its size.
        size: u64,
        /// How devices install it.
        installer: Installer,
    },
}

/// Bytes ready to be sent.
#[derive(Debug)]
pub struct Payload {
    /// The bytes.
    pub file: File,
    /// Their SHA-256.
    pub sha256: Sha256Digest,
    /// Their number.
    pub size: u64,
    /// Size of what devices unpack from them.
    pub unpacked_size: u64,
    /// How devices install them.
    pub installer: Installer,
}

impl Source {
    /// Looks at a path and finds everything that keeps it from being a payload.
    pub fn open(path: &Path, installer: Option<Installer>) -> Result<Self, Failure> {
        let shown = path.display();
        let cannot_read = |error: io::Error| Failure::because(format!("cannot read {shown}"), &error);
        let metadata = std::fs::metadata(path).map_err(cannot_read)?;
        if metadata.is_dir() {
            return match installer {
                Some(Installer::File) => {
                    Err(Failure::usage(format!("{shown} is a folder, and --installer file takes one file")))
                }
                Some(Installer::Directory) | None => Folder::scan(path).map(Self::Folder),
            };
        }
        if !metadata.is_file() {
            return Err(Failure::usage(format!("{shown} is neither a file nor a folder")));
        }
        let file = File::open(path).map_err(cannot_read)?;
        let size = file.metadata().map_err(cannot_read)?.len();
        if size == 0 {
            return Err(Failure::usage(format!("{shown} is empty")));
        }
        Ok(Self::File { path: path.to_owned(), file, size, installer: installer.unwrap_or(Installer::File) })
    }

    /// Returns the number of bytes that [`Source::pack`] reads.
    pub fn bytes(&self) -> u64 {
        match self {
            Self::Folder(folder) => folder.bytes(),
            Self::File { size, .. } => *size,
        }
    }

    /// Returns how devices install it.
    pub fn installer(&self) -> Installer {
        match self {
            Self::Folder(_) => Installer::Directory,
            Self::File { installer, .. } => *installer,
        }
    }

    /// Says what it is, for a person.
    pub fn describe(&self) -> String {
        match self {
            Self::Folder(folder) => folder.describe(),
            Self::File { path, .. } => path.display().to_string(),
        }
    }

    /// Makes the payload: packs a folder, checks a ready archive, hashes. Reads everything once; blocks meanwhile.
    pub fn pack(self, progress: &Progress) -> Result<Payload, Failure> {
        match self {
            Self::Folder(folder) => pack_folder(&folder, progress),
            Self::File { path, file, size, installer } => pack_file(&path, file, size, installer, progress),
        }
    }
}

fn pack_folder(folder: &Folder, progress: &Progress) -> Result<Payload, Failure> {
    let spool_failed = |error: io::Error| {
        let place = std::env::temp_dir();
        Failure::because(format!("cannot write the archive to a temporary file in {}", place.display()), &error)
            .hint("set TMPDIR to a folder with more space")
    };
    let file = tempfile::tempfile().map_err(spool_failed)?;
    let mut spool = Hashing { inner: io::BufWriter::new(file), hash: Sha256::new(), bytes: 0 };
    folder.write_tar(&mut spool, progress, spool_failed)?;
    spool.flush().map_err(spool_failed)?;
    let Hashing { inner, hash, bytes } = spool;
    let file = inner.into_inner().map_err(|error| spool_failed(error.into_error()))?;
    let sha256 = Sha256Digest(hash.finalize().into());
    Ok(Payload { file, sha256, size: bytes, unpacked_size: folder.bytes(), installer: Installer::Directory })
}

fn pack_file(
    path: &Path,
    mut file: File,
    size: u64,
    installer: Installer,
    progress: &Progress,
) -> Result<Payload, Failure> {
    let unpacked_size = match installer {
        Installer::File => size,
        Installer::Directory => inspect::check_archive(path, BufReader::new(&file))?,
    };
    let cannot_read = |error: io::Error| Failure::because(format!("cannot read {}", path.display()), &error);
    file.rewind().map_err(cannot_read)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; READ_BYTES];
    let mut bytes = 0;
    loop {
        let count = file.read(&mut buffer).map_err(cannot_read)?;
        if count == 0 {
            break;
        }
        hash.update(&buffer[..count]);
        bytes += count as u64;
        progress.add(count as u64);
    }
    if bytes != size {
        return Err(Failure::failed(format!("{} changed while it was read", path.display())));
    }
    Ok(Payload { file, sha256: Sha256Digest(hash.finalize().into()), size, unpacked_size, installer })
}

/// Hashes and counts what passes through.
struct Hashing<W> {
    inner: W,
    hash: Sha256,
    bytes: u64,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(buffer)?;
        self.hash.update(&buffer[..count]);
        self.bytes += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
