//! How long to wait between attempts, and when to give up. With jitter: pipelines that lost the server at one moment do
//! not come back at one moment.
//!
//! Only for calls that may be sent twice: those that name what they make, or change nothing.

use std::time::Duration;

use rand::{Rng, RngExt as _};
use tonic::Status;
use tonic_types::StatusExt as _;

use crate::{
    error::{Failure, is_transient},
    messages::Messages,
};

/// Wait after the first failure; doubled after each further one.
const FIRST: Duration = Duration::from_secs(1);

/// Longest wait. A server that restarts or moves to another machine is back within it.
const LONGEST: Duration = Duration::from_secs(15);

/// Longest wait that a server may ask for. Who is told more gives up, and the person decides.
const LONGEST_TOLD: Duration = Duration::from_secs(120);

/// Attempts without a new byte before giving up: around a minute in all.
const ATTEMPTS: u32 = 9;

/// Counts attempts that brought nothing.
#[derive(Debug, Default)]
pub struct Backoff {
    fruitless: u32,
    reached: u64,
}

impl Backoff {
    /// Notes how far the server is. Any new byte starts the count again.
    pub fn reached(&mut self, offset: u64) {
        if offset > self.reached {
            self.fruitless = 0;
            self.reached = offset;
        }
    }

    /// Returns how long to wait before the next attempt after one that ended like this, or `None` to give up: at least as
    /// long as the server says, and then between half and all of a bound that grows.
    pub fn wait(&mut self, status: &Status, rng: &mut impl Rng) -> Option<Duration> {
        let told = status.get_details_retry_info().and_then(|info| info.retry_delay).unwrap_or_default();
        if self.fruitless >= ATTEMPTS || told > LONGEST_TOLD {
            return None;
        }
        let bound = FIRST.saturating_mul(1 << self.fruitless).min(LONGEST);
        self.fruitless += 1;
        Some(told + bound.mul_f64(rng.random_range(0.5..=1.0)))
    }
}

/// Calls until there is an answer that another attempt would not change. `what` names the call for the person.
pub async fn patiently<T>(
    messages: Messages,
    what: &str,
    call: impl AsyncFn() -> Result<T, Status>,
) -> Result<T, Status> {
    let mut backoff = Backoff::default();
    loop {
        let status = match call().await {
            Err(status) if is_transient(&status) => status,
            answer => return answer,
        };
        let Some(wait) = backoff.wait(&status, &mut rand::rng()) else { return Err(status) };
        let (why, seconds) = (Failure::from(status), wait.as_secs_f64().ceil());
        messages.say(&format!("{what} was interrupted ({}); trying again in {seconds} s", why.what()));
        tokio::time::sleep(wait).await;
    }
}

#[cfg(test)]
mod tests {
    use rand::{SeedableRng as _, rngs::StdRng};
    use tonic::Code;
    use tonic_types::ErrorDetails;

    use super::*;

    fn away() -> Status {
        Status::unavailable("x")
    }

    /// An answer of a server that takes no more for so long.
    fn limited(told: Duration) -> Status {
        let details = ErrorDetails::with_retry_info(Some(told));
        Status::with_error_details(Code::ResourceExhausted, "too many calls", details)
    }

    #[test]
    fn waits_grow_to_a_limit_and_then_end() {
        let mut rng = StdRng::seed_from_u64(1);
        let mut backoff = Backoff::default();
        for bound in [1, 2, 4, 8, 15, 15, 15, 15, 15].map(Duration::from_secs) {
            let wait = backoff.wait(&away(), &mut rng).unwrap();
            assert!((bound / 2..=bound).contains(&wait), "{wait:?} of {bound:?}");
        }
        assert_eq!(backoff.wait(&away(), &mut rng), None);
    }

    #[test]
    fn only_new_bytes_start_the_count_again() {
        let mut rng = StdRng::seed_from_u64(2);
        let mut backoff = Backoff::default();
        let mut after = |offset| {
            backoff.reached(offset);
            backoff.wait(&away(), &mut rng).unwrap()
        };
        assert!(after(100) <= FIRST);
        assert!(after(100) >= FIRST);
        assert!(after(101) <= FIRST);
    }

    #[test]
    fn what_the_server_says_is_waited_out_and_nobody_comes_back_with_the_others() {
        let mut rng = StdRng::seed_from_u64(3);
        let told = Duration::from_secs(12);
        let waits: Vec<_> = (0..50).map(|_| Backoff::default().wait(&limited(told), &mut rng).unwrap()).collect();
        assert!(waits.iter().all(|wait| (told + FIRST / 2..=told + FIRST).contains(wait)), "{waits:?}");
        assert!(waits.iter().max().unwrap() > waits.iter().min().unwrap());
        assert_eq!(Backoff::default().wait(&limited(LONGEST_TOLD + FIRST), &mut rng), None);
    }
}
