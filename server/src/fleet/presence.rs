//! Signs of life, written in batches once a second. Lost with the replica: the next check-in tells again.

use std::{
    mem,
    sync::{Mutex, PoisonError, atomic::Ordering},
    time::Duration,
};

use chrono::{DateTime, Utc};
use sqlx::PgPool;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::Record;
use crate::db::presence::{self, Seen};

const WRITE_INTERVAL: Duration = Duration::from_secs(1);
/// Rows in one statement.
const BATCH: usize = 1_000;

#[derive(Debug)]
pub(super) struct Presence {
    /// A device heard of again within this many milliseconds is not written again.
    granularity_ms: i64,
    seen: Mutex<Vec<Seen>>,
}

impl Presence {
    /// A quarter of the check-in interval is as exact as telling online from offline needs.
    pub(super) fn new(check_in_interval: Duration) -> Self {
        let granularity_ms = i64::try_from(check_in_interval.as_millis() / 4).unwrap_or(i64::MAX);
        Self { granularity_ms, seen: Mutex::default() }
    }

    /// Notes the device once in each span: so the list is bounded by the fleet, whatever the rate of calls.
    pub(super) fn note(&self, record: &Record, agent_version: &str, now: DateTime<Utc>) {
        let now_ms = now.timestamp_millis();
        let noted_ms = record.noted_at.load(Ordering::Relaxed);
        let fresh = now_ms.saturating_sub(noted_ms) < self.granularity_ms;
        if fresh || record.noted_at.compare_exchange(noted_ms, now_ms, Ordering::Relaxed, Ordering::Relaxed).is_err() {
            return;
        }
        let seen = Seen { device: record.id, at: now, agent_version: agent_version.to_owned() };
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).push(seen);
    }

    fn take(&self) -> Vec<Seen> {
        mem::take(&mut *self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Writes until the server stops, and then once more.
pub(super) async fn run(presence: &Presence, pool: &PgPool, stopping: &CancellationToken) {
    let mut ticks = tokio::time::interval(WRITE_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let last = tokio::select! {
            () = stopping.cancelled() => true,
            _ = ticks.tick() => false,
        };
        let seen = presence.take();
        if !seen.is_empty()
            && let Err(error) = write(pool, &seen).await
        {
            // Not kept for later: the devices tell again, and memory stays bounded while the database is away.
            tracing::warn!(%error, devices = seen.len(), "signs of life could not be written");
        }
        if last {
            return;
        }
    }
}

async fn write(pool: &PgPool, seen: &[Seen]) -> sqlx::Result<()> {
    let mut connection = pool.acquire().await?;
    for batch in seen.chunks(BATCH) {
        presence::write(&mut connection, batch).await?;
    }
    Ok(())
}
