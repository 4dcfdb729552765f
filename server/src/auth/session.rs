//! Sessions: what a device shows that proved its key a while ago. Pure: `now` and random numbers come from outside.
//!
//! Nothing is stored. A challenge and a session carry an authentication code by a key that all replicas share, so any
//! replica can check what another gave.

use std::time::Duration;

use aws_lc_rs::hmac::{self, HMAC_SHA256};
use chrono::{DateTime, TimeDelta, Utc};
use ota_domain::{
    DeviceId,
    secret::{SECRET_BYTES, Secret, SessionToken},
};

/// How long a session lasts.
pub const SESSION_LIFETIME: Duration = Duration::from_secs(15 * 60);
/// How long a challenge may be answered.
const CHALLENGE_LIFETIME: TimeDelta = TimeDelta::minutes(2);
/// How far ahead another replica's clock may be.
const CLOCK_SKEW: TimeDelta = TimeDelta::minutes(1);

/// Random bytes in a challenge.
pub const CHALLENGE_RANDOM_BYTES: usize = 16;
/// When it was made, what nobody could foresee, the proof.
const CHALLENGE_BYTES: usize = 8 + CHALLENGE_RANDOM_BYTES + SECRET_BYTES;

/// What the codes are for: none passes for another.
const CHALLENGE: &[u8] = b"ota-challenge-v1\0";
const SESSION: &[u8] = b"ota-session-v1\0";

/// Why a challenge does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChallengeFault {
    /// None of ours.
    Invalid,
    /// Too old.
    Expired,
}

/// The key that all replicas share.
#[derive(Debug)]
pub struct SessionKey(hmac::Key);

impl SessionKey {
    /// From 32 random bytes.
    #[must_use]
    pub fn new(key: &[u8; 32]) -> Self {
        Self(hmac::Key::new(HMAC_SHA256, key))
    }

    /// Makes a challenge from random bytes.
    #[must_use]
    pub fn challenge(&self, random: [u8; CHALLENGE_RANDOM_BYTES], now: DateTime<Utc>) -> Vec<u8> {
        let mut challenge = now.timestamp().to_be_bytes().to_vec();
        challenge.extend(random);
        let proof = self.code(CHALLENGE, &challenge);
        challenge.extend(proof.as_ref());
        challenge
    }

    /// Checks a challenge that comes back.
    ///
    /// # Errors
    /// When it is none of ours or too old.
    pub fn check_challenge(&self, challenge: &[u8], now: DateTime<Utc>) -> Result<(), ChallengeFault> {
        let challenge: &[u8; CHALLENGE_BYTES] = challenge.try_into().map_err(|_| ChallengeFault::Invalid)?;
        let (told, proof) = challenge.split_at(CHALLENGE_BYTES - SECRET_BYTES);
        if !self.is_code(CHALLENGE, told, proof) {
            return Err(ChallengeFault::Invalid);
        }
        let made = told.first_chunk().map(|bytes| i64::from_be_bytes(*bytes)).unwrap_or_default();
        let age = now - DateTime::from_timestamp(made, 0).ok_or(ChallengeFault::Invalid)?;
        if (-CLOCK_SKEW..=CHALLENGE_LIFETIME).contains(&age) { Ok(()) } else { Err(ChallengeFault::Expired) }
    }

    /// Begins a session of a device that has proven its key.
    #[must_use]
    pub fn session(&self, device: DeviceId, now: DateTime<Utc>) -> SessionToken {
        let expires_at = (now + SESSION_LIFETIME).timestamp().unsigned_abs();
        let mut proof = [0; SECRET_BYTES];
        proof.copy_from_slice(self.code(SESSION, &session_bytes(device, expires_at)).as_ref());
        SessionToken { device, expires_at, proof: Secret(proof) }
    }

    /// Whether a session is ours and lasts at `now`.
    #[must_use]
    pub fn accepts(&self, session: &SessionToken, now: DateTime<Utc>) -> bool {
        let bytes = session_bytes(session.device, session.expires_at);
        self.is_code(SESSION, &bytes, &session.proof.0)
            && u64::try_from(now.timestamp()).is_ok_and(|now| now < session.expires_at)
    }

    fn code(&self, purpose: &[u8], bytes: &[u8]) -> hmac::Tag {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(purpose);
        context.update(bytes);
        context.sign()
    }

    fn is_code(&self, purpose: &[u8], bytes: &[u8], code: &[u8]) -> bool {
        hmac::verify(&self.0, &[purpose, bytes].concat(), code).is_ok()
    }
}

fn session_bytes(device: DeviceId, expires_at: u64) -> [u8; 24] {
    let mut bytes = [0; 24];
    bytes[..16].copy_from_slice(device.0.as_bytes());
    bytes[16..].copy_from_slice(&expires_at.to_be_bytes());
    bytes
}

/// What a device signs with its key to get a session.
#[must_use]
pub fn signed_bytes(device: DeviceId, challenge: &[u8]) -> Vec<u8> {
    [SESSION, device.0.as_bytes(), challenge].concat()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000 + seconds, 0).unwrap()
    }

    proptest! {
        #[test]
        fn a_session_is_good_for_its_device_and_time_alone(
            key: [u8; 32], id: u128, seconds in -2_000_i64..2_000, bit in 0_usize..448,
        ) {
            let key = SessionKey::new(&key);
            let session = key.session(DeviceId(Uuid::from_u128(id)), at(0));
            prop_assert_eq!(key.accepts(&session, at(seconds)), seconds < 900);
            let mut changed = session.clone();
            match bit {
                0..128 => changed.device = DeviceId(Uuid::from_u128(id ^ (1 << bit))),
                128..192 => changed.expires_at ^= 1 << (bit - 128),
                _ => changed.proof.0[(bit - 192) / 8] ^= 1 << (bit % 8),
            }
            prop_assert!(!key.accepts(&changed, at(0)));
            prop_assert!(!SessionKey::new(&[7; 32]).accepts(&session, at(0)));
        }

        #[test]
        fn a_challenge_is_good_for_two_minutes_as_it_is(
            key: [u8; 32], random: [u8; 16], seconds in -300_i64..300, bit in 0_usize..448,
        ) {
            let key = SessionKey::new(&key);
            let challenge = key.challenge(random, at(0));
            let expected = if (-60..=120).contains(&seconds) { Ok(()) } else { Err(ChallengeFault::Expired) };
            prop_assert_eq!(key.check_challenge(&challenge, at(seconds)), expected);
            let mut changed = challenge;
            changed[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(key.check_challenge(&changed, at(0)), Err(ChallengeFault::Invalid));
            changed.pop();
            prop_assert_eq!(key.check_challenge(&changed, at(0)), Err(ChallengeFault::Invalid));
        }
    }
}
