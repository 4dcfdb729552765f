//! The agent's walk through an archive: whatever the bytes are, nothing is made outside the folder, nothing but files and
//! folders within, and no more than the limits allow.

#![no_main]

use std::{fs, path::Path};

use libfuzzer_sys::fuzz_target;
use ota_agent::archive::{Limits, unpack};
use rustix::fs::{Mode, OFlags, open};

const LIMITS: Limits = Limits { max_entries: 64, max_unpacked_bytes: 1 << 20 };

fuzz_target!(|archive: &[u8]| {
    let outside = tempfile::tempdir().expect("there is room");
    let inside = outside.path().join("inside");
    fs::create_dir(&inside).expect("there is room");
    let folder = open(&inside, OFlags::DIRECTORY | OFlags::RDONLY, Mode::empty()).expect("it was made");
    let _ = unpack(archive, folder, LIMITS);
    assert_eq!(fs::read_dir(outside.path()).expect("it is there").count(), 1);
    let (mut entries, mut bytes) = (0, 0);
    look(&inside, &mut entries, &mut bytes);
    assert!(entries <= u64::from(LIMITS.max_entries) && bytes <= LIMITS.max_unpacked_bytes);
});

fn look(folder: &Path, entries: &mut u64, bytes: &mut u64) {
    for entry in fs::read_dir(folder).expect("it is there") {
        let path = entry.expect("it is there").path();
        let metadata = fs::symlink_metadata(&path).expect("it is there");
        assert!(metadata.is_file() || metadata.is_dir());
        *entries += 1;
        if metadata.is_dir() {
            look(&path, entries, bytes);
        } else {
            *bytes += metadata.len();
        }
    }
}
