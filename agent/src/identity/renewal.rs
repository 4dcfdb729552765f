//! When a certificate is to be renewed.

use chrono::{DateTime, TimeDelta, Utc};
use rand::{Rng, RngExt};

use super::Certificate;

/// Draws how much of a certificate's life a device lets pass before it renews: about half, so that there is as much left
/// for a server that is away; not exactly half, so that a fleet that enrolled in one minute does not renew in one.
pub fn renewal_fraction(rng: &mut impl Rng) -> f64 {
    rng.random_range(0.45..=0.55)
}

/// Returns when a certificate is to be renewed. Its life is counted from when it arrived, as far as that makes sense: it
/// is dated back, and the clock may have been wrong.
pub fn renewal_at(certificate: &Certificate, fraction: f64) -> DateTime<Utc> {
    let Certificate { not_before, not_after, received_at, .. } = certificate;
    let start = if (not_before..=not_after).contains(&received_at) { received_at } else { not_before };
    let life = (*not_after - *start).num_milliseconds();
    // A life of a million years is still exact to a millisecond.
    *start + TimeDelta::milliseconds((life as f64 * fraction) as i64)
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(seconds, 0).unwrap()
    }

    fn certificate(not_before: i64, not_after: i64, received_at: i64) -> Certificate {
        let (not_before, not_after) = (at(not_before), at(not_after));
        Certificate { chain: vec![], not_before, not_after, received_at: at(received_at) }
    }

    #[test]
    fn half_of_the_life_that_is_left_at_arrival_passes() {
        for (not_before, not_after, received_at, due) in [
            (0, 1000, 0, 500),
            // Dated back by an hour and good for ten seconds.
            (10_000, 13_610, 13_600, 13_605),
            // The clock was wrong.
            (10_000, 20_000, 5, 15_000),
            (10_000, 20_000, 1_000_000, 15_000),
        ] {
            assert_eq!(renewal_at(&certificate(not_before, not_after, received_at), 0.5), at(due));
        }
    }

    #[test]
    fn devices_renew_around_half_and_not_at_once() {
        let mut rng = StdRng::seed_from_u64(1);
        let fractions: Vec<_> = (0..100).map(|_| renewal_fraction(&mut rng)).collect();
        assert!(fractions.iter().all(|fraction| (0.45..=0.55).contains(fraction)));
        assert!(fractions.iter().any(|&fraction| fraction < 0.48) && fractions.iter().any(|&fraction| fraction > 0.52));
    }
}
