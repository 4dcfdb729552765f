//! The content of an unpacked release as one digest, made while unpacking and made again from disk after a crash, so
//! that a tree which a power cut damaged is never switched to.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use ota_domain::Sha256Digest;
use sha2::{Digest, Sha256};

/// Bytes read at a time when a tree is hashed from disk.
const READ_BUFFER_BYTES: usize = 128 * 1024;

/// The two modes a file of a release can have. Directories are always 0755.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// 0644.
    Plain,
    /// 0755.
    Executable,
}

impl Mode {
    /// Reduces an archive's mode: executable if its owner may execute it. Group and world writing, set-user-id and
    /// the like are dropped.
    pub fn from_bits(bits: u32) -> Self {
        if bits & 0o100 == 0 { Self::Plain } else { Self::Executable }
    }

    /// Returns the mode's bits.
    pub fn bits(self) -> rustix::fs::Mode {
        match self {
            Self::Plain => rustix::fs::Mode::from_raw_mode(0o644),
            Self::Executable => rustix::fs::Mode::from_raw_mode(0o755),
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Node {
    Directory,
    File { mode: Mode, sha256: [u8; 32] },
}

/// Every file and directory of a release, by path.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Tree(BTreeMap<String, Node>);

impl Tree {
    /// Reads a tree from disk. Anything but files and directories is an error.
    pub fn read(root: &Path) -> io::Result<Self> {
        let mut tree = Self::default();
        tree.read_into(root, "")?;
        Ok(tree)
    }

    fn read_into(&mut self, directory: &Path, prefix: &str) -> io::Result<()> {
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let name = entry.file_name().into_string().map_err(|_| io::ErrorKind::InvalidFilename)?;
            let path = if prefix.is_empty() { name } else { format!("{prefix}/{name}") };
            let kind = entry.file_type()?;
            if kind.is_dir() {
                self.add_directory(&path);
                self.read_into(&entry.path(), &path)?;
            } else if kind.is_file() {
                let file = File::open(entry.path())?;
                let mode = Mode::from_bits(file.metadata()?.permissions().mode());
                self.add_file(&path, mode, hash(file)?);
            } else {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("{path} is neither file nor directory"),
                ));
            }
        }
        Ok(())
    }

    /// Adds a directory.
    pub fn add_directory(&mut self, path: &str) {
        self.0.insert(path.to_owned(), Node::Directory);
    }

    /// Adds a file by the SHA-256 of its content.
    pub fn add_file(&mut self, path: &str, mode: Mode, sha256: [u8; 32]) {
        self.0.insert(path.to_owned(), Node::File { mode, sha256 });
    }

    /// Tells whether the tree holds this directory.
    pub fn has_directory(&self, path: &str) -> bool {
        self.0.get(path) == Some(&Node::Directory)
    }

    /// Returns the number of files and directories.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Tells whether the tree holds nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the SHA-256 over all paths, modes and contents in the order of the paths.
    pub fn sha256(&self) -> Sha256Digest {
        let mut digest = Sha256::new();
        for (path, node) in &self.0 {
            match node {
                Node::Directory => digest.update(b"d"),
                Node::File { mode: Mode::Plain, sha256 } => {
                    digest.update(b"f");
                    digest.update(sha256);
                }
                Node::File { mode: Mode::Executable, sha256 } => {
                    digest.update(b"x");
                    digest.update(sha256);
                }
            }
            digest.update((path.len() as u64).to_be_bytes());
            digest.update(path.as_bytes());
        }
        Sha256Digest(digest.finalize().into())
    }
}

fn hash(mut file: File) -> io::Result<[u8; 32]> {
    let mut digest = Sha256::new();
    let mut buffer = vec![0; READ_BUFFER_BYTES];
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            return Ok(digest.finalize().into());
        }
        digest.update(&buffer[..count]);
    }
}
