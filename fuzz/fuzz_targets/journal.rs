//! The agent's journal as it is found on a disk: believed, or said to be unreadable. One half of the inputs are whole frames
//! with whatever in them, as a newer or a broken agent could have written them.

#![no_main]

use std::{fs, sync::LazyLock};

use libfuzzer_sys::fuzz_target;
use ota_agent::journal::{Found, Journal, peek};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

static FOLDER: LazyLock<TempDir> = LazyLock::new(|| tempfile::tempdir().expect("there is room"));

fuzz_target!(|input: &[u8]| {
    let Some((form, bytes)) = input.split_first() else { return };
    let file = if form % 2 == 0 {
        bytes.to_vec()
    } else {
        let length = (bytes.len() as u64).to_be_bytes();
        let mut frame = [b"OTAJRNL1", &7u64.to_be_bytes()[..], &length, bytes].concat();
        let checksum = Sha256::digest(&frame);
        frame.extend_from_slice(&checksum);
        frame
    };
    // The generation decides which of the two an earlier input wrote.
    let _ = fs::remove_file(FOLDER.path().join("state.0"));
    fs::write(FOLDER.path().join("state.1"), file).expect("there is room");
    if let Found::Record(record) = peek(FOLDER.path()).expect("it is there") {
        let (mut journal, found) = Journal::open(FOLDER.path()).expect("it is there");
        assert_eq!(found, Found::Record(record.clone()));
        journal.save(&record).expect("there is room");
        assert_eq!(peek(FOLDER.path()).expect("it is there"), Found::Record(record));
    }
});
