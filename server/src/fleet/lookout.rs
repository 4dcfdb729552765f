//! Bounds how long this replica lets in a device that was taken out elsewhere, or sends signed metadata that was replaced,
//! when the notification of it was lost: one statement every two seconds, whose cost depends on nothing but how many devices
//! were just taken out.

use std::{sync::Arc, time::Duration};

use ota_domain::DeviceId;
use tokio::time::MissedTickBehavior;

use super::Fleet;
use crate::db::revocation::{self, News};

/// Time between two looks.
const INTERVAL: Duration = Duration::from_secs(2);
/// What operators are promised. A change that just missed a look is seen by the next one, and that has to be answered.
const PROMISED: Duration = Duration::from_secs(5);
/// No transaction is as late.
const NOTHING: u64 = i64::MAX as u64;
const _: () = assert!(2 * INTERVAL.as_secs() < PROMISED.as_secs());

/// Looks until the server stops.
pub(super) async fn run(fleet: Arc<Fleet>) {
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let stopping = fleet.stopping();
    let mut horizon = None;
    loop {
        tokio::select! {
            () = stopping.cancelled() => return,
            _ = ticks.tick() => {}
        }
        match look(&fleet, horizon).await {
            Ok(next) => horizon = Some(next),
            Err(error) => {
                tracing::debug!(%error, "cannot look for devices that were taken out");
                // That all connections are in use says nothing of the database. After anything else it may be another one,
                // which went on from a backup: the next look begins anew.
                horizon = horizon.filter(|_| matches!(error, sqlx::Error::PoolTimedOut));
            }
        }
    }
}

/// Looks at what transactions from `since` on have noted, and returns from which on to ask the next time.
async fn look(fleet: &Fleet, since: Option<u64>) -> sqlx::Result<u64> {
    let mut connection = fleet.pool.acquire().await?;
    let News { devices, versions, horizon } = revocation::news(&mut connection, since.unwrap_or(NOTHING)).await?;
    fleet.set_trust_versions(versions);
    if since.is_none() {
        // What was remembered before the first look may be older than what the next ones ask for.
        fleet.all_changed();
    }
    let missed: Vec<DeviceId> = devices.iter().copied().filter(|id| lets_in(fleet, *id)).collect();
    if !missed.is_empty() {
        tracing::info!(devices = missed.len(), "a notification was missed; devices that were taken out are read again");
        fleet.changed(&missed);
    }
    if !devices.is_empty() {
        revocation::prune(&mut connection).await?;
    }
    Ok(horizon)
}

/// Whether what is remembered of a device lets it in: nothing else is dangerous to believe.
fn lets_in(fleet: &Fleet, id: DeviceId) -> bool {
    fleet.records.peek(id).is_some_and(|record| record.admitted().is_ok())
}
