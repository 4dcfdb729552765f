//! The chain over the record of events, and its verification.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::Sha256Digest;

/// Most events in one seal.
pub const MAX_EVENTS: usize = 1_000;

/// Most bytes of records in one seal that has several, so that it fits into a message.
pub const MAX_BYTES: usize = 1024 * 1024;

/// One link of the chain, with what it covers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seal {
    /// Counts from 1 without gaps.
    pub number: i64,
    /// When it was made.
    pub at: DateTime<Utc>,
    /// The [records](super::Event::record) of the events it covers, in the order of their cursors.
    pub records: Vec<String>,
    /// The hash before the first of them.
    pub previous: Sha256Digest,
    /// The hash after the last of them.
    pub sha256: Sha256Digest,
}

/// Where the chain stands: behind which seal, with which hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The seal's number; 0 before the first.
    pub number: i64,
    /// The hash.
    pub sha256: Sha256Digest,
}

impl Head {
    /// Before the first seal.
    pub const START: Self = Self { number: 0, sha256: Sha256Digest([0; 32]) };
}

/// The record was changed, or is not the one whose seals were seen before.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BrokenSeal {
    /// A seal is missing or came twice.
    #[error("seal {found} follows seal {after}")]
    Number {
        /// The seal before.
        after: i64,
        /// The seal that followed.
        found: i64,
    },
    /// It continues another chain.
    #[error("seal {number} continues another chain: it starts from {found} and not from {expected}")]
    Previous {
        /// Its number.
        number: i64,
        /// The hash after the seal before.
        expected: Sha256Digest,
        /// The hash it starts from.
        found: Sha256Digest,
    },
    /// It covers no event or too many.
    #[error("seal {number} covers {events} events; a seal covers 1 to {MAX_EVENTS}")]
    Count {
        /// Its number.
        number: i64,
        /// How many events it covers.
        events: usize,
    },
    /// What it covers is not what was sealed.
    #[error("seal {number} does not match its {events} events: one of them was changed, removed or added")]
    Records {
        /// Its number.
        number: i64,
        /// How many events it covers.
        events: usize,
    },
}

/// The hash after one more record: SHA-256(hash before ‖ SHA-256(record)).
#[must_use]
pub fn extend(before: Sha256Digest, record: &str) -> Sha256Digest {
    let record = Sha256::digest(record.as_bytes());
    Sha256Digest(Sha256::new().chain_update(before.0).chain_update(record).finalize().into())
}

/// Checks the seal that follows `head`, and says where the chain stands behind it.
///
/// # Errors
/// What is wrong. Nothing that follows can be believed then.
pub fn verify_seal(head: Head, seal: &Seal) -> Result<Head, BrokenSeal> {
    let Seal { number, records, previous, sha256, at: _ } = seal;
    let (number, events) = (*number, records.len());
    if head.number.checked_add(1) != Some(number) {
        return Err(BrokenSeal::Number { after: head.number, found: number });
    }
    if *previous != head.sha256 {
        return Err(BrokenSeal::Previous { number, expected: head.sha256, found: *previous });
    }
    if !(1..=MAX_EVENTS).contains(&events) {
        return Err(BrokenSeal::Count { number, events });
    }
    if records.iter().fold(head.sha256, |hash, record| extend(hash, record)) != *sha256 {
        return Err(BrokenSeal::Records { number, events });
    }
    Ok(Head { number, sha256: *sha256 })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn seal(head: Head, records: Vec<String>) -> Seal {
        let sha256 = records.iter().fold(head.sha256, |hash, record| extend(hash, record));
        Seal { number: head.number + 1, at: DateTime::UNIX_EPOCH, records, previous: head.sha256, sha256 }
    }

    fn chain(batches: Vec<Vec<String>>) -> Vec<Seal> {
        let mut head = Head::START;
        let mut seals = Vec::new();
        for records in batches {
            let seal = seal(head, records);
            head = Head { number: seal.number, sha256: seal.sha256 };
            seals.push(seal);
        }
        seals
    }

    fn verify(seals: &[Seal]) -> Result<Head, BrokenSeal> {
        seals.iter().try_fold(Head::START, verify_seal)
    }

    fn batches() -> impl Strategy<Value = Vec<Vec<String>>> {
        prop::collection::vec(prop::collection::vec("[a-c]{0,2}", 1..4), 1..4)
    }

    proptest! {
        #[test]
        fn a_chain_verifies_and_no_other_one_ends_in_its_hash(one in batches(), other in batches()) {
            let (one, other) = (chain(one), chain(other));
            let (one_end, other_end) = (verify(&one).unwrap(), verify(&other).unwrap());
            let records = |seals: &[Seal]| seals.iter().flat_map(|seal| seal.records.clone()).collect::<Vec<_>>();
            prop_assert_eq!(records(&one) == records(&other), one_end.sha256 == other_end.sha256);
        }

        #[test]
        fn a_changed_removed_added_or_moved_record_is_found(
            batches in batches(), seal: prop::sample::Index, at: prop::sample::Index, how in 0..4_u8,
        ) {
            let good = chain(batches);
            let mut bad = good.clone();
            let records = &mut bad[seal.index(good.len())].records;
            let at = at.index(records.len());
            match how {
                0 => records[at].push('x'),
                1 => { records.remove(at); }
                2 => records.insert(at, "x".to_owned()),
                _ => records.rotate_left(at),
            }
            prop_assert_eq!(verify(&bad).is_ok(), bad == good);
        }
    }

    #[test]
    fn a_missing_repeated_or_foreign_seal_is_found() {
        let text = |texts: &[&str]| texts.iter().map(ToString::to_string).collect::<Vec<_>>();
        let good = chain(vec![text(&["a"]), text(&["b", "c"]), text(&["d"])]);
        assert_eq!(verify(&good).unwrap().number, 3);
        assert_eq!(verify(&good[1..]), Err(BrokenSeal::Number { after: 0, found: 2 }));
        let repeated = [good[0].clone(), good[0].clone()];
        assert_eq!(verify(&repeated), Err(BrokenSeal::Number { after: 1, found: 1 }));
        let foreign = chain(vec![text(&["z"]), text(&["b", "c"])]);
        let BrokenSeal::Previous { number: 2, .. } = verify(&[good[0].clone(), foreign[1].clone()]).unwrap_err() else {
            panic!("another chain was taken for a continuation");
        };
        let empty = Seal { records: vec![], sha256: Head::START.sha256, ..good[0].clone() };
        assert_eq!(verify(&[empty]), Err(BrokenSeal::Count { number: 1, events: 0 }));
    }
}
