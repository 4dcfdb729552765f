//! Notices a sender that trickles: alive, never silent, and never done.

use std::time::Duration;

use crate::client::MAX_PIECE_BYTES;

/// What too slow is. An attempt that is ends; the next may find a better way, and goes on where this one was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slow {
    /// Fewer bytes a second than this, which is not 0.
    pub bytes_per_second: u64,
    /// Over as long as this.
    pub window: Duration,
}

impl Default for Slow {
    fn default() -> Self {
        Self { bytes_per_second: 1024, window: Duration::from_secs(60) }
    }
}

impl Slow {
    /// Returns how long one piece may take, of which nothing is seen before it is whole: as long as one of the largest size
    /// takes at the least speed, and no less than a window.
    pub(super) fn patience(self) -> Duration {
        let largest = MAX_PIECE_BYTES as u64 / self.bytes_per_second.max(1);
        self.window.max(Duration::from_secs(largest))
    }
}

/// Counts what a sender brings in the time that it was waited for. Pauses of the receiver's own are not in it.
#[derive(Debug)]
pub(super) struct Pace {
    slow: Slow,
    bytes: u64,
    waited: Duration,
}

impl Pace {
    pub(super) fn new(slow: Slow) -> Self {
        Self { slow, bytes: 0, waited: Duration::ZERO }
    }

    /// Notes what came after how long, and tells whether the sender is too slow.
    pub(super) fn is_too_slow_after(&mut self, bytes: u64, waited: Duration) -> bool {
        self.bytes = self.bytes.saturating_add(bytes);
        self.waited = self.waited.saturating_add(waited);
        if self.waited < self.slow.window {
            return false;
        }
        let least = u128::from(self.slow.bytes_per_second) * self.waited.as_millis() / 1000;
        let is_too_slow = u128::from(self.bytes) < least;
        *self = Self::new(self.slow);
        is_too_slow
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Returns after how many seconds a sender of so many bytes a second is given up, within an hour.
    fn endured(bytes_per_second: u64) -> Option<u32> {
        let mut pace = Pace::new(Slow::default());
        (1..=3600).find(|_| pace.is_too_slow_after(bytes_per_second, SECOND))
    }

    #[test]
    fn a_byte_a_second_is_given_up_after_a_minute() {
        assert_eq!(endured(1), Some(60));
        assert_eq!(endured(1023), Some(60));
        assert_eq!(endured(1024), None);
    }

    #[test]
    fn a_good_start_is_no_credit_for_a_trickle_later() {
        let mut pace = Pace::new(Slow::default());
        assert!(!pace.is_too_slow_after(1 << 30, Slow::default().window));
        assert!((1..60).all(|_| !pace.is_too_slow_after(1, SECOND)));
        assert!(pace.is_too_slow_after(1, SECOND));
    }

    #[test]
    fn one_long_wait_counts_in_full() {
        assert!(Pace::new(Slow::default()).is_too_slow_after(100 * 1024, 200 * SECOND));
    }

    #[test]
    fn a_piece_of_the_largest_size_has_the_time_that_it_needs() {
        assert_eq!(Slow::default().patience(), 256 * SECOND);
        assert_eq!(Slow { bytes_per_second: 1 << 20, window: SECOND }.patience(), SECOND);
    }
}
