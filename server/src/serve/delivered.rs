//! Cuts off connections that do not take what they are answered: each answer holds a buffer, and perhaps an open file.
//!
//! What an answer hands to its connection has to be gone, so far that the connection comes for more, in a time that grows
//! with its size. Only time in which there is something to take counts. Answers that have given little are not watched: most
//! calls, and streams that only ring.

use std::{
    pin::Pin,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf as _, Bytes};
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::paced::Pace;

/// Bytes that an answer may give before it is watched: what every client's first window takes (RFC 9113 §6.9.2).
const UNWATCHED_BYTES: u64 = 65_535;

/// A response's body that ends its connection when it is not taken.
#[derive(Debug)]
pub(super) struct Delivered<B> {
    body: B,
    pace: Pace,
    cut: CancellationToken,
    given: u64,
    delivery: Option<Arc<Delivery>>,
}

impl<B> Delivered<B> {
    /// Fires `cut` when `body` is taken more slowly than `pace` demands.
    pub(super) fn new(body: B, pace: Pace, cut: CancellationToken) -> Self {
        Self { body, pace, cut, given: 0, delivery: None }
    }

    fn gave(&mut self, bytes: u64) {
        self.given += bytes;
        if self.given <= UNWATCHED_BYTES {
            return;
        }
        let delivery = self.delivery.get_or_insert_with(|| Delivery::watched(self.cut.clone(), self.pace.window));
        delivery.gave(self.pace.time_for(bytes));
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Delivered<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.body).poll_frame(context);
        match &polled {
            Poll::Pending => {
                if let Some(delivery) = &this.delivery {
                    delivery.wants();
                }
            }
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(data) = frame.data_ref() {
                    this.gave(data.remaining() as u64);
                }
            }
            Poll::Ready(Some(Err(_)) | None) => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Stands for no time: the connection would take more than there is.
const WANTING: u64 = u64::MAX;

/// Until when the connection has to come for more. The watch ends with it.
#[derive(Debug)]
struct Delivery {
    start: Instant,
    /// In milliseconds after the start.
    due: AtomicU64,
    _end: DropGuard,
}

impl Delivery {
    /// One that fires `cut` when it comes too late, and is looked at again after each `pause` in which it may wait.
    fn watched(cut: CancellationToken, pause: Duration) -> Arc<Self> {
        let end = CancellationToken::new();
        let due = AtomicU64::new(WANTING);
        let delivery = Arc::new(Self { start: Instant::now(), due, _end: end.clone().drop_guard() });
        tokio::spawn(end.run_until_cancelled_owned(watch(Arc::downgrade(&delivery), cut, pause)));
        delivery
    }

    fn gave(&self, time: Duration) {
        let due = u64::try_from((self.start.elapsed() + time).as_millis()).unwrap_or(WANTING);
        self.due.store(due, Ordering::Relaxed);
    }

    fn wants(&self) {
        self.due.store(WANTING, Ordering::Relaxed);
    }

    fn due(&self) -> Option<Instant> {
        let due = self.due.load(Ordering::Relaxed);
        (due != WANTING).then(|| self.start + Duration::from_millis(due))
    }
}

async fn watch(delivery: Weak<Delivery>, cut: CancellationToken, pause: Duration) {
    loop {
        let Some(due) = delivery.upgrade().map(|delivery| delivery.due()) else { return };
        match due {
            None => sleep(pause).await,
            Some(due) if due <= Instant::now() => return cut.cancel(),
            Some(due) => sleep_until(due).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body as AnyBody;
    use http_body_util::BodyExt as _;

    use super::*;

    const PACE: Pace = Pace { bytes: 100_000, window: Duration::from_millis(20) };
    /// How long a broken test takes to fail.
    const PATIENCE: Duration = Duration::from_secs(10);

    fn body(pieces: usize, length: usize) -> AnyBody {
        let piece = Bytes::from(vec![0; length]);
        let pieces: Vec<Result<_, std::convert::Infallible>> = (0..pieces).map(|_| Ok(piece.clone())).collect();
        AnyBody::from_stream(tokio_stream::iter(pieces))
    }

    fn delivered(body: AnyBody) -> (Delivered<AnyBody>, CancellationToken) {
        let cut = CancellationToken::new();
        (Delivered::new(body, PACE, cut.clone()), cut)
    }

    #[tokio::test]
    async fn who_does_not_come_for_more_is_cut_off() {
        let (mut body, cut) = delivered(body(9, 70_000));
        body.frame().await.unwrap().unwrap();
        tokio::time::timeout(PATIENCE, cut.cancelled()).await.unwrap();
    }

    #[tokio::test]
    async fn who_takes_little_or_takes_all_or_waits_is_not() {
        let (mut small, small_cut) = delivered(body(9, 1_000));
        small.frame().await.unwrap().unwrap();
        let (whole, whole_cut) = delivered(body(9, 70_000));
        assert_eq!(whole.collect().await.unwrap().to_bytes().len(), 630_000);
        let piece = Ok::<_, std::convert::Infallible>(Bytes::from(vec![0; 70_000]));
        let unfinished = tokio_stream::StreamExt::chain(tokio_stream::iter([piece]), tokio_stream::pending());
        let (mut waiting, waiting_cut) = delivered(AnyBody::from_stream(unfinished));
        waiting.frame().await.unwrap().unwrap();
        assert!(futures_util::poll!(std::pin::pin!(waiting.frame())).is_pending());
        // Somebody else's time is over meanwhile.
        let (mut slow, slow_cut) = delivered(body(9, 70_000));
        slow.frame().await.unwrap().unwrap();
        tokio::time::timeout(PATIENCE, slow_cut.cancelled()).await.unwrap();
        assert!(!small_cut.is_cancelled() && !whole_cut.is_cancelled() && !waiting_cut.is_cancelled());
    }

    #[test]
    fn a_kibibyte_a_second_is_enough_whatever_the_size() {
        let pace = Pace::default();
        for bytes in [0, 1, 60 * 1024] {
            assert_eq!(pace.time_for(bytes), Duration::from_secs(60), "{bytes}");
        }
        for kibibytes in [61, 256, 5 * 1024, 16 * 1024 * 1024] {
            assert_eq!(pace.time_for(kibibytes * 1024), Duration::from_secs(kibibytes));
        }
    }
}
