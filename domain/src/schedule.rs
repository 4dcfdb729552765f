//! When a device should check in next.

use std::time::Duration;

/// Share of the interval by which a check-in may be late or early.
const JITTER: f64 = 0.1;

/// The time until a device's next check-in: `interval`, spread by a tenth to either side, so that devices that started
/// together drift apart. `chance` is uniform in 0 to 1.
#[must_use]
pub fn next_check_in(interval: Duration, chance: f64) -> Duration {
    interval.mul_f64(1.0 - JITTER + 2.0 * JITTER * chance.clamp(0.0, 1.0))
}

/// How long a device that was rung may wait, so that `rung` devices come at no more than `per_second`.
#[must_use]
pub fn ring_delay(rung: usize, per_second: f64, chance: f64) -> Duration {
    let spread = rung as f64 / per_second;
    // A spread below a second is no crowd: everyone comes at once.
    if spread < 1.0 { Duration::ZERO } else { Duration::from_secs_f64(spread * chance.clamp(0.0, 1.0)) }
}

/// How long after its last sign of life a device still counts as online: two intervals with their jitter.
#[must_use]
pub fn online_within(interval: Duration) -> Duration {
    interval.mul_f64(2.0 * (1.0 + JITTER))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_is_a_tenth_to_either_side() {
        let minute = Duration::from_secs(60);
        assert_eq!(next_check_in(minute, 0.0), Duration::from_secs(54));
        assert_eq!(next_check_in(minute, 1.0), Duration::from_secs(66));
    }

    #[test]
    fn a_crowd_is_spread_and_a_few_come_at_once() {
        assert_eq!(ring_delay(1_000, 5_000.0, 0.9), Duration::ZERO);
        assert_eq!(ring_delay(100_000, 5_000.0, 0.5), Duration::from_secs(10));
    }
}
