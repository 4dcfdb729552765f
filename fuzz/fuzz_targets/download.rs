//! A payload on its way: the pieces that a server sends, and what an earlier run left on the disk. Bytes are taken in their
//! place or not at all, and what is taken up again never goes past the payload.

#![no_main]

use std::{fs, sync::LazyLock};

use libfuzzer_sys::fuzz_target;
use ota_agent::client::check_piece;
use ota_agent::download::part::{BLOCK_BYTES, Part};
use ota_proto::device::v1::DownloadResponse;
use prost::Message as _;
use tempfile::TempDir;

static FOLDER: LazyLock<TempDir> = LazyLock::new(|| tempfile::tempdir().expect("there is room"));

fuzz_target!(|input: &[u8]| {
    let [form, high, low, rest @ ..] = input else { return };
    let number = usize::from(u16::from_be_bytes([*high, *low]));
    // Of sizes, those around a block are the interesting ones.
    let size = if form & 2 == 0 { number } else { BLOCK_BYTES - 100 + number };
    if form & 1 == 0 { pieces(rest, size as u64) } else { left_over(rest, size, *form) }
});

/// A stream of messages, each behind its length.
fn pieces(mut stream: &[u8], size: u64) {
    let mut next = 0;
    while let Ok(piece) = DownloadResponse::decode_length_delimited(&mut stream) {
        let Ok(data) = check_piece(&piece, next) else { return };
        assert_eq!(piece.offset, next.cast_signed());
        assert!(!data.is_empty() && data.len() <= BLOCK_BYTES);
        next += data.len() as u64;
        if next > size {
            return;
        }
    }
}

/// A part and its checksums as they are found: any bytes, or those of an honest run that the input then changes.
fn left_over(input: &[u8], size: usize, form: u8) {
    let path = |name: &str| FOLDER.path().join(name);
    let content: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
    let (bytes, checksums) = if form & 4 == 0 {
        let (bytes, checksums) = input.split_at(input.len() / 2);
        (bytes.to_vec(), checksums.to_vec())
    } else {
        let _ = (fs::remove_file(path("part")), fs::remove_file(path("crc")));
        let mut part = Part::open(&path("part"), &path("crc"), size as u64).expect("there is room");
        part.append(&content).expect("there is room");
        drop(part);
        let mut files = [fs::read(path("part")).expect("it is there"), fs::read(path("crc")).expect("it is there")];
        // Each three bytes change one or cut a file there.
        for change in input.chunks_exact(4) {
            let file = &mut files[usize::from(change[0] & 1)];
            let at = usize::from(u16::from_be_bytes([change[1], change[2]])) * usize::from(change[0] >> 2)
                % (file.len() + 1);
            match file.get_mut(at).filter(|_| change[0] & 2 == 0) {
                Some(byte) => *byte ^= change[3],
                None => file.truncate(at),
            }
        }
        files.into()
    };
    fs::write(path("part"), &bytes).expect("there is room");
    fs::write(path("crc"), &checksums).expect("there is room");
    let mut part = Part::open(&path("part"), &path("crc"), size as u64).expect("it can be read");
    let kept = usize::try_from(part.len()).expect("it is in memory");
    assert!(kept <= size && kept <= bytes.len());
    part.append(&content[kept..]).expect("there is room");
    assert!(part.is_complete());
    drop(part);
    let whole = fs::read(path("part")).expect("it is there");
    assert_eq!(whole.len(), size);
    assert_eq!(whole[kept..], content[kept..]);
    assert_eq!(whole[..kept], bytes[..kept]);
}
