//! Wakes devices that hold a stream. Rings may be many, none may be late, and a device has one place.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use ota_domain::{DeviceId, schedule};
use tokio::sync::mpsc;

/// Rung devices that one replica answers in a second without effort.
const CHECK_INS_PER_SECOND: f64 = 5_000.0;

/// The bell rings: check in after this long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ring {
    /// How long to wait first.
    pub delay: Duration,
}

/// A device's place at the doorbell, held until it is dropped or another stream of the device takes it.
#[derive(Debug)]
pub struct Watcher {
    id: DeviceId,
    place: u64,
    rings: mpsc::Receiver<Ring>,
    places: Arc<Mutex<Places>>,
}

#[derive(Debug, Default)]
struct Places {
    last: u64,
    bells: HashMap<DeviceId, (u64, mpsc::Sender<Ring>)>,
}

#[derive(Debug, Default)]
pub(super) struct Doorbell {
    places: Arc<Mutex<Places>>,
}

fn lock(places: &Mutex<Places>) -> MutexGuard<'_, Places> {
    // No code between lock and unlock can leave the table half changed.
    places.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Doorbell {
    pub(super) fn watch(&self, id: DeviceId) -> Watcher {
        // One ring waiting is enough: a second says nothing that the first does not.
        let (bell, rings) = mpsc::channel(1);
        let mut places = lock(&self.places);
        places.last += 1;
        let place = places.last;
        // Whoever had the place before loses its bell, and its wait ends.
        places.bells.insert(id, (place, bell));
        Watcher { id, place, rings, places: Arc::clone(&self.places) }
    }

    pub(super) fn len(&self) -> usize {
        lock(&self.places).bells.len()
    }

    pub(super) fn ring(&self, ids: &[DeviceId]) {
        let places = lock(&self.places);
        for (_, bell) in ids.iter().filter_map(|id| places.bells.get(id)) {
            ring(bell, ids.len());
        }
    }

    pub(super) fn ring_all(&self) {
        let places = lock(&self.places);
        for (_, bell) in places.bells.values() {
            ring(bell, places.bells.len());
        }
    }
}

fn ring(bell: &mpsc::Sender<Ring>, rung: usize) {
    let delay = schedule::ring_delay(rung, CHECK_INS_PER_SECOND, rand::random());
    // A full bell is ringing already; a closed one has nobody behind it.
    bell.try_send(Ring { delay }).ok();
}

impl Watcher {
    /// Waits for the bell; `None` when another stream of the device took the place.
    pub async fn rung(&mut self) -> Option<Ring> {
        self.rings.recv().await
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let mut places = lock(&self.places);
        if places.bells.get(&self.id).is_some_and(|(place, _)| *place == self.place) {
            places.bells.remove(&self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    const DEVICE: DeviceId = DeviceId(Uuid::from_u128(1));

    #[tokio::test]
    async fn a_newer_stream_takes_the_place() {
        let doorbell = Doorbell::default();
        let mut older = doorbell.watch(DEVICE);
        let mut newer = doorbell.watch(DEVICE);
        doorbell.ring(&[DEVICE]);
        assert_eq!(older.rung().await, None);
        assert_eq!(newer.rung().await, Some(Ring { delay: Duration::ZERO }));
        drop(older);
        assert_eq!(doorbell.len(), 1);
        drop(newer);
        assert_eq!(doorbell.len(), 0);
    }

    #[tokio::test]
    async fn rings_that_nobody_took_become_one() {
        let doorbell = Doorbell::default();
        let mut watcher = doorbell.watch(DEVICE);
        for _ in 0..9 {
            doorbell.ring(&[DEVICE]);
        }
        assert!(watcher.rung().await.is_some());
        assert!(watcher.rings.try_recv().is_err());
    }
}
