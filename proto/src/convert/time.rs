//! Points in time and spans of it.

use std::time::Duration;

use chrono::{DateTime, Utc};
use ota_domain::Violations;

/// A point in time for the wire.
#[must_use]
pub fn timestamp(time: DateTime<Utc>) -> prost_types::Timestamp {
    // The nanoseconds of a leap second count past 999,999,999 in chrono and do not exist in protobuf.
    let nanos = i32::try_from(time.timestamp_subsec_nanos().min(999_999_999)).unwrap_or(0);
    prost_types::Timestamp { seconds: time.timestamp(), nanos }
}

/// The seconds of the years 1 to 9999: what protobuf allows, and what a column of Postgres holds.
const RANGE: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;

/// A point in time from the wire; `None` when it is out of range.
#[must_use]
pub fn from_timestamp(time: &prost_types::Timestamp) -> Option<DateTime<Utc>> {
    let nanos = u32::try_from(time.nanos).ok().filter(|&nanos| nanos < 1_000_000_000)?;
    DateTime::from_timestamp(time.seconds, nanos).filter(|_| RANGE.contains(&time.seconds))
}

/// A point in time that may be absent, from the wire; one that is out of range is noted for `field`.
pub fn optional_time(
    field: &str,
    time: Option<&prost_types::Timestamp>,
    violations: &mut Violations,
) -> Option<DateTime<Utc>> {
    let read = from_timestamp(time?);
    violations.require(read.is_some(), field, "must be a time between the years 1 and 9999");
    read
}

/// A span for the wire; the longest one when it does not fit.
#[must_use]
pub fn duration(span: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(span.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(span.subsec_nanos()).unwrap_or(0),
    }
}

/// A span from the wire; `None` when it is negative or out of range.
#[must_use]
pub fn from_duration(span: &prost_types::Duration) -> Option<Duration> {
    Some(Duration::new(
        u64::try_from(span.seconds).ok()?,
        u32::try_from(span.nanos).ok().filter(|&n| n < 1_000_000_000)?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_that_no_column_holds_is_none() {
        let read = |seconds, nanos| from_timestamp(&prost_types::Timestamp { seconds, nanos });
        assert_eq!(read(0, 0), Some(DateTime::UNIX_EPOCH));
        assert!(read(*RANGE.start(), 0).is_some() && read(*RANGE.end(), 999_999_999).is_some());
        for (seconds, nanos) in [(RANGE.start() - 1, 0), (RANGE.end() + 1, 0), (0, -1), (0, 1_000_000_000)] {
            assert_eq!(read(seconds, nanos), None, "{seconds} {nanos}");
        }
    }
}
