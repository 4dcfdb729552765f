//! Documents of every role, as they come from a server: read or refused. What is read is written back the same.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ota_trust::{
    Repository, Trusted,
    key::{PrivateKey, PublicKey},
    metadata::{Document, Freshness, Root, Snapshot, Targets, Timestamp, add_signature, read, sign},
};

fuzz_target!(|input: &[u8]| {
    let Some((kind, bytes)) = input.split_first() else { return };
    match kind % 8 {
        0 => again::<Root>(bytes),
        1 => again::<Timestamp>(bytes),
        2 => again::<Snapshot>(bytes),
        3 => again::<Targets>(bytes),
        4 => again::<Freshness>(bytes),
        5 => {
            if let Ok(key) = PublicKey::from_spki_der(bytes) {
                assert_eq!(PublicKey::from_spki_der(&key.to_spki_der()), Ok(key));
            }
        }
        6 => {
            let _ = Repository::from_root(bytes);
            let _ = Trusted::from_bytes(bytes);
        }
        _ => {
            if let Some(key) = std::str::from_utf8(bytes).ok().and_then(|text| PrivateKey::from_pem(text).ok()) {
                let signed = br#"{"signatures":[],"signed":{}}"#;
                assert!(add_signature(signed, &key).is_ok());
            }
        }
    }
});

fn again<T: Document + PartialEq + std::fmt::Debug>(bytes: &[u8]) {
    if let Ok(document) = read::<T>(bytes) {
        // What a foreign document says outside ASCII, we would not sign.
        if let Ok(written) = sign(&document, &[]) {
            assert_eq!(read::<T>(&written), Ok(document));
        }
    }
}
