//! A cap on bandwidth: a token bucket that says how long to wait after each piece.

use std::time::Duration;

use tokio::time::Instant;

/// A bucket that fills at a rate and holds one second's worth.
#[derive(Debug)]
pub(super) struct Bucket {
    bytes_per_second: Option<u64>,
    /// When the bytes taken so far are paid for.
    paid_at: Instant,
}

impl Bucket {
    /// Makes a full bucket; without a rate it never makes anyone wait.
    pub(super) fn new(bytes_per_second: Option<u64>, now: Instant) -> Self {
        Self { bytes_per_second, paid_at: now }
    }

    /// Takes `bytes` and returns how long to wait before the next piece.
    pub(super) fn take(&mut self, bytes: u64, now: Instant) -> Duration {
        let Some(rate) = self.bytes_per_second else { return Duration::ZERO };
        // Unused time is kept for one second at most.
        let earliest = now.checked_sub(Duration::from_secs(1)).unwrap_or(now);
        let from = self.paid_at.max(earliest);
        #[expect(clippy::cast_precision_loss, reason = "a wait need not be exact to the nanosecond")]
        let cost = Duration::from_secs_f64(bytes as f64 / rate as f64);
        self.paid_at = from + cost;
        self.paid_at.saturating_duration_since(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_holds_over_time() {
        let start = Instant::now();
        let mut bucket = Bucket::new(Some(1000), start);
        let mut now = start;
        for _ in 0..100 {
            now += bucket.take(250, now);
        }
        let seconds = now.duration_since(start).as_secs_f64();
        assert!((24.0..=25.1).contains(&seconds), "{seconds}");
    }

    #[test]
    fn a_pause_is_not_made_up_for_by_more_than_a_second() {
        let start = Instant::now();
        let mut bucket = Bucket::new(Some(1000), start);
        let later = start + Duration::from_secs(100);
        assert_eq!(bucket.take(1000, later), Duration::ZERO);
        assert_eq!(bucket.take(1000, later), Duration::from_secs(1));
    }

    #[test]
    fn without_a_rate_nobody_waits() {
        let now = Instant::now();
        assert_eq!(Bucket::new(None, now).take(u64::MAX, now), Duration::ZERO);
    }
}
