//! Moments and spans, as people write and read them.

use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use prost_types::Timestamp;

/// Longest span that a command line may ask for: ten years. Longer ones are slips of the finger.
const MAX_SPAN: Duration = Duration::from_secs(10 * 366 * 24 * 3600);

/// Converts a wire timestamp. `None` for one outside the calendar.
pub fn moment(timestamp: &Timestamp) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp(timestamp.seconds, u32::try_from(timestamp.nanos).ok()?)
}

/// Converts to a wire timestamp.
pub fn timestamp(moment: DateTime<Utc>) -> Timestamp {
    let nanos = i32::try_from(moment.timestamp_subsec_nanos()).unwrap_or(0);
    Timestamp { seconds: moment.timestamp(), nanos }
}

/// Writes how long ago a moment was, in one unit: `5m`. `-` for none.
pub fn age(timestamp: Option<&Timestamp>, now: DateTime<Utc>) -> String {
    match timestamp.and_then(moment) {
        Some(moment) => span((now - moment).num_seconds()),
        None => "-".to_owned(),
    }
}

/// Writes how long it is until a moment: `in 23h`, or how long it has passed: `5m ago`. `-` for none.
pub fn until(timestamp: Option<&Timestamp>, now: DateTime<Utc>) -> String {
    match timestamp.and_then(moment) {
        Some(moment) if moment > now => format!("in {}", nearest_span((moment - now).num_seconds())),
        Some(moment) => format!("{} ago", span((now - moment).num_seconds())),
        None => "-".to_owned(),
    }
}

/// Writes a moment to the second, in UTC. `-` for none.
pub fn exact(timestamp: Option<&Timestamp>) -> String {
    match timestamp.and_then(moment) {
        Some(moment) => moment.to_rfc3339_opts(SecondsFormat::Secs, true),
        None => "-".to_owned(),
    }
}

/// Writes a span in the unit that leaves a handy number. The other machine's clock may be ahead: that is `0s`.
fn span(seconds: i64) -> String {
    let seconds = seconds.max(0);
    let (unit, letter) = unit_of(seconds);
    format!("{}{letter}", seconds / unit)
}

/// Writes a span in the nearest number of units: what was asked to last 24 hours does not show as 23 a moment later.
fn nearest_span(seconds: i64) -> String {
    let (unit, letter) = unit_of(seconds);
    format!("{}{letter}", (seconds + unit / 2) / unit)
}

fn unit_of(seconds: i64) -> (i64, char) {
    const MINUTE: i64 = 60;
    const HOUR: i64 = 60 * MINUTE;
    const DAY: i64 = 24 * HOUR;
    if seconds < 2 * MINUTE {
        (1, 's')
    } else if seconds < 3 * HOUR {
        (MINUTE, 'm')
    } else if seconds < 2 * DAY {
        (HOUR, 'h')
    } else if seconds < 730 * DAY {
        (DAY, 'd')
    } else {
        (365 * DAY, 'y')
    }
}

/// Reads a span such as `90s`, `10m`, `1h 30m` or `7d` from the command line.
pub fn parse_span(text: &str) -> Result<Duration, String> {
    let span = humantime::parse_duration(text.trim())
        .map_err(|_| format!("{text:?} is no span of time; write for example 90s, 10m, 1h30m or 7d"))?;
    if span.is_zero() {
        return Err("must be longer than nothing".to_owned());
    }
    if span > MAX_SPAN {
        return Err("must be at most ten years".to_owned());
    }
    Ok(span)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_written_in_one_unit() {
        let table = [
            (-5, "0s"),
            (0, "0s"),
            (119, "119s"),
            (300, "5m"),
            (3 * 3600 - 1, "179m"),
            (3 * 3600, "3h"),
            (49 * 3600, "2d"),
            (800 * 86400, "2y"),
        ];
        for (seconds, text) in table {
            assert_eq!(span(seconds), text, "{seconds}");
        }
    }

    #[test]
    fn a_moment_ahead_is_told_from_one_passed() {
        let now = DateTime::from_timestamp(1_000_000, 0).unwrap();
        assert_eq!(until(Some(&Timestamp { seconds: 1_000_300, nanos: 0 }), now), "in 5m");
        assert_eq!(until(Some(&Timestamp { seconds: 999_700, nanos: 0 }), now), "5m ago");
        assert_eq!(until(Some(&Timestamp { seconds: 1_000_000 + 86_399, nanos: 0 }), now), "in 24h");
        assert_eq!(until(None, now), "-");
    }

    #[test]
    fn spans_need_a_unit_and_a_limit() {
        assert_eq!(parse_span("10m"), Ok(Duration::from_secs(600)));
        assert_eq!(parse_span("1h 30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(parse_span("7d"), Ok(Duration::from_secs(7 * 86400)));
        for wrong in ["", "10", "m", "-5m", "0s", "5 parsecs", "100y"] {
            assert!(parse_span(wrong).is_err(), "{wrong:?}");
        }
    }
}
