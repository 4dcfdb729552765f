//! What this replica keeps in memory of the fleet, so that a check-in with nothing new costs no query.
//!
//! [`records`] holds each connected device as the database last had it; a notification from Postgres drops what changed.
//! When one is lost, [`lookout`] finds devices that were taken out, at once, and [`sweep`] the rest. [`doorbell`] wakes devices that hold a stream, [`presence`]
//! writes signs of life in batches. Nothing here is the truth: a replica that loses it all reads it again.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use ota_domain::DeviceId;
use sqlx::PgPool;
use tokio::{
    sync::{Notify, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use crate::{
    app::{Error, Reason, Result},
    db::trust_metadata::Versions,
};

mod doorbell;
mod listener;
mod lookout;
mod presence;
mod records;
mod sweep;

pub use doorbell::{Ring, Watcher};
pub use records::Record;

use doorbell::Doorbell;
use presence::Presence;
use records::Records;

/// The fleet as this replica knows it.
#[derive(Debug)]
pub struct Fleet {
    pool: PgPool,
    records: Records,
    doorbell: Doorbell,
    presence: Presence,
    events: watch::Sender<u64>,
    trust_changes: AtomicU64,
    trust_versions: Mutex<Versions>,
    stopping: CancellationToken,
    /// Rings when a deployment ended, which may have been its rollout's last.
    pub reconcile_rollouts: Notify,
}

impl Fleet {
    /// An empty memory over `pool`. Devices are expected to check in every `check_in_interval`.
    #[must_use]
    pub fn new(pool: PgPool, check_in_interval: Duration, stopping: CancellationToken) -> Self {
        Self {
            records: Records::new(pool.clone()),
            doorbell: Doorbell::default(),
            presence: Presence::new(check_in_interval),
            events: watch::Sender::new(0),
            trust_changes: AtomicU64::new(0),
            trust_versions: Mutex::default(),
            stopping,
            reconcile_rollouts: Notify::new(),
            pool,
        }
    }

    /// Keeps the memory true until the server stops. Then writes what is left to write.
    pub async fn run(self: Arc<Self>) {
        let mut tasks = JoinSet::new();
        tasks.spawn(listener::run(Arc::clone(&self)));
        tasks.spawn(lookout::run(Arc::clone(&self)));
        tasks.spawn(sweep::run(Arc::clone(&self)));
        tasks.spawn(Arc::clone(&self).write_presence());
        while tasks.join_next().await.is_some() {}
    }

    /// The device with this id; `None` when there is none. Asks the database only for a device it does not have.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn device(&self, id: DeviceId) -> Result<Option<Arc<Record>>> {
        self.records.get(id).await
    }

    /// Whether a device that was let in some time ago may go on: a stream may last for hours. While the database does not
    /// answer nobody can have been taken out.
    ///
    /// # Errors
    /// As [`Record::admitted`], and `CREDENTIAL_INVALID` for a device that was deleted.
    pub async fn still_admitted(&self, id: DeviceId) -> Result<()> {
        match self.device(id).await {
            Ok(Some(record)) => record.admitted(),
            Ok(None) => Err(Error::refused(Reason::CredentialInvalid, "the device is not known here any more")),
            Err(_) => Ok(()),
        }
    }

    /// Drops what is known of a device whose state this replica has just changed. Others hear of it by notification.
    pub fn forget(&self, id: DeviceId) {
        self.records.forget(id);
    }

    /// Notes that a device was heard of at `now`.
    pub fn seen(&self, record: &Record, agent_version: &str, now: chrono::DateTime<chrono::Utc>) {
        self.presence.note(record, agent_version, now);
    }

    /// Takes the device's place at the doorbell; whoever had it is told to go.
    pub fn watch(&self, id: DeviceId) -> Watcher {
        self.doorbell.watch(id)
    }

    /// Rings for one device.
    pub fn ring(&self, id: DeviceId) {
        self.doorbell.ring(&[id]);
    }

    /// Number of devices that hold a doorbell stream here.
    #[must_use]
    pub fn watcher_count(&self) -> usize {
        self.doorbell.len()
    }

    /// A counter that changes whenever events were recorded on any replica.
    pub fn events(&self) -> watch::Receiver<u64> {
        self.events.subscribe()
    }

    /// A counter that rises whenever signed metadata may have changed on any replica: what was remembered at a lower count
    /// may be outdated.
    pub fn trust_changes(&self) -> u64 {
        self.trust_changes.load(Ordering::Acquire)
    }

    /// The newest signed metadata that there was at the last look: what is older is outdated, whatever was told.
    pub fn trust_versions(&self) -> Versions {
        *self.trust_versions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_trust_versions(&self, versions: Versions) {
        *self.trust_versions.lock().unwrap_or_else(PoisonError::into_inner) = versions;
    }

    /// Notes that signed metadata may have changed.
    fn trust_changed(&self) {
        self.trust_changes.fetch_add(1, Ordering::AcqRel);
    }

    /// Fires when the server begins to stop: streams end then.
    #[must_use]
    pub fn stopping(&self) -> CancellationToken {
        self.stopping.clone()
    }

    /// Drops these devices' records and rings for them.
    fn changed(&self, ids: &[DeviceId]) {
        for id in ids {
            self.records.forget(*id);
        }
        self.doorbell.ring(ids);
    }

    /// Drops every record and rings for everybody.
    fn all_changed(&self) {
        self.trust_changed();
        self.records.forget_all();
        self.doorbell.ring_all();
        self.events.send_modify(|count| *count += 1);
    }

    async fn write_presence(self: Arc<Self>) {
        presence::run(&self.presence, &self.pool, &self.stopping).await;
    }
}
