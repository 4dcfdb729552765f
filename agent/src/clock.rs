//! What time it is, and the time it cannot be before.

use std::fmt;
use std::sync::Arc;

use chrono::{DateTime, Utc};

/// When this program was built, in seconds since 1970: a device without a clock of its own is no younger than that.
const BUILT_AT: &str = env!("OTA_BUILT_AT");

/// Tells the time. Cheap to clone.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> DateTime<Utc> + Send + Sync>);

impl Clock {
    /// The machine's clock.
    pub fn system() -> Self {
        Self::new(Utc::now)
    }

    /// A clock that somebody else drives.
    pub fn new(now: impl Fn() -> DateTime<Utc> + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    /// Returns the time. Many devices boot in 1970, and none was there before its program.
    pub fn now(&self) -> DateTime<Utc> {
        (self.0)().max(built_at())
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Clock({})", self.now())
    }
}

fn built_at() -> DateTime<Utc> {
    BUILT_AT.parse().ok().and_then(|seconds| DateTime::from_timestamp(seconds, 0)).unwrap_or(DateTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_boots_in_1970_lives_when_its_program_was_built() {
        let clock = Clock::new(|| DateTime::UNIX_EPOCH);
        assert_eq!(clock.now(), built_at());
        assert!(built_at() > "2026-01-01T00:00:00Z".parse::<DateTime<Utc>>().unwrap());
        assert!(Clock::system().now() >= built_at());
    }
}
