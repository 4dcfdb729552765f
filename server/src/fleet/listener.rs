//! Hears from Postgres what other replicas and this one changed.

use std::{sync::Arc, time::Duration};

use ota_domain::DeviceId;
use sqlx::postgres::PgListener;

use super::Fleet;
use crate::db::notify;

/// How long to wait before Postgres is asked again after it refused.
const RETRY: Duration = Duration::from_secs(1);

/// Listens until the server stops.
pub(super) async fn run(fleet: Arc<Fleet>) {
    let stopping = fleet.stopping();
    while !stopping.is_cancelled() {
        tokio::select! {
            () = stopping.cancelled() => return,
            result = listen(&fleet) => {
                if let Err(error) = result {
                    tracing::warn!(%error, "notifications from Postgres ended; listening again");
                }
            }
        }
        tokio::select! {
            () = stopping.cancelled() => return,
            () = tokio::time::sleep(RETRY) => {}
        }
    }
}

async fn listen(fleet: &Fleet) -> sqlx::Result<()> {
    let mut listener = PgListener::connect_with(&fleet.pool).await?;
    listener.listen_all([notify::DEVICES, notify::EVENTS, notify::TRUST]).await?;
    // Whatever happened while nobody listened is not told any more.
    fleet.all_changed();
    loop {
        match listener.try_recv().await? {
            Some(notification) if notification.channel() == notify::EVENTS => {
                fleet.events.send_modify(|count| *count += 1);
            }
            Some(notification) if notification.channel() == notify::TRUST => fleet.trust_changed(),
            Some(notification) => match ids(notification.payload()) {
                Some(ids) => fleet.changed(&ids),
                None => fleet.all_changed(),
            },
            // The connection broke and was made again.
            None => fleet.all_changed(),
        }
    }
}

/// The devices a notification names; `None` when it means all, or is not understood.
fn ids(payload: &str) -> Option<Vec<DeviceId>> {
    payload.split(',').map(|id| id.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_understood_means_everyone() {
        let id = "01890a5d-ac96-774b-bcce-b302099a8057";
        assert_eq!(ids(&format!("{id},{id}")).map(|ids| ids.len()), Some(2));
        for payload in ["*", "", "x", &format!("{id},")] {
            assert_eq!(ids(payload), None, "{payload:?}");
        }
    }
}
