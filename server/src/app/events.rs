//! The record of what happened, as operators read and watch it.

use std::time::Duration;

use async_stream::try_stream;
use chrono::Utc;
use futures_util::Stream;
use ota_domain::{
    DeviceId, RolloutId,
    event::{Cursor, Event, Kind},
    filter::Filter,
};
use tokio::{sync::watch, time};
use tokio_util::sync::CancellationToken;

use super::{App, Error, Reason, Result, access};
use crate::{
    auth::Caller,
    db::{
        self,
        event::Query,
        page::{Page, PageRequest},
    },
};

/// Events read at once by a watcher that has much to catch up with.
const BATCH: i64 = 500;
/// How long a watcher waits at most before it looks by itself. Notifications can get lost with their connection, and an
/// event may have to wait for an older transaction, whose end nobody announces.
const LOOK_AFTER: Duration = Duration::from_secs(2);
/// Doubled with each look while there are events that wait for an older transaction: soon at first, up to the above.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(5);

/// Lists events, newest first: those of the device and the rollout, when these are named, that pass the filter.
///
/// # Errors
/// `Invalid` for a filter that breaks the grammar or names a field that events do not have.
pub async fn list(
    app: &App,
    caller: &Caller,
    device: Option<DeviceId>,
    rollout: Option<RolloutId>,
    filter: &str,
    page: PageRequest<i64>,
) -> Result<Page<Event>> {
    let filter = Filter::parse(filter).map_err(|error| Error::invalid("filter", error))?;
    let query = Query { device, rollout, scope: caller.scope().clone(), filter };
    let mut events = db::event::list(&mut *app.pool.acquire().await?, &query, &page).await?;
    events.iter_mut().for_each(|event| hide(caller, event));
    Ok(page.cut(events, |event| event.cursor.id.to_string()))
}

/// Streams events in the order of their cursors, each exactly once: those after `cursor`, or else those that are committed
/// from this moment on. Ends with `SHUTTING_DOWN` when `retiring` fires and with `CREDENTIAL_INVALID` when the caller's
/// token does; whoever goes on with the last cursor misses nothing.
///
/// # Errors
/// When the database does not answer.
pub async fn watch(
    app: App,
    caller: Caller,
    device: Option<DeviceId>,
    rollout: Option<RolloutId>,
    cursor: Option<Cursor>,
    retiring: CancellationToken,
) -> Result<impl Stream<Item = Result<Event>> + Send + 'static> {
    // Heard from before the first look, so that nothing comes in between.
    let mut rings = app.fleet.events();
    let mut after = match cursor {
        Some(cursor) => cursor,
        None => start_of(db::event::horizon(&mut *app.pool.acquire().await?).await?),
    };
    let query = Query { device, rollout, scope: caller.scope().clone(), filter: Filter::default() };
    let mut patience = LOOK_AGAIN_AFTER;
    Ok(try_stream! {
        loop {
            rings.mark_unchanged();
            let seen = look(&app, &caller, &query, after).await?;
            after = seen.after;
            for mut event in seen.events {
                hide(&caller, &mut event);
                yield event;
            }
            let pause = match seen.rest {
                Rest::More => continue,
                Rest::Held => {
                    patience = LOOK_AFTER.min(patience * 2);
                    patience
                }
                Rest::Nothing => {
                    patience = LOOK_AGAIN_AFTER;
                    LOOK_AFTER
                }
            };
            if retiring.run_until_cancelled(ring(&mut rings, pause)).await.is_none() {
                Err(Error::refused(Reason::ShuttingDown, "this connection ends; make another"))?;
            }
        }
    })
}

/// Takes out what the caller does not see of an event: the packages outside their scope that a device runs.
fn hide(caller: &Caller, event: &mut Event) {
    if event.kind == Kind::DeviceRunningChanged.as_str() {
        event.details.retain(|package, _| package.parse().is_ok_and(|package| caller.scope().has_package(&package)));
    }
}

/// What one look found.
struct Seen {
    events: Vec<Event>,
    /// Where the next look starts.
    after: Cursor,
    rest: Rest,
}

/// What was left.
enum Rest {
    /// More that can be read at once.
    More,
    /// Events that wait for an older transaction.
    Held,
    /// Nothing.
    Nothing,
}

async fn look(app: &App, caller: &Caller, query: &Query, after: Cursor) -> Result<Seen> {
    let mut connection = app.pool.acquire().await?;
    access::still_valid(&mut connection, caller, Utc::now()).await?;
    // The horizon first: what lies before it is complete in every later look, the next statement's too.
    let horizon = db::event::horizon(&mut connection).await?;
    let events = db::event::between(&mut connection, query, after, horizon, BATCH).await?;
    if i64::try_from(events.len()) == Ok(BATCH) {
        let after = events.last().map_or(after, |last| last.cursor);
        return Ok(Seen { events, after, rest: Rest::More });
    }
    let rest = if db::event::any_from(&mut connection, horizon).await? { Rest::Held } else { Rest::Nothing };
    // Also past events that do not pass the query, or each look would read them again.
    Ok(Seen { events, after: after.max(start_of(horizon)), rest })
}

/// Before all events of this transaction.
fn start_of(transaction: u64) -> Cursor {
    Cursor { transaction, id: 0 }
}

/// Waits for a notification, at most for `pause`.
async fn ring(rings: &mut watch::Receiver<u64>, pause: Duration) {
    // Late or never, and also when the listener is gone: the watcher looks again in any case.
    if let Ok(Err(_)) = time::timeout(pause, rings.changed()).await {
        time::sleep(pause).await;
    }
}
