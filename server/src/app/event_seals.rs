//! The chain over the record of events: made behind the events' backs, so that recording one waits for nothing.

use chrono::{DateTime, Utc};
use ota_domain::event::{Event, Head, Seal, seal};
use sqlx::PgConnection;

use super::{App, Result, scope};
use crate::{
    auth::Caller,
    db::{
        self,
        event::Query,
        event_seal::Link,
        page::{Page, PageRequest},
    },
};

/// A page ends before its records are more bytes than these: it has to fit into a message of 4 MiB, the default of most
/// clients.
const PAGE_BYTES: usize = 2 * 1024 * 1024;

/// Seals the events that were committed since the last seal, in as many seals as these take. Answers how many were sealed:
/// none when another replica is at it.
///
/// What is sealed are events of transactions older than the oldest one that still runs: none of these can get another one,
/// so the order in which they are chained is final.
///
/// # Errors
/// When the database does not answer.
pub async fn seal(app: &App, now: DateTime<Utc>) -> Result<usize> {
    let mut sealed = 0;
    loop {
        // One transaction a seal: once it has written, it would itself be the oldest that still runs.
        let mut transaction = app.pool.begin().await?;
        let events = seal_next(&mut transaction, now).await?;
        transaction.commit().await?;
        if events == 0 {
            return Ok(sealed);
        }
        sealed += events;
    }
}

async fn seal_next(connection: &mut PgConnection, now: DateTime<Utc>) -> Result<usize> {
    let Some(lock) = db::event_seal::try_lock(connection).await? else { return Ok(0) };
    let (head, after) = db::event_seal::last(connection).await?;
    // The horizon first: what lies before it is complete in every later statement.
    let horizon = db::event::horizon(connection).await?;
    let most = i64::try_from(seal::MAX_EVENTS).unwrap_or(i64::MAX);
    let events = db::event::between(connection, &Query::default(), after, horizon, most).await?;
    let (mut sha256, mut last, mut count, mut bytes) = (head.sha256, after, 0, 0);
    for event in &events {
        let record = event.record();
        bytes += record.len();
        if count > 0 && bytes > seal::MAX_BYTES {
            break;
        }
        sha256 = seal::extend(sha256, &record);
        (last, count) = (event.cursor, count + 1);
    }
    if let Some(events) = i32::try_from(count).ok().filter(|&events| events > 0) {
        let head_after = Head { number: head.number + 1, sha256 };
        let link = Link { head: head_after, after, last, previous: head.sha256, at: now };
        db::event_seal::insert(connection, &lock, &link, events).await?;
    }
    Ok(count)
}

/// Reads a page of seals with what they cover, oldest first. It may be shorter than asked for: records can be long.
///
/// # Errors
/// `OUT_OF_SCOPE` for a caller whose role is limited: the chain cannot be checked without all events.
pub async fn list(app: &App, caller: &Caller, page: &PageRequest<i64>) -> Result<Page<Seal>> {
    scope::unlimited(caller, "the chain over all events")?;
    let mut connection = app.pool.acquire().await?;
    let links = db::event_seal::list(&mut connection, page).await?;
    let mut page = page.cut(links, |link| link.head.number.to_string());
    let (mut rows, mut bytes): (Vec<Seal>, usize) = (Vec::new(), 0);
    for link in page.rows {
        let records = records(&mut connection, &link).await?;
        bytes += records.iter().map(String::len).sum::<usize>();
        if let Some(last) = rows.last()
            && bytes > PAGE_BYTES
        {
            page.next_token = last.number.to_string();
            break;
        }
        let Link { head, previous, at, .. } = link;
        rows.push(Seal { number: head.number, at, records, previous, sha256: head.sha256 });
    }
    Ok(Page { rows, next_token: page.next_token })
}

/// The records of the events that a seal covers, as they are in the database. One more than a seal can have is enough to
/// show that events were added.
async fn records(connection: &mut PgConnection, link: &Link) -> Result<Vec<String>> {
    let most = i64::try_from(seal::MAX_EVENTS + 1).unwrap_or(i64::MAX);
    let events = db::event::through(connection, link.after, link.last, most).await?;
    Ok(events.iter().map(Event::record).collect())
}
