//! How long to wait before the next try: exponential, with full jitter, so that a fleet that lost its server at one
//! moment does not come back at one moment.

use std::time::Duration;

use rand::{Rng, RngExt};

/// A growing wait.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    tries: u32,
}

impl Backoff {
    /// Makes a wait whose bound starts at `first`, doubles with each try and stops growing at `longest`.
    pub fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, tries: 0 }
    }

    /// Returns the next wait: anything between nothing and the bound.
    pub fn next(&mut self, rng: &mut impl Rng) -> Duration {
        let bound = self.first.saturating_mul(1_u32.checked_shl(self.tries).unwrap_or(u32::MAX)).min(self.longest);
        self.tries = self.tries.saturating_add(1);
        bound.mul_f64(rng.random_range(0.0..=1.0))
    }

    /// Returns the next wait after an answer that said how long to wait at least. Many devices are told the same at the same
    /// moment: each adds up to half of that, and what it would have waited anyway. What is told counts up to the bound that
    /// does not grow any more.
    pub fn next_after(&mut self, told: Option<Duration>, rng: &mut impl Rng) -> Duration {
        let told = told.unwrap_or_default().min(self.longest);
        told + (told / 2).mul_f64(rng.random_range(0.0..=1.0)) + self.next(rng)
    }

    /// Returns how many waits were handed out since the last success.
    pub fn tries(&self) -> u32 {
        self.tries
    }

    /// Starts anew after a success.
    pub fn reset(&mut self) {
        self.tries = 0;
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    #[test]
    fn waits_stay_within_a_bound_that_doubles_and_then_stays() {
        let (first, longest) = (Duration::from_secs(1), Duration::from_secs(60));
        let mut rng = StdRng::seed_from_u64(1);
        for _ in 0..200 {
            let mut backoff = Backoff::new(first, longest);
            for bound in [1, 2, 4, 8, 16, 32, 60, 60].map(Duration::from_secs) {
                assert!(backoff.next(&mut rng) <= bound);
            }
        }
    }

    #[test]
    fn what_the_server_says_is_waited_out_and_nobody_comes_back_with_the_others() {
        let (first, longest) = (Duration::from_secs(1), Duration::from_secs(60));
        let mut rng = StdRng::seed_from_u64(3);
        let told = Duration::from_secs(12);
        let waits: Vec<_> = (0..100).map(|_| Backoff::new(first, longest).next_after(Some(told), &mut rng)).collect();
        assert!(waits.iter().all(|wait| (told..=told + told / 2 + first).contains(wait)), "{waits:?}");
        let (least, most) = (waits.iter().min().unwrap(), waits.iter().max().unwrap());
        assert!(*most - *least > told / 4, "{least:?} to {most:?}");
        // Nobody keeps a device away for long.
        let wait = Backoff::new(first, longest).next_after(Some(Duration::MAX), &mut rng);
        assert!(wait <= longest + longest / 2 + first, "{wait:?}");
        assert!(Backoff::new(first, longest).next_after(None, &mut rng) <= first);
    }

    #[test]
    fn waits_differ_and_start_anew_after_a_success() {
        let mut rng = StdRng::seed_from_u64(2);
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(3600));
        let waits: Vec<_> = (0..100).map(|_| backoff.next(&mut rng)).collect();
        assert!(waits.windows(2).any(|pair| pair[0] > pair[1]), "jitter reaches down as well");
        assert_eq!(backoff.tries(), 100);
        backoff.reset();
        assert!(backoff.next(&mut rng) <= Duration::from_secs(1));
    }
}
