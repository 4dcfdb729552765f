//! Challenges and sessions, which only the server makes: one is good for its device and its time alone.

#![no_main]

// What is fuzzed stands on nothing of the server's but itself; the server as a whole takes very long to build.
#[expect(dead_code, reason = "a part of the server")]
#[path = "../../server/src/auth/session.rs"]
mod session;

use chrono::{DateTime, TimeDelta, Utc};
use libfuzzer_sys::fuzz_target;
use ota_domain::{DeviceId, secret::BearerToken};
use session::{CHALLENGE_RANDOM_BYTES, SESSION_LIFETIME, SessionKey};
use uuid::Uuid;

fuzz_target!(|input: &[u8]| {
    let key = SessionKey::new(&[7; 32]);
    let [made, later, rest @ ..] = input else { return };
    let made: DateTime<Utc> = DateTime::UNIX_EPOCH + TimeDelta::days(20_000) + TimeDelta::seconds(i64::from(*made));
    let now = made + TimeDelta::seconds(i64::from(*later) * 8 - 100);

    // Nobody guesses one.
    assert!(key.check_challenge(rest, now).is_err());
    if let Some(token) = std::str::from_utf8(rest).ok().and_then(|text| text.parse::<BearerToken>().ok()) {
        match token {
            BearerToken::Session(session) => assert!(!key.accepts(&session, now)),
            BearerToken::Api { .. } => {}
        }
    }

    // One that was made is good as it is, and not otherwise.
    let Some((random, change)) = rest.split_first_chunk::<CHALLENGE_RANDOM_BYTES>() else { return };
    let mut challenge = key.challenge(*random, made);
    let age = now - made;
    let is_good = (TimeDelta::seconds(-60)..=TimeDelta::minutes(2)).contains(&age);
    assert_eq!(key.check_challenge(&challenge, now).is_ok(), is_good);
    let device = DeviceId(Uuid::from_bytes(*random));
    let mut session = key.session(device, made);
    assert_eq!(key.accepts(&session, now), age < TimeDelta::from_std(SESSION_LIFETIME).expect("it is short"));
    for (at, bits) in change.iter().enumerate().filter(|(_, bits)| **bits != 0).take(56) {
        challenge[at % 56] ^= bits;
        session.proof.0[at % 32] ^= bits;
        assert!(key.check_challenge(&challenge, now).is_err());
        assert!(!key.accepts(&session, now));
        challenge[at % 56] ^= bits;
        session.proof.0[at % 32] ^= bits;
    }
});
