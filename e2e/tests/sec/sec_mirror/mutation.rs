//! Changes bytes on their way, above TLS and with checksums that fit.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicUsize, Ordering},
};

use futures_util::StreamExt as _;
use ota_e2e::{
    impostor::{Answers, Lies},
    operator::crc32c,
};
use ota_proto::device::v1::DownloadResponse;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

/// A mirror between devices and their server. Counts what it does.
#[derive(Debug, Clone)]
pub(super) struct Mirror(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    downloads: AtomicUsize,
    mutated: AtomicUsize,
    chance: Mutex<Chance>,
}

/// Draws where the next byte is changed.
#[derive(Debug)]
struct Chance {
    rng: StdRng,
    one_in: f64,
    /// Bytes that go by untouched before the next one that does not.
    untouched: u64,
}

impl Chance {
    fn draw(&mut self) {
        // The gap between changes that come with the same chance for each byte.
        let gap = self.rng.random::<f64>().ln() / (1.0 - 1.0 / self.one_in).ln();
        self.untouched = gap as u64;
    }

    /// Changes what is to be changed of these bytes. Whether anything was.
    fn touch(&mut self, bytes: &mut [u8]) -> bool {
        let mut at = 0;
        let mut is_touched = false;
        while let Some(byte) = usize::try_from(self.untouched).ok().and_then(|gap| bytes.get_mut(at + gap)) {
            *byte ^= self.rng.random_range(1..=255_u8);
            at += self.untouched as usize + 1;
            is_touched = true;
            self.draw();
        }
        self.untouched -= (bytes.len() - at) as u64;
        is_touched
    }
}

impl Mirror {
    /// Changes one in so many bytes.
    pub(super) fn new(one_in: f64, seed: u64) -> Self {
        let mut chance = Chance { rng: StdRng::seed_from_u64(seed), one_in, untouched: 0 };
        chance.draw();
        Self(Arc::new(Inner {
            downloads: AtomicUsize::new(0),
            mutated: AtomicUsize::new(0),
            chance: Mutex::new(chance),
        }))
    }

    /// Stands between from here on.
    pub(super) fn install(&self, lies: &Lies) {
        let mirror = self.clone();
        lies.download.tell(move |_, truth| {
            mirror.0.downloads.fetch_add(1, Ordering::Relaxed);
            let mirror = mirror.clone();
            let pieces: Answers<DownloadResponse> = Box::pin(truth?.map(move |piece| Ok(mirror.pass_on(piece?))));
            Ok(pieces)
        });
    }

    fn pass_on(&self, piece: DownloadResponse) -> DownloadResponse {
        let mut data = piece.data.to_vec();
        if !self.0.chance.lock().unwrap_or_else(PoisonError::into_inner).touch(&mut data) {
            return piece;
        }
        self.0.mutated.fetch_add(1, Ordering::Relaxed);
        DownloadResponse { crc32c: crc32c(&data), data: data.into(), ..piece }
    }

    /// Returns how many downloads there were.
    pub(super) fn downloads(&self) -> usize {
        self.0.downloads.load(Ordering::Relaxed)
    }

    /// Returns how many pieces were not passed on as they came.
    pub(super) fn mutated(&self) -> usize {
        self.0.mutated.load(Ordering::Relaxed)
    }
}
