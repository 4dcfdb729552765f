//! How long to wait between attempts, and when to give up.
//!
//! Only for calls that may be sent twice: those that name what they make, or change nothing.

use std::time::Duration;

use tonic::Status;

use crate::{
    error::{Failure, is_transient},
    messages::Messages,
};

/// Wait after the first failure; doubled after each further one.
const FIRST: Duration = Duration::from_secs(1);

/// Longest wait. A server that restarts or moves to another machine is back within it.
const LONGEST: Duration = Duration::from_secs(15);

/// Attempts without a new byte before giving up: around a minute and a half in all.
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

    /// Returns how long to wait before the next attempt, or `None` to give up.
    pub fn wait(&mut self) -> Option<Duration> {
        if self.fruitless >= ATTEMPTS {
            return None;
        }
        let wait = FIRST.saturating_mul(1 << self.fruitless).min(LONGEST);
        self.fruitless += 1;
        Some(wait)
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
        let Some(wait) = backoff.wait() else { return Err(status) };
        let why = Failure::from(status);
        messages.say(&format!("{what} was interrupted ({}); trying again in {} s", why.what(), wait.as_secs()));
        tokio::time::sleep(wait).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(backoff: &mut Backoff) -> Vec<u64> {
        std::iter::from_fn(|| backoff.wait()).map(|wait| wait.as_secs()).collect()
    }

    #[test]
    fn waits_grow_to_a_limit_and_then_end() {
        assert_eq!(seconds(&mut Backoff::default()), [1, 2, 4, 8, 15, 15, 15, 15, 15]);
    }

    #[test]
    fn only_new_bytes_start_the_count_again() {
        let mut backoff = Backoff::default();
        backoff.reached(100);
        assert_eq!(backoff.wait().map(|wait| wait.as_secs()), Some(1));
        backoff.reached(100);
        assert_eq!(backoff.wait().map(|wait| wait.as_secs()), Some(2));
        backoff.reached(101);
        assert_eq!(backoff.wait().map(|wait| wait.as_secs()), Some(1));
    }
}
