use ota_domain::event::seal::extend;
use proptest::prelude::*;

use super::*;

/// Seals the records of each list, one after the other.
fn sealed(lists: &[&[&str]]) -> Vec<EventSeal> {
    let mut head = Head::START.sha256;
    let mut seals = Vec::new();
    for (at, records) in lists.iter().enumerate() {
        let previous = head;
        head = records.iter().fold(head, |before, record| extend(before, record));
        seals.push(EventSeal {
            number: at as i64 + 1,
            records: records.iter().map(|record| (*record).to_owned()).collect(),
            previous_sha256: previous.0.to_vec().into(),
            sha256: head.0.to_vec().into(),
            ..EventSeal::default()
        });
    }
    seals
}

fn log() -> Vec<EventSeal> {
    sealed(&[&["{\"a\":1}", "{\"a\":2}"], &["{\"a\":3}"], &["{\"a\":4}", "{\"a\":5}"]])
}

fn walk(seals: &[EventSeal], remembered: Option<Head>) -> Result<Walked, Broken> {
    let mut chain = Chain::new(remembered);
    seals.iter().try_for_each(|seal| chain.next(seal.clone()))?;
    chain.end()
}

#[test]
fn a_hash_is_over_the_hash_before_and_the_records_own() {
    // From another program: sha256(32 zeros || sha256("x")).
    let expected = "7f85193790de75e46b70bfec3614098f47332a6993dabac6e38ad35f47df5da4";
    assert_eq!(extend(Head::START.sha256, "x").to_string(), expected);
}

#[test]
fn a_whole_log_is_right() {
    let walked = walk(&log(), None).unwrap();
    assert_eq!((walked.head.number, walked.records), (3, 5));
    assert_eq!(walk(&[], None).unwrap().head.number, 0);
}

#[test]
fn a_changed_record_breaks_its_seal() {
    let mut seals = log();
    seals[1].records[0] = "{\"a\":9}".to_owned();
    assert!(matches!(walk(&seals, None), Err(Broken::Seal(BrokenSeal::Records { number: 2, .. }))));
}

#[test]
fn a_missing_seal_and_a_missing_record_are_noticed() {
    let mut seals = log();
    seals.remove(1);
    assert_eq!(walk(&seals, None), Err(Broken::Seal(BrokenSeal::Number { after: 1, found: 3 })));
    seals[1].number = 2;
    assert!(matches!(walk(&seals, None), Err(Broken::Seal(BrokenSeal::Previous { number: 2, .. }))));
    let mut seals = log();
    seals[2].records.pop();
    assert!(matches!(walk(&seals, None), Err(Broken::Seal(BrokenSeal::Records { number: 3, .. }))));
}

#[test]
fn records_that_changed_places_are_noticed() {
    let mut seals = log();
    seals[0].records.swap(0, 1);
    assert!(matches!(walk(&seals, None), Err(Broken::Seal(BrokenSeal::Records { number: 1, .. }))));
}

#[test]
fn a_log_that_was_sealed_anew_is_noticed_by_who_remembers_the_old_one() {
    let before = walk(&log()[..2], None).unwrap().head;
    assert_eq!(walk(&log(), Some(before)).unwrap().head.number, 3);
    let forged = sealed(&[&["{\"a\":1}"], &["{\"a\":3}"], &["{\"a\":4}"]]);
    assert!(matches!(walk(&forged, Some(before)), Err(Broken::Rewritten { number: 2, .. })));
    assert_eq!(walk(&log()[..1], Some(before)), Err(Broken::Shortened { expected: 2, last: 1 }));
}

#[test]
fn a_seal_without_a_whole_hash_is_noticed() {
    let mut seals = log();
    seals[1].sha256.truncate(31);
    assert_eq!(walk(&seals, None), Err(Broken::Form { number: 2 }));
}

#[test]
fn a_seal_is_remembered_from_run_to_run() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log.seal");
    assert_eq!(recall(&path).unwrap(), None);
    let head = walk(&log(), None).unwrap().head;
    remember(&path, head).unwrap();
    assert_eq!(recall(&path).unwrap(), Some(head));
    fs::write(&path, "{}").unwrap();
    assert!(recall(&path).unwrap_err().to_string().contains("log.seal is damaged"));
}

proptest! {
    #[test]
    fn no_flipped_byte_passes(seal in 0usize..3, at in 0usize..100, bit in 0u8..8) {
        let mut seals = log();
        let seal = &mut seals[seal];
        let mut hashes = [seal.previous_sha256.to_vec(), seal.sha256.to_vec()].concat();
        let length = hashes.len();
        hashes[at % length] ^= 1 << bit;
        seal.sha256 = hashes.split_off(32).into();
        seal.previous_sha256 = hashes.into();
        prop_assert!(walk(&seals, None).is_err());
    }
}
