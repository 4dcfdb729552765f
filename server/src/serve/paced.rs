//! Breaks off requests whose bytes come too slowly: a sender that stays silent would hold a call for ever.
//!
//! Only time spent waiting for the sender counts.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf as _, Bytes};
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep};

/// A least speed, at which the other end has to send and to take. 1 KiB/s, looked at over a minute, unless a test has no
/// time for that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// So many bytes, or the rest.
    pub bytes: u64,
    /// In this time.
    pub window: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self { bytes: 60 * 1024, window: Duration::from_secs(60) }
    }
}

impl Pace {
    /// In which time so many bytes have to be gone that were handed over at once: in proportion, and no less than the window.
    pub(super) fn time_for(self, bytes: u64) -> Duration {
        let nanos = self.window.as_nanos() * u128::from(bytes) / u128::from(self.bytes.max(1));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)).max(self.window)
    }
}

/// What came in a window, and what is left of it.
#[derive(Debug)]
struct Account {
    pace: Pace,
    came: u64,
    left: Duration,
}

impl Account {
    fn new(pace: Pace) -> Self {
        Self { pace, came: 0, left: pace.window }
    }

    /// Notes bytes that were waited for so long. Enough of them begin another window.
    fn add(&mut self, bytes: u64, waited: Duration) {
        self.came += bytes;
        if self.came >= self.pace.bytes {
            *self = Self::new(self.pace);
        } else {
            self.left = self.left.saturating_sub(waited);
        }
    }
}

/// Too little came.
#[derive(Debug, thiserror::Error)]
#[error("less than {} bytes came in {:?}", .0.bytes, .0.window)]
pub(super) struct TooSlow(Pace);

/// A request's body that is broken off when it comes too slowly.
#[derive(Debug)]
pub(super) struct Paced<B> {
    body: B,
    account: Account,
    /// Set while the sender is waited for: since when, and the end of the window.
    waiting: Option<(Instant, Pin<Box<Sleep>>)>,
}

impl<B> Paced<B> {
    pub(super) fn new(body: B, pace: Pace) -> Self {
        Self { body, account: Account::new(pace), waiting: None }
    }
}

impl<B> Body for Paced<B>
where
    B: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Unpin,
{
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = self.get_mut();
        let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(context) else {
            let left = this.account.left;
            let (_, end) = this.waiting.get_or_insert_with(|| (Instant::now(), Box::pin(sleep(left))));
            ready!(end.as_mut().poll(context));
            return Poll::Ready(Some(Err(TooSlow(this.account.pace).into())));
        };
        let waited = this.waiting.take().map(|(since, _)| since.elapsed()).unwrap_or_default();
        if let Some(Ok(frame)) = &frame {
            this.account.add(frame.data_ref().map_or(0, |data| data.remaining() as u64), waited);
        }
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body as AnyBody;
    use http_body_util::BodyExt as _;

    use super::*;

    /// For how many seconds a sender is listened to that sends so many bytes each second. `None` when for ever.
    fn patience(bytes_per_second: u64) -> Option<u64> {
        let mut account = Account::new(Pace::default());
        (1..=10_000).find(|_| {
            account.add(bytes_per_second, Duration::from_secs(1));
            account.left.is_zero()
        })
    }

    #[test]
    fn who_sends_a_kibibyte_a_second_may_go_on_for_ever() {
        assert_eq!(patience(1024), None);
        assert_eq!(patience(1 << 20), None);
    }

    #[test]
    fn who_sends_less_is_cut_off_after_a_minute() {
        for bytes_per_second in [0, 1, 1000] {
            assert_eq!(patience(bytes_per_second), Some(60), "{bytes_per_second}");
        }
    }

    #[test]
    fn time_in_which_nobody_waits_does_not_count() {
        let mut account = Account::new(Pace::default());
        (0..1000).for_each(|_| account.add(1, Duration::ZERO));
        assert_eq!(account.left, Pace::default().window);
    }

    #[tokio::test]
    async fn a_body_that_does_not_come_ends_with_an_error() {
        let pace = Pace { bytes: 100, window: Duration::from_millis(20) };
        let never = AnyBody::from_stream(tokio_stream::pending::<Result<Bytes, std::convert::Infallible>>());
        let error = Paced::new(never, pace).collect().await.unwrap_err();
        assert!(error.is::<TooSlow>());
        let all = Paced::new(AnyBody::from("all at once"), pace).collect().await.unwrap().to_bytes();
        assert_eq!(all, "all at once");
    }
}
