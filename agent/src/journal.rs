//! Keeps the agent's record through a power cut, in two generations of which the newer whole one counts.
//!
//! Each generation is a file of its own, framed by its length and a SHA-256, so that a torn or damaged one is noticed
//! and never half believed. Saving replaces the older of the two. When no generation can be read the record is lost:
//! the caller has to stay with what runs.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::durable;
use crate::frame::{decode, encode, next_generation};
use crate::machine::State;

const MAGIC: &[u8; 8] = b"OTAJRNL1";
const NAMES: [&str; 2] = ["state.0", "state.1"];

/// Highest sequence that a record has. A million reports a second take 146,000 years to it; the protocol's numbers go on
/// for as long again, so that nobody who counts on from a record comes to their end.
const MAX_SEQUENCE: u64 = 1 << 62;

/// What is kept.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The machine's state.
    pub state: State,
    /// Reports up to this sequence may have been sent already.
    pub sequence: u64,
}

/// What was found on disk.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    /// No journal: a device that has never worked.
    Nothing,
    /// The newest record that is whole.
    Record(Box<Record>),
    /// There is a journal, and no generation of it can be read.
    Unreadable,
}

/// Why a record was not saved.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// The record cannot be written as JSON.
    #[error("cannot encode the journal")]
    Encode(#[source] serde_json::Error),
    /// The disk does not take it.
    #[error("cannot write the journal {path}")]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// The journal of one data directory.
#[derive(Debug)]
pub struct Journal {
    folder: PathBuf,
    generation: u64,
}

impl Journal {
    /// Opens the journal of a data directory and reads what it holds.
    pub fn open(folder: &Path) -> io::Result<(Self, Found)> {
        let (generation, found) = read(folder)?;
        Ok((Self { folder: folder.to_owned(), generation }, found))
    }

    /// Saves a record. When this returns without an error, the record survives a power cut.
    pub fn save(&mut self, record: &Record) -> Result<(), SaveError> {
        let payload = serde_json::to_vec(record).map_err(SaveError::Encode)?;
        let failed = |path: &Path, source| SaveError::Write { path: path.to_owned(), source };
        let generation = next_generation(self.generation).map_err(|error| failed(&self.folder, error))?;
        let path = self.folder.join(NAMES[usize::from(generation % 2 == 1)]);
        durable::write(&path, &encode(MAGIC, generation, &payload), 0o644).map_err(|error| failed(&path, error))?;
        self.generation = generation;
        Ok(())
    }
}

/// Reads a journal that another process may be writing to.
pub fn peek(folder: &Path) -> io::Result<Found> {
    read(folder).map(|(_, found)| found)
}

fn read(folder: &Path) -> io::Result<(u64, Found)> {
    let mut generation = 0;
    let mut found = Found::Nothing;
    for name in NAMES {
        let bytes = match fs::read(folder.join(name)) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        let record = decode(MAGIC, &bytes).and_then(|(number, payload)| {
            let record: Box<Record> = serde_json::from_slice(payload).ok()?;
            (record.sequence <= MAX_SEQUENCE).then_some((number, record))
        });
        match record {
            Some((number, record)) if number >= generation => {
                generation = number;
                found = Found::Record(record);
            }
            Some(_) => {}
            None if found == Found::Nothing => found = Found::Unreadable,
            None => {}
        }
    }
    Ok((generation, found))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::frame::MAX_GENERATION;

    fn record(sequence: u64) -> Record {
        Record { sequence, ..Record::default() }
    }

    fn saved(folder: &Path, count: u64) {
        let (mut journal, _) = Journal::open(folder).unwrap();
        for sequence in 1..=count {
            journal.save(&record(sequence)).unwrap();
        }
    }

    fn sequence(found: &Found) -> Option<u64> {
        match found {
            Found::Record(record) => Some(record.sequence),
            Found::Nothing | Found::Unreadable => None,
        }
    }

    #[test]
    fn the_newest_record_is_found() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(peek(folder.path()).unwrap(), Found::Nothing);
        for count in 1..5 {
            saved(folder.path(), count);
            assert_eq!(sequence(&peek(folder.path()).unwrap()), Some(count));
        }
    }

    #[test]
    fn generations_go_on_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        saved(folder.path(), 3);
        let (mut journal, _) = Journal::open(folder.path()).unwrap();
        journal.save(&record(9)).unwrap();
        assert_eq!(sequence(&peek(folder.path()).unwrap()), Some(9));
    }

    #[test]
    fn a_record_of_an_unknown_shape_is_unreadable_and_not_empty() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(NAMES[1]), encode(MAGIC, 1, br#"{"from":"the future"}"#)).unwrap();
        assert_eq!(peek(folder.path()).unwrap(), Found::Unreadable);
    }

    #[test]
    fn numbers_at_their_end_are_no_record_and_none_is_counted_past_it() {
        let folder = tempfile::tempdir().unwrap();
        saved(folder.path(), 1);
        let put = |generation, sequence| {
            let json = serde_json::to_vec(&record(sequence)).unwrap();
            fs::write(folder.path().join(NAMES[0]), encode(MAGIC, generation, &json)).unwrap();
        };
        for (generation, sequence) in [(u64::MAX, 7), (MAX_GENERATION + 1, 7), (9, u64::MAX), (9, MAX_SEQUENCE + 1)] {
            put(generation, sequence);
            assert_eq!(sequence_of(folder.path()), Some(1), "{generation}, {sequence}");
        }
        put(MAX_GENERATION, MAX_SEQUENCE);
        let (mut journal, _) = Journal::open(folder.path()).unwrap();
        journal.save(&record(8)).unwrap_err();
        assert_eq!(sequence_of(folder.path()), Some(MAX_SEQUENCE), "what was there stays");
    }

    fn sequence_of(folder: &Path) -> Option<u64> {
        sequence(&peek(folder).unwrap())
    }

    #[test]
    fn the_first_agents_record_is_understood() {
        let folder = tempfile::tempdir().unwrap();
        let json = br#"{"state":{"phase":{"name":"idle"},"settled":[],"journal_lost":true},"sequence":7}"#;
        fs::write(folder.path().join(NAMES[1]), encode(MAGIC, 1, json)).unwrap();
        let Found::Record(record) = peek(folder.path()).unwrap() else { panic!("should be readable") };
        assert_eq!((record.sequence, record.state.journal_lost), (7, true));
    }

    #[test]
    fn a_leftover_of_an_interrupted_save_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        saved(folder.path(), 2);
        fs::write(folder.path().join("state.1.tmp"), b"half").unwrap();
        saved(folder.path(), 1);
        assert_eq!(sequence(&peek(folder.path()).unwrap()), Some(1), "the third generation");
    }

    fn damage(bytes: &mut Vec<u8>, truncate: Option<prop::sample::Index>, flips: &[(prop::sample::Index, u8)]) -> bool {
        let before = bytes.clone();
        if let Some(at) = truncate {
            bytes.truncate(at.index(bytes.len()));
        }
        for (at, bit) in flips {
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] ^= 1 << (bit % 8);
            }
        }
        *bytes != before
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_damage_to_the_newest_generation_falls_back_to_the_other(
            truncate in any::<Option<prop::sample::Index>>(),
            flips in prop::collection::vec(any::<(prop::sample::Index, u8)>(), 0..4),
        ) {
            let folder = tempfile::tempdir().unwrap();
            saved(folder.path(), 5);
            let newest = folder.path().join(NAMES[1]);
            let mut bytes = fs::read(&newest).unwrap();
            let is_damaged = damage(&mut bytes, truncate, &flips);
            fs::write(&newest, &bytes).unwrap();
            let expected = if is_damaged { 4 } else { 5 };
            prop_assert_eq!(sequence(&peek(folder.path()).unwrap()), Some(expected));
        }

        #[test]
        fn damage_to_both_generations_is_never_taken_for_a_record(
            truncate in any::<prop::sample::Index>(),
            flip in any::<(prop::sample::Index, u8)>(),
        ) {
            let folder = tempfile::tempdir().unwrap();
            saved(folder.path(), 2);
            for (name, truncate, flips) in [(NAMES[0], Some(truncate), vec![]), (NAMES[1], None, vec![flip])] {
                let path = folder.path().join(name);
                let mut bytes = fs::read(&path).unwrap();
                prop_assert!(damage(&mut bytes, truncate, &flips));
                fs::write(&path, &bytes).unwrap();
            }
            prop_assert_eq!(peek(folder.path()).unwrap(), Found::Unreadable);
        }
    }
}
