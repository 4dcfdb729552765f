use std::io::{Cursor, Read};

use chrono::{DateTime, Utc};
use ota_domain::{DeviceId, Sha256Digest};
use proptest::prelude::*;
use uuid::Uuid;

use super::*;

const PAYLOAD: Sha256Digest = Sha256Digest([7; 32]);
const DEVICE: DeviceId = DeviceId(Uuid::from_u128(0x01890a5d_ac96_774b_bcce_b302099a8057));

fn moment(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(seconds, 0).unwrap()
}

fn manifest() -> Manifest {
    let mut manifest = Manifest::new(moment(1_800_000_000), moment(1_800_086_400));
    manifest.devices.insert(DEVICE, DeviceEntry { payloads: vec![PAYLOAD] });
    manifest.payloads.insert(PAYLOAD, 1_000);
    manifest
}

fn bundle() -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    let mut payload = writer.payload(PAYLOAD, 1_000).unwrap();
    payload.write(&[1; 600]).unwrap();
    payload.write(&[2; 400]).unwrap();
    payload.finish().unwrap();
    writer.check_in(DEVICE, b"answer").unwrap();
    writer.finish(&manifest()).unwrap()
}

fn open(bytes: &[u8]) -> Result<Bundle<Cursor<&[u8]>>, ReadError> {
    Bundle::open(Cursor::new(bytes))
}

#[test]
fn what_was_written_is_read_back() {
    let bytes = bundle();
    let mut reader = open(&bytes).unwrap();
    assert_eq!(*reader.manifest(), manifest());
    assert_eq!(reader.check_in(DEVICE).unwrap().unwrap(), b"answer");
    let mut payload = Vec::new();
    let (size, mut bytes) = reader.payload(PAYLOAD).unwrap().unwrap();
    bytes.read_to_end(&mut payload).unwrap();
    assert_eq!(size, 1_000);
    assert_eq!(payload, [vec![1; 600], vec![2; 400]].concat());
    assert_eq!(reader.check_in(DeviceId(Uuid::nil())).unwrap(), None);
    assert!(reader.payload(Sha256Digest([8; 32])).unwrap().is_none());
}

#[test]
fn any_tar_program_can_list_it() {
    let bytes = bundle();
    let mut archive = tar::Archive::new(bytes.as_slice());
    let paths: Vec<_> =
        archive.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().display().to_string()).collect();
    assert_eq!(paths, [Entry::Payload(PAYLOAD).path(), Entry::CheckIn(DEVICE).path(), "bundle.json".to_owned()]);
}

#[test]
fn a_payload_goes_on_where_it_stopped() {
    let whole = bundle();
    let cut = BLOCK_BYTES as usize + 300;
    let mut writer = Writer::new(whole[..cut].to_vec());
    let mut payload = writer.resume_payload(PAYLOAD, 1_000, 300);
    payload.write(&[[1; 300].as_slice(), [2; 400].as_slice()].concat()).unwrap();
    payload.finish().unwrap();
    writer.check_in(DEVICE, b"answer").unwrap();
    assert_eq!(writer.finish(&manifest()).unwrap(), whole);
}

#[test]
fn an_entry_of_another_size_than_announced_is_an_error() {
    let mut writer = Writer::new(Vec::new());
    assert!(matches!(writer.payload(PAYLOAD, 3).unwrap().write(b"four"), Err(WriteError::Size { .. })));
    assert!(matches!(writer.payload(PAYLOAD, 3).unwrap().finish(), Err(WriteError::Size { .. })));
}

#[test]
fn a_bundle_cut_short_anywhere_is_refused() {
    let bytes = bundle();
    // Of the two blocks that end it, the first is enough.
    for length in 0..=bytes.len() - 2 * BLOCK_BYTES as usize {
        let error = open(&bytes[..length]).unwrap_err();
        assert!(matches!(error, ReadError::Truncated), "{length}: {error}");
    }
}

#[test]
fn entries_that_do_not_belong_are_refused() {
    let table: [(&str, tar::EntryType); 6] = [
        ("../etc/passwd", tar::EntryType::Regular),
        ("payloads/short", tar::EntryType::Regular),
        ("devices/01890A5D-AC96-774B-BCCE-B302099A8057/check-in", tar::EntryType::Regular),
        ("devices/x/check-in", tar::EntryType::Regular),
        ("bundle.json", tar::EntryType::Symlink),
        ("bundle.json", tar::EntryType::Directory),
    ];
    for (path, kind) in table {
        let mut header = tar::Header::new_gnu();
        header.as_gnu_mut().unwrap().name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_entry_type(kind);
        header.set_size(0);
        header.set_cksum();
        let bytes = [header.as_bytes().as_slice(), &[0; 1024]].concat();
        assert!(matches!(open(&bytes).unwrap_err(), ReadError::Unexpected { .. }), "{path}");
    }
}

#[test]
fn an_entry_that_is_there_twice_is_refused() {
    let mut writer = Writer::new(Vec::new());
    writer.check_in(DEVICE, b"one").unwrap();
    writer.check_in(DEVICE, b"two").unwrap();
    let bytes = writer.finish(&manifest()).unwrap();
    assert!(matches!(open(&bytes).unwrap_err(), ReadError::Duplicate { .. }));
}

#[test]
fn nothing_larger_than_allowed_is_read_into_memory() {
    let bytes = bundle();
    let opened = |limits| Bundle::open_within(Cursor::new(bytes.as_slice()), limits);
    let limits = Limits { max_manifest_bytes: 10, ..Limits::default() };
    assert!(matches!(opened(limits).unwrap_err(), ReadError::TooLarge { what: "manifest", .. }));
    let limits = Limits { max_entries: 2, ..Limits::default() };
    assert!(matches!(opened(limits).unwrap_err(), ReadError::TooLarge { what: "number of entries", .. }));
    let limits = Limits { max_check_in_bytes: 2, ..Limits::default() };
    let error = opened(limits).unwrap().check_in(DEVICE).unwrap_err();
    assert!(matches!(error, ReadError::TooLarge { what: "check-in", .. }));
}

#[test]
fn another_version_is_named() {
    let mut other = manifest();
    other.version = 2;
    let bytes = Writer::new(Vec::new()).finish(&other).unwrap();
    let text = open(&bytes).unwrap_err().to_string();
    assert_eq!(text, r#"this is "ota-bundle" version 2, and not "ota-bundle" version 1"#);
}

proptest! {
    #[test]
    fn damaged_bundles_are_refused_or_read_and_nothing_else(at in 0usize..3_000, value: u8) {
        let mut bytes = bundle();
        let at = at % bytes.len();
        bytes[at] = value;
        if let Ok(mut reader) = open(&bytes) {
            let _ = reader.check_in(DEVICE);
        }
    }

    #[test]
    fn any_bytes_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..4_096)) {
        prop_assert!(open(&bytes).is_err());
    }
}
