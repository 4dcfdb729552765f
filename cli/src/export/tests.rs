use ota_bundle::Bundle;
use uuid::Uuid;

use super::*;

const DEVICE: DeviceId = DeviceId(Uuid::from_u128(0x01890a5d_ac96_774b_bcce_b302099a8057));

fn digest(bytes: &[u8]) -> Sha256Digest {
    Sha256Digest(Sha256::digest(bytes).into())
}

fn payloads() -> [Vec<u8>; 2] {
    [vec![1; 1_000], (0..100_000_u32).map(|i| (i % 251) as u8).collect()]
}

fn wanted() -> BTreeMap<Sha256Digest, u64> {
    payloads().iter().map(|bytes| (digest(bytes), bytes.len() as u64)).collect()
}

fn manifest() -> Manifest {
    let now = chrono::DateTime::from_timestamp(1_800_000_000, 0).unwrap();
    Manifest { payloads: wanted(), ..Manifest::new(now, now) }
}

/// Does what is left to do, and returns how many bytes of payloads were needed for it.
fn complete(target: &Path) -> u64 {
    let mut part = Part::open(target, &wanted()).unwrap();
    let mut order = payloads().to_vec();
    order.sort_by_key(|bytes| part.begun().is_none_or(|(begun, _)| begun != digest(bytes)));
    let mut fetched = 0;
    for bytes in order {
        if part.has(digest(&bytes)) {
            continue;
        }
        let mut writer = part.payload(digest(&bytes), bytes.len() as u64).unwrap();
        let rest = &bytes[writer.written() as usize..];
        fetched += rest.len() as u64;
        writer.write(rest, &Progress::hidden("")).unwrap();
        writer.finish().unwrap();
    }
    part.check_in(DEVICE, b"answer").unwrap();
    part.finish(&manifest()).unwrap();
    fetched
}

#[test]
fn an_export_cut_off_anywhere_goes_on_with_what_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("lab.bundle");
    let all: u64 = wanted().values().sum();
    assert_eq!(complete(&target), all);
    let whole = fs::read(&target).unwrap();
    let mut cuts: Vec<usize> = (0..whole.len()).step_by(1_777).collect();
    cuts.extend([1, 511, 512, 513, 1_512, 1_535, 1_536, 1_537, 2_048, whole.len() - 1, whole.len()]);
    for cut in cuts {
        fs::write(folder.path().join("lab.bundle.part"), &whole[..cut]).unwrap();
        fs::remove_file(&target).unwrap();
        let fetched = complete(&target);
        assert!(fetched <= all && fetched + cut as u64 >= all, "{cut}: {fetched}");
        assert_eq!(fs::read(&target).unwrap(), whole, "{cut}");
        assert!(!folder.path().join("lab.bundle.part").exists());
    }
    let mut bundle = Bundle::open(File::open(&target).unwrap()).unwrap();
    assert_eq!(bundle.check_in(DEVICE).unwrap().unwrap(), b"answer");
}

#[test]
fn a_damaged_payload_of_an_earlier_run_is_fetched_again() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("lab.bundle");
    complete(&target);
    let whole = fs::read(&target).unwrap();
    let mut damaged = whole.clone();
    damaged[600] ^= 1;
    fs::write(folder.path().join("lab.bundle.part"), &damaged).unwrap();
    complete(&target);
    assert_eq!(fs::read(&target).unwrap(), whole);
}

#[test]
fn other_bytes_than_the_name_says_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut part = Part::open(&folder.path().join("x"), &wanted()).unwrap();
    let mut writer = part.payload(digest(b"abc"), 3).unwrap();
    writer.write(b"abd", &Progress::hidden("")).unwrap();
    assert!(writer.finish().unwrap_err().to_string().contains("other bytes"));
}

#[test]
fn two_exports_do_not_write_the_same_file() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("x");
    let _first = Part::open(&target, &wanted()).unwrap();
    assert!(Part::open(&target, &wanted()).unwrap_err().to_string().contains("another export"));
}

#[test]
fn a_file_that_was_given_up_is_free_although_a_starting_child_still_has_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.part");
    let first = Locked::open(&path).unwrap().unwrap();
    let child = first.0.try_clone().unwrap();
    assert!(Locked::open(&path).unwrap().is_none());
    drop(first);
    assert!(Locked::open(&path).unwrap().is_some());
    drop(child);
}
