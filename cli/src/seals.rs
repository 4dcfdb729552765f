//! Recomputes the chain of hashes over the event log, so that nobody has to believe the server that it is whole.
//!
//! The hash after an event is SHA-256(hash before ‖ SHA-256(its record)); a seal gives the hashes before and after the
//! records it covers. Whoever changes, removes or inserts a record changes every hash from there on, and with the last
//! hash kept elsewhere even a chain that was computed anew is noticed.

use std::{
    fs, io,
    io::Write,
    path::{Path, PathBuf},
};

use ota_domain::Sha256Digest;
use ota_proto::admin::v1::EventSeal;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::Failure;

/// Most bytes of a file with a remembered seal.
const MAX_FILE_BYTES: u64 = 4096;

/// A seal that was found to be right: everything up to it is as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The seal's number.
    pub number: i64,
    /// The hash after its last record.
    pub sha256: Sha256Digest,
}

/// Why a chain is not right. Says where it first is not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// A seal is missing, or there is one too many.
    #[error("seal {expected} is missing: the next one is {found}")]
    Gap {
        /// The number that should come.
        expected: i64,
        /// The number that came.
        found: i64,
    },
    /// A hash is no SHA-256.
    #[error("seal {number} has no whole hash")]
    Form {
        /// The seal.
        number: i64,
    },
    /// A seal does not begin where the one before it ended.
    #[error("seal {number} does not follow the one before it: that ends with {expected}, this begins with {found}")]
    Link {
        /// The seal.
        number: i64,
        /// The hash that the seal before ends with.
        expected: Sha256Digest,
        /// The hash that this one says it begins with.
        found: Sha256Digest,
    },
    /// The records do not give the hash.
    #[error("seal {number} does not fit its records: they give {computed}, it says {found}")]
    Records {
        /// The seal.
        number: i64,
        /// What the records give.
        computed: Sha256Digest,
        /// What the seal says.
        found: Sha256Digest,
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
        Self { head: Head { number: 0, sha256: Sha256Digest([0; 32]) }, records: 0, remembered }
    }

    /// Checks the next seal.
    pub fn next(&mut self, seal: &EventSeal) -> Result<(), Broken> {
        let number = seal.number;
        let expected = self.head.number + 1;
        if number != expected {
            return Err(Broken::Gap { expected, found: number });
        }
        let digest = |bytes: &[u8]| Sha256Digest::try_from(bytes).map_err(|_| Broken::Form { number });
        let (previous, sha256) = (digest(&seal.previous_sha256)?, digest(&seal.sha256)?);
        if previous != self.head.sha256 {
            return Err(Broken::Link { number, expected: self.head.sha256, found: previous });
        }
        let computed = seal.records.iter().fold(previous, |before, record| after(before, record));
        if computed != sha256 {
            return Err(Broken::Records { number, computed, found: sha256 });
        }
        if let Some(known) = self.remembered.filter(|known| known.number == number && known.sha256 != sha256) {
            return Err(Broken::Rewritten { number, expected: known.sha256, found: sha256 });
        }
        self.head = Head { number, sha256 };
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

/// Returns the hash after a record.
fn after(before: Sha256Digest, record: &str) -> Sha256Digest {
    let record = Sha256::digest(record.as_bytes());
    Sha256Digest(Sha256::new().chain_update(before.0).chain_update(record).finalize().into())
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
