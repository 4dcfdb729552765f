//! Cuts off devices that do not take what they asked for: each holds a send buffer, and perhaps an open file.

use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::sleep;
use tokio_util::sync::{CancellationToken, DropGuard};

/// How much has to be taken, and in which time: 1 KiB/s. A piece is handed to the connection whole, so the time is what
/// the slowest device may take for one.
const LEAST_BYTES: u64 = super::PIECE_BYTES as u64;
const WINDOW: Duration = Duration::from_secs(LEAST_BYTES / 1024);

/// What the connection has taken of a download.
#[derive(Debug)]
pub(super) struct Delivery {
    taken: AtomicU64,
    /// Set while the connection would take more, and the store has not read it yet.
    wanting: AtomicBool,
    _end: DropGuard,
}

impl Delivery {
    /// One that fires `cut` when the connection takes too little of it, for as long as it is held.
    pub(super) fn watched(cut: CancellationToken) -> Arc<Self> {
        Self::paced(cut, LEAST_BYTES, WINDOW)
    }

    fn paced(cut: CancellationToken, least: u64, window: Duration) -> Arc<Self> {
        let end = CancellationToken::new();
        let delivery =
            Arc::new(Self { taken: AtomicU64::new(0), wanting: AtomicBool::new(true), _end: end.clone().drop_guard() });
        tokio::spawn(end.run_until_cancelled_owned(watch(Arc::downgrade(&delivery), cut, least, window)));
        delivery
    }

    /// Notes that the connection took so many bytes.
    pub(super) fn took(&self, bytes: usize) {
        self.taken.fetch_add(bytes as u64, Ordering::Relaxed);
        self.wanting.store(false, Ordering::Relaxed);
    }

    /// Notes that the connection wants more than there is.
    pub(super) fn wants(&self) {
        self.wanting.store(true, Ordering::Relaxed);
    }
}

async fn watch(delivery: Weak<Delivery>, cut: CancellationToken, least: u64, window: Duration) {
    let mut before = 0;
    loop {
        sleep(window).await;
        let Some(delivery) = delivery.upgrade() else { return };
        let taken = delivery.taken.load(Ordering::Relaxed);
        if !delivery.wanting.load(Ordering::Relaxed) && taken - before < least {
            cut.cancel();
            return;
        }
        before = taken;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_millis(20);
    /// How long a broken test takes to fail.
    const PATIENCE: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn who_takes_nothing_is_cut_off() {
        let cut = CancellationToken::new();
        let delivery = Delivery::paced(cut.clone(), 100, WINDOW);
        delivery.took(10_000);
        tokio::time::timeout(PATIENCE, cut.cancelled()).await.unwrap();
    }

    #[tokio::test]
    async fn who_waits_for_the_store_or_has_all_is_not() {
        let (waiting, ended) = (CancellationToken::new(), CancellationToken::new());
        let delivery = Delivery::paced(waiting.clone(), 100, WINDOW);
        delivery.took(1);
        delivery.wants();
        let done = Delivery::paced(ended.clone(), 100, WINDOW);
        done.took(1);
        drop(done);
        let stopped = Delivery::paced(CancellationToken::new(), 100, WINDOW * 10);
        stopped.took(1);
        let after = CancellationToken::new();
        watch(Arc::downgrade(&stopped), after.clone(), 100, WINDOW * 5).await;
        assert!(after.is_cancelled() && !waiting.is_cancelled() && !ended.is_cancelled());
    }
}
