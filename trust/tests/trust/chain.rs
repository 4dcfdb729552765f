//! A repository as anybody's client follows it, by a clock that the tests turn.

use chrono::{DateTime, Utc};
use ota_trust::{
    Fault, TrustError, image,
    verify::{
        Chain,
        chain::{Content, Search},
    },
};

use crate::world::{World, hours, noon};

/// Follows what a repository has published.
fn follow(chain: &mut Chain, world: &World, now: DateTime<Utc>) -> Result<(), TrustError> {
    let document = |role: &str| world.image.bytes(role).unwrap();
    chain.update_timestamp(document("timestamp"), now)?;
    if !chain.has_snapshot(now) {
        chain.update_snapshot(document("snapshot"), now)?;
    }
    if !chain.has_targets(now) {
        chain.update_targets(document("targets"), now)?;
    }
    chain.check(now)
}

fn followed() -> (World, Chain) {
    let world = World::new();
    let mut chain = Chain::from_root(&world.image_roots[0]).unwrap();
    follow(&mut chain, &world, noon()).unwrap();
    (world, chain)
}

#[test]
fn what_is_held_is_wanted_again_when_it_has_expired_and_the_repository_went_on() {
    let (mut world, mut chain) = followed();
    let later = noon() + hours(8 * 24);
    assert!(chain.has_snapshot(noon()) && !chain.has_snapshot(later) && chain.has_targets(later));
    assert_eq!(chain.check(later).unwrap_err().fault, Fault::Freeze);
    // Played again it is as old as before.
    assert_eq!(follow(&mut chain, &world, later).unwrap_err().fault, Fault::Freeze);
    world.image = image::refresh(&world.image, later, world.online()).unwrap();
    follow(&mut chain, &world, later).unwrap();
    assert_eq!((chain.snapshot_version(), chain.listed_version("targets")), (Some(2), Some(1)));
}

#[test]
fn a_clock_that_stands_still_in_1970_believes_what_has_not_expired_then() {
    let (world, _) = followed();
    let mut chain = Chain::from_root(&world.image_roots[0]).unwrap();
    follow(&mut chain, &world, DateTime::UNIX_EPOCH).unwrap();
}

#[test]
fn what_is_stored_is_read_back_whatever_has_expired_and_whichever_step_it_stopped_at() {
    let world = World::new();
    let document = |role: &str| world.image.bytes(role).unwrap();
    let mut chain = Chain::from_root(&world.image_roots[0]).unwrap();
    let again = |chain: &Chain| {
        let read = Chain::from_bytes(&chain.to_bytes()).unwrap();
        assert_eq!(read.to_bytes(), chain.to_bytes());
        assert_eq!(read.snapshot_version(), chain.snapshot_version());
    };
    again(&chain);
    chain.update_timestamp(document("timestamp"), noon()).unwrap();
    again(&chain);
    chain.update_snapshot(document("snapshot"), noon()).unwrap();
    again(&chain);
    chain.update_targets(document("targets"), noon()).unwrap();
    again(&chain);
    // A timestamp names a snapshot that did not come.
    let next = image::refresh(&world.image, noon() + hours(4 * 24), world.online()).unwrap();
    chain.update_timestamp(next.bytes("timestamp").unwrap(), noon()).unwrap();
    again(&chain);
    let mut read = Chain::from_bytes(&chain.to_bytes()).unwrap();
    assert!(!read.has_snapshot(noon()));
    // The one that is held still says what came before.
    assert_eq!(read.update_snapshot(document("snapshot"), noon()).unwrap_err().fault, Fault::MixAndMatch);
    read.update_snapshot(next.bytes("snapshot").unwrap(), noon()).unwrap();
    assert!(read.has_targets(noon()));
}

#[test]
fn a_stored_document_that_is_not_as_it_was_signed_is_an_error() {
    let (_, chain) = followed();
    let stored = String::from_utf8(chain.to_bytes()).unwrap();
    for (from, to) in [
        (r#"\"version\":1"#, r#"\"version\":2"#),
        (r#"\"_type\":\"timestamp\""#, r#"\"_type\":\"timestamq\""#),
        ("2026-11-22", "2027-11-22"),
    ] {
        let damaged = stored.replacen(from, to, 1);
        assert_ne!(damaged, stored, "{from}");
        assert_eq!(Chain::from_bytes(damaged.as_bytes()).unwrap_err().fault, Fault::Store, "{from}");
    }
    Chain::from_bytes(&stored.as_bytes()[..stored.len() / 2]).unwrap_err();
}

#[test]
fn nothing_is_said_of_a_path_by_what_has_expired() {
    let (_, chain) = followed();
    assert_eq!(chain.search("app/1.0.0", noon()), Ok(Search::Absent));
    assert_eq!(chain.search("app/1.0.0", noon() + hours(25)).unwrap_err().fault, Fault::Freeze);
}

#[test]
fn bytes_are_those_that_are_listed_or_refused_at_the_first_too_many() {
    let sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    let file = |hashes: &str| serde_json::from_str(&format!(r#"{{"length":3,"hashes":{hashes}}}"#)).unwrap();
    let listed = file(&format!(r#"{{"sha256":"{sha256}","later":"00"}}"#));
    for (pieces, is_listed) in
        [(["a", "bc"], true), (["abc", ""], true), (["ab", ""], false), (["ab", "d"], false), (["abc", "d"], false)]
    {
        let mut content = Content::expect(&listed).unwrap();
        let taken = pieces.iter().try_for_each(|piece| content.take(piece.as_bytes()));
        assert_eq!(taken.and_then(|()| content.finish()).is_ok(), is_listed, "{pieces:?}");
    }
    for unusable in [r#"{"md5":"00"}"#, "{}", r#"{"sha256":"not hexadecimal"}"#] {
        assert!(Content::expect(&file(unusable)).is_err(), "{unusable}");
    }
}
