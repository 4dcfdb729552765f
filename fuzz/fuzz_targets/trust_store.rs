//! What the agent trusts, as it is found on a disk: believed as a whole, or lost. One half of the inputs are whole frames
//! with whatever in them, as a newer or a broken agent could have written them.

#![no_main]

use std::{fs, sync::LazyLock};

use libfuzzer_sys::fuzz_target;
use ota_agent::trust_store::{TrustStore, peek};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

static DATA: LazyLock<TempDir> = LazyLock::new(|| {
    let data = tempfile::tempdir().expect("there is room");
    fs::create_dir(data.path().join("trust")).expect("there is room");
    data
});

fuzz_target!(|input: &[u8]| {
    let Some((form, bytes)) = input.split_first() else { return };
    let file = if form % 2 == 0 {
        bytes.to_vec()
    } else {
        let length = (bytes.len() as u64).to_be_bytes();
        let mut frame = [b"OTATRST1", &7u64.to_be_bytes()[..], &length, bytes].concat();
        let checksum = Sha256::digest(&frame);
        frame.extend_from_slice(&checksum);
        frame
    };
    let (here, gone) = if form % 4 < 2 { ("a", "b") } else { ("b", "a") };
    let _ = fs::remove_file(DATA.path().join("trust").join(gone));
    fs::write(DATA.path().join("trust").join(here), file).expect("there is room");
    let seen = peek(DATA.path()).map(|trusted| trusted.to_bytes());
    match TrustStore::open(DATA.path()) {
        Ok((mut store, trusted)) => {
            assert_eq!(seen.expect("whoever looks sees it"), trusted.to_bytes());
            // The copy that was gone is made anew, and each is enough.
            fs::remove_file(DATA.path().join("trust").join(here)).expect("it was there");
            assert_eq!(peek(DATA.path()).expect("there is a copy").to_bytes(), trusted.to_bytes());
            store.accept(&trusted).expect("there is room");
        }
        Err(_) => assert!(seen.is_none()),
    }
});
