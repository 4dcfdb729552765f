//! Waiting for something that nobody announces.

use std::time::{Duration, Instant};

use tokio::time::MissedTickBehavior;

/// How often to look.
const INTERVAL: Duration = Duration::from_millis(10);

/// Looks again and again until there is something to see, and returns that.
///
/// For what happens in another process or behind the API. What a stream tells is awaited on the stream. The deadline
/// decides only how long a broken test takes to fail: choose it long.
///
/// # Panics
/// When there is nothing to see within `deadline`.
pub async fn eventually<T>(what: &str, deadline: Duration, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    let mut looks = tokio::time::interval(INTERVAL);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        if let Some(seen) = look().await {
            return seen;
        }
        assert!(begin.elapsed() < deadline, "within {deadline:?} it did not come true that {what}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn looks_until_there_is_something() {
        let mut looks = 0;
        let seen = eventually("the third look sees it", Duration::from_secs(10), async || {
            looks += 1;
            (looks == 3).then_some("it")
        });
        assert_eq!(seen.await, "it");
    }

    #[tokio::test]
    #[should_panic(expected = "it did not come true that pigs fly")]
    async fn gives_up_at_the_deadline() {
        eventually("pigs fly", Duration::ZERO, async || None::<()>).await;
    }
}
