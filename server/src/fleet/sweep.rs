//! Finds what a lost notification left behind: bounds how long any replica can act on old knowledge.

use std::{sync::Arc, time::Duration};

use chrono::TimeDelta;
use ota_domain::DeviceId;
use tokio::time::MissedTickBehavior;

use super::Fleet;
use crate::db::desired;

/// Time between two sweeps, and so the bound.
const INTERVAL: Duration = Duration::from_secs(30);
/// A change is stamped when it is made and seen when it commits: no transaction of ours runs this long.
const LONGEST_TRANSACTION: TimeDelta = TimeDelta::seconds(60);

/// Sweeps until the server stops.
pub(super) async fn run(fleet: Arc<Fleet>) {
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let stopping = fleet.stopping();
    loop {
        tokio::select! {
            () = stopping.cancelled() => return,
            _ = ticks.tick() => {}
        }
        if let Err(error) = sweep(&fleet).await {
            tracing::warn!(%error, "changed devices could not be read");
        }
    }
}

async fn sweep(fleet: &Fleet) -> sqlx::Result<()> {
    let mut connection = fleet.pool.acquire().await?;
    let now = desired::clock(&mut connection).await?;
    let interval = TimeDelta::from_std(INTERVAL).unwrap_or(TimeDelta::zero());
    let changed = desired::changed_since(&mut connection, now - interval * 2 - LONGEST_TRANSACTION).await?;
    let stale: Vec<DeviceId> = changed
        .into_iter()
        .filter(|(id, changed_at)| fleet.records.peek(*id).is_some_and(|record| record.changed_at != *changed_at))
        .map(|(id, _)| id)
        .collect();
    if !stale.is_empty() {
        tracing::info!(devices = stale.len(), "a notification was missed; reading these devices again");
        fleet.changed(&stale);
    }
    Ok(())
}
