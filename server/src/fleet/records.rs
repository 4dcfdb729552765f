//! Devices as the database last had them.
//!
//! Sharded, because every call of every device passes here. A shard counts how often something was dropped from it: a
//! record whose reading overlapped with a drop may be older than the drop, so it is handed out and not kept.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicI64},
};

use chrono::{DateTime, Utc};
use ota_domain::{
    DeviceId, Sha256Digest, TrustFault,
    device::{Running, State},
};
use sqlx::PgPool;
use tokio::sync::{mpsc, oneshot};
use tokio_util::task::AbortOnDropHandle;

use crate::{
    app::{Dependency, Error, Reason, Result, trust::Remembered},
    db::{
        self,
        desired::{DesiredRow, Work},
    },
};

const SHARDS: usize = 64;
/// Most records in a shard. Some 600 bytes each: 64 × 16,384 of them stay below a gigabyte, and a fleet of a million fits.
const SHARD_CAPACITY: usize = 16_384;
/// Most devices read in one go.
const BATCH: usize = 512;

/// A device as the database last had it.
#[derive(Debug)]
pub struct Record {
    /// Who.
    pub id: DeviceId,
    /// Its admission.
    pub state: State,
    /// SHA-256 of its key's SubjectPublicKeyInfo. `None` for a device that is not known by a key.
    pub key_sha256: Option<Sha256Digest>,
    /// Checksum of the inventory the server has.
    pub inventory: Option<Sha256Digest>,
    /// What it runs, by package.
    pub running: Vec<Running>,
    /// Why it does not believe the server, as it last said.
    pub trust_fault: Option<TrustFault>,
    /// What it should do.
    pub work: Vec<Work>,
    /// What was last signed for it, as long as it should do just that.
    pub signed: Remembered,
    /// When the database says any of this last changed.
    pub(super) changed_at: DateTime<Utc>,
    /// When its presence was last noted, in milliseconds since 1970.
    pub(super) noted_at: AtomicI64,
}

impl Record {
    fn new(row: DesiredRow) -> Self {
        Self {
            id: row.id,
            state: row.state,
            key_sha256: row.key_sha256,
            inventory: row.inventory_sha256.and_then(|bytes| Sha256Digest::try_from(bytes.as_slice()).ok()),
            running: row.running,
            trust_fault: row.trust_fault,
            work: row.work,
            signed: Remembered::default(),
            changed_at: row.changed_at,
            noted_at: AtomicI64::new(i64::MIN),
        }
    }

    /// Whether the device may work.
    ///
    /// # Errors
    /// `DEVICE_PENDING`, `DEVICE_REJECTED` and `DEVICE_DECOMMISSIONED`.
    pub fn admitted(&self) -> Result<()> {
        let (reason, message) = match self.state {
            State::Accepted => return Ok(()),
            State::Pending => (Reason::DevicePending, "the device waits for an operator's approval"),
            State::Rejected => (Reason::DeviceRejected, "an operator rejected the device"),
            State::Decommissioned => (Reason::DeviceDecommissioned, "the device was taken out of the fleet"),
        };
        Err(Error::refused(reason, message))
    }
}

#[derive(Debug, Default)]
struct Shard {
    drops: u64,
    records: HashMap<DeviceId, Arc<Record>>,
}

type Reply = oneshot::Sender<Result<Option<Arc<Record>>>>;

#[derive(Debug)]
pub(super) struct Records {
    hasher: RandomState,
    shards: Arc<[Mutex<Shard>]>,
    wanted: mpsc::Sender<(DeviceId, Reply)>,
    /// Reads for everybody, also while the server drains: it ends with the memory it fills.
    _reader: AbortOnDropHandle<()>,
}

fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    // No code between lock and unlock can leave a shard half changed.
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Records {
    pub(super) fn new(pool: PgPool) -> Self {
        let shards: Arc<[_]> = (0..SHARDS).map(|_| Mutex::default()).collect();
        let hasher = RandomState::new();
        let (wanted, requests) = mpsc::channel(BATCH * 8);
        let reader = Reader { pool, hasher: hasher.clone(), shards: Arc::clone(&shards) };
        let reader = AbortOnDropHandle::new(tokio::spawn(reader.run(requests)));
        Self { hasher, shards, wanted, _reader: reader }
    }

    pub(super) async fn get(&self, id: DeviceId) -> Result<Option<Arc<Record>>> {
        if let Some(record) = lock(&self.shards[index(&self.hasher, id)]).records.get(&id) {
            return Ok(Some(Arc::clone(record)));
        }
        let (reply, answer) = oneshot::channel();
        let closed = || Error::internal("the reader of devices is gone");
        self.wanted.send((id, reply)).await.map_err(|_| closed())?;
        answer.await.map_err(|_| closed())?
    }

    /// The record if it is here.
    pub(super) fn peek(&self, id: DeviceId) -> Option<Arc<Record>> {
        lock(&self.shards[index(&self.hasher, id)]).records.get(&id).cloned()
    }

    pub(super) fn forget(&self, id: DeviceId) {
        let mut shard = lock(&self.shards[index(&self.hasher, id)]);
        shard.drops += 1;
        shard.records.remove(&id);
    }

    pub(super) fn forget_all(&self) {
        for shard in &*self.shards {
            let mut shard = lock(shard);
            shard.drops += 1;
            shard.records.clear();
        }
    }
}

fn index(hasher: &RandomState, id: DeviceId) -> usize {
    (hasher.hash_one(id) % SHARDS as u64) as usize
}

/// Reads devices for whoever waits, all that have come up since the last reading in one go: a thousand devices that were
/// rung at once cost a few queries, not thousands.
struct Reader {
    pool: PgPool,
    hasher: RandomState,
    shards: Arc<[Mutex<Shard>]>,
}

impl Reader {
    async fn run(self, mut requests: mpsc::Receiver<(DeviceId, Reply)>) {
        let mut batch = Vec::with_capacity(BATCH);
        while requests.recv_many(&mut batch, BATCH).await > 0 {
            let mut ids: Vec<_> = batch.iter().map(|(id, _)| *id).collect();
            ids.sort_unstable();
            ids.dedup();
            match self.read(&ids).await {
                Ok(records) => {
                    for (id, reply) in batch.drain(..) {
                        // A caller that has gone away needs no answer.
                        reply.send(Ok(records.get(&id).cloned())).ok();
                    }
                }
                Err(error) => {
                    let error = error.to_string();
                    tracing::warn!(error, "devices could not be read");
                    for (_, reply) in batch.drain(..) {
                        let source = error.clone().into();
                        reply.send(Err(Error::Unavailable { dependency: Dependency::Database, source })).ok();
                    }
                }
            }
        }
    }

    async fn read(&self, ids: &[DeviceId]) -> sqlx::Result<HashMap<DeviceId, Arc<Record>>> {
        let drops: Vec<_> = self.shards.iter().map(|shard| lock(shard).drops).collect();
        let mut connection = self.pool.acquire().await?;
        let rows = db::desired::load(&mut connection, ids).await?;
        let records: HashMap<_, _> = rows.into_iter().map(|row| (row.id, Arc::new(Record::new(row)))).collect();
        for (id, record) in &records {
            let index = index(&self.hasher, *id);
            let mut shard = lock(&self.shards[index]);
            if shard.drops == drops[index] {
                if shard.records.len() >= SHARD_CAPACITY {
                    shard.records.clear();
                }
                shard.records.insert(*id, Arc::clone(record));
            }
        }
        Ok(records)
    }
}
