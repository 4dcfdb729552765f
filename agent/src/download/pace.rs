//! Notices a sender that trickles: alive, never silent, and never done.

use std::time::Duration;

/// Least bytes a second that an attempt has to bring, over a whole window. A slower one ends; the next may find a
/// better way, and goes on where this one was.
const LEAST_BYTES_PER_SECOND: u64 = 1024;

/// How long an attempt may be slow.
const WINDOW: Duration = Duration::from_secs(60);

/// Counts what a sender brings in the time that it was waited for. Pauses of the receiver's own are not in it.
#[derive(Debug, Default)]
pub(super) struct Pace {
    bytes: u64,
    waited: Duration,
}

impl Pace {
    /// Notes what came after how long, and tells whether the sender is too slow.
    pub(super) fn is_too_slow_after(&mut self, bytes: u64, waited: Duration) -> bool {
        self.bytes = self.bytes.saturating_add(bytes);
        self.waited = self.waited.saturating_add(waited);
        if self.waited < WINDOW {
            return false;
        }
        let least = LEAST_BYTES_PER_SECOND.saturating_mul(self.waited.as_secs());
        let is_too_slow = self.bytes < least;
        *self = Self::default();
        is_too_slow
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Returns after how many seconds a sender of so many bytes a second is given up, within an hour.
    fn endured(bytes_per_second: u64) -> Option<u32> {
        let mut pace = Pace::default();
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
        let mut pace = Pace::default();
        assert!(!pace.is_too_slow_after(1 << 30, WINDOW));
        assert!((1..60).all(|_| !pace.is_too_slow_after(1, SECOND)));
        assert!(pace.is_too_slow_after(1, SECOND));
    }

    #[test]
    fn one_long_wait_counts_in_full() {
        assert!(Pace::default().is_too_slow_after(100 * 1024, 200 * SECOND));
    }
}
