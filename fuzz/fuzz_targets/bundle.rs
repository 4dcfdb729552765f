//! Files for devices without a network: read or refused, never past their end. One half of the inputs are archives whose
//! headers are whole, with whatever names, sizes and contents.

#![no_main]

use std::io::{Cursor, Read as _};

use libfuzzer_sys::fuzz_target;
use ota_bundle::{BLOCK_BYTES, Bundle, Entry, Limits};
use ota_domain::{DeviceId, Sha256Digest};
use tar::Header;

const LIMITS: Limits = Limits { max_entries: 16, max_manifest_bytes: 4096, max_check_in_bytes: 2048 };

fuzz_target!(|input: &[u8]| {
    let Some((form, bytes)) = input.split_first() else { return };
    let file = if form % 2 == 0 { bytes.to_vec() } else { archive(bytes) };
    let Ok(mut bundle) = Bundle::open_within(Cursor::new(&file), LIMITS) else { return };
    let manifest = bundle.manifest().clone();
    let listed = serde_json::to_vec(&manifest).expect("it was read");
    assert_eq!(serde_json::from_slice::<ota_bundle::Manifest>(&listed).expect("it was written"), manifest);
    // Whatever names there are in it.
    for at in 0..bytes.len() {
        let device = bytes.get(at..at + 36).and_then(|id| std::str::from_utf8(id).ok()?.parse::<DeviceId>().ok());
        if let Some(check_in) = device.and_then(|device| bundle.check_in(device).ok().flatten()) {
            assert!(check_in.len() as u64 <= LIMITS.max_check_in_bytes);
        }
        let payload =
            bytes.get(at..at + 64).and_then(|hash| std::str::from_utf8(hash).ok()?.parse::<Sha256Digest>().ok());
        if let Some((size, mut content)) = payload.and_then(|payload| bundle.payload(payload).ok().flatten()) {
            let mut read = Vec::new();
            content.read_to_end(&mut read).expect("it is in memory");
            assert_eq!(read.len() as u64, size);
        }
    }
});

/// Entries, each a byte for its kind, a byte for the length of its name, two for its size, and both.
fn archive(mut bytes: &[u8]) -> Vec<u8> {
    let mut file = Vec::new();
    while let [kind, name_bytes, high, low, rest @ ..] = bytes {
        let (name, rest) = rest.split_at(rest.len().min(usize::from(*name_bytes).min(100)));
        let size = usize::from(u16::from_be_bytes([*high, *low]));
        let (content, rest) = rest.split_at(rest.len().min(size));
        bytes = rest;
        let mut header = if kind & 1 == 0 { Header::new_ustar() } else { Header::new_gnu() };
        header.as_mut_bytes()[..name.len()].copy_from_slice(name);
        header.set_mode(0o644);
        header.set_entry_type(tar::EntryType::new(match kind >> 1 & 7 {
            0..4 => b'0',
            other => b'0' + other,
        }));
        // Some lie about their size.
        header.set_size(if kind & 0x80 == 0 { content.len() as u64 } else { u64::MAX >> (kind & 0x3f) });
        header.set_cksum();
        file.extend_from_slice(header.as_bytes());
        file.extend_from_slice(content);
        file.resize(file.len().next_multiple_of(BLOCK_BYTES as usize), 0);
        if let Some(entry) = Entry::from_path(name) {
            assert_eq!(entry.path().as_bytes(), name);
        }
    }
    file.resize(file.len() + 2 * BLOCK_BYTES as usize, 0);
    file
}
