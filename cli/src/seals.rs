//! Recomputes the chain of hashes over the event log, so that nobody has to believe the server that it is whole.
//!
//! [`verify_seal`] checks each seal against the one before it and the records it covers. Whoever changes, removes or inserts a record changes every hash from there on, and with the last
//! hash kept elsewhere even a chain that was computed anew is noticed.

use std::{
    fs, io,
    io::Write,
    path::{Path, PathBuf},
};

use ota_domain::{
    Sha256Digest,
    event::{BrokenSeal, Head, verify_seal},
};
use ota_proto::{admin::v1::EventSeal, convert::admin::event::read_seal};

use crate::error::Failure;

/// Most bytes of a file with a remembered seal.
const MAX_FILE_BYTES: u64 = 4096;

/// Why a chain is not right. Says where it first is not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// It does not continue the one before it, or does not fit its records.
    #[error(transparent)]
    Seal(#[from] BrokenSeal),
    /// A hash is no SHA-256.
    #[error("seal {number} has no whole hash")]
    Form {
        /// The seal.
        number: i64,
    },
    /// The chain is right in itself, but another one than before.
    #[error("seal {number} was another one before: its hash was {expected}, now it is {found}")]
    Rewritten {
        /// The seal.
        number: i64,
        /// The hash that was remembered.
        expected: Sha256Digest,
        /// The hash it has.
        found: Sha256Digest,
    },
    /// The chain ends before a seal that was there.
    #[error("the log ends with seal {last}, and seal {expected} was there before")]
    Shortened {
        /// The seal that was remembered.
        expected: i64,
        /// The last one.
        last: i64,
    },
}

/// Walks a chain from its first seal on.
#[derive(Debug, Clone)]
pub struct Chain {
    head: Head,
    records: u64,
    remembered: Option<Head>,
}

impl Chain {
    /// Begins before the first seal. `remembered` is a seal that an earlier walk found to be right.
    pub fn new(remembered: Option<Head>) -> Self {
        Self { head: Head::START, records: 0, remembered }
    }

    /// Checks the next seal.
    pub fn next(&mut self, seal: EventSeal) -> Result<(), Broken> {
        let number = seal.number;
        let seal = read_seal(seal).map_err(|_| Broken::Form { number })?;
        let head = verify_seal(self.head, &seal)?;
        if let Some(known) = self.remembered.filter(|known| known.number == head.number && known.sha256 != head.sha256)
        {
            return Err(Broken::Rewritten { number, expected: known.sha256, found: head.sha256 });
        }
        self.head = head;
        self.records += seal.records.len() as u64;
        Ok(())
    }

    /// Ends the walk behind the last seal.
    pub fn end(self) -> Result<Walked, Broken> {
        match self.remembered {
            Some(known) if known.number > self.head.number => {
                Err(Broken::Shortened { expected: known.number, last: self.head.number })
            }
            Some(_) | None => Ok(Walked { head: self.head, records: self.records }),
        }
    }

    /// Returns how many seals were right so far.
    pub fn seals(&self) -> i64 {
        self.head.number
    }
}

/// A chain that was found to be right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Walked {
    /// Its last seal. Number 0 when there is none yet.
    pub head: Head,
    /// How many records it covers.
    pub records: u64,
}

/// Reads the seal that an earlier run remembered. A file that does not exist remembers none.
pub fn recall(path: &Path) -> Result<Option<Head>, Failure> {
    let text = match fs::File::open(path) {
        Ok(file) => io::read_to_string(io::Read::take(file, MAX_FILE_BYTES)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => Err(error),
    };
    let text = text.map_err(|error| Failure::because(format!("cannot read {}", path.display()), &error))?;
    let head: Head = serde_json::from_str(&text).map_err(|_| {
        Failure::failed(format!("{} is damaged: it holds no seal of an event log", path.display()))
            .hint("restore it from a copy; without it a log that was rewritten as a whole is not noticed")
    })?;
    if head.number < 0 {
        return Err(Failure::failed(format!("{} is damaged: there is no seal {}", path.display(), head.number)));
    }
    Ok(Some(head))
}

/// Remembers a seal for later runs. Replaces the file as a whole, so that a crash leaves the old one.
pub fn remember(path: &Path, head: Head) -> Result<(), Failure> {
    let write = || -> io::Result<()> {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).map(PathBuf::from);
        let mut file = tempfile::NamedTempFile::new_in(folder.unwrap_or_else(|| PathBuf::from(".")))?;
        serde_json::to_writer(&mut file, &head)?;
        file.write_all(b"\n")?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        Ok(())
    };
    write().map_err(|error| Failure::because(format!("cannot write {}", path.display()), &error))
}

#[cfg(test)]
mod tests;
