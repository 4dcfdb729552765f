//! The seals over the record of events.

use chrono::{DateTime, Utc};
use ota_domain::{
    Sha256Digest,
    event::{Cursor, Head},
};
use sqlx::PgConnection;

use super::{event::transaction, page::PageRequest};

/// Key of the advisory lock under which seals are made: the letters `ota-seal`.
const LOCK: i64 = i64::from_be_bytes(*b"ota-seal");

/// Proof that no other transaction makes seals, which lasts until this one ends.
#[derive(Debug)]
pub struct Lock(());

/// Takes the lock, unless another transaction has it.
pub async fn try_lock(connection: &mut PgConnection) -> sqlx::Result<Option<Lock>> {
    let taken = sqlx::query_scalar!(r#"SELECT pg_try_advisory_xact_lock($1) AS "taken!""#, LOCK);
    Ok(taken.fetch_one(connection).await?.then_some(Lock(())))
}

/// A seal without what it covers: the events behind `after` up to `last`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// Its number and the hash after it.
    pub head: Head,
    /// The cursor of the last event that the seal before covers; before all events for the first.
    pub after: Cursor,
    /// The cursor of the last event that it covers.
    pub last: Cursor,
    /// The hash before it.
    pub previous: Sha256Digest,
    /// When it was made.
    pub at: DateTime<Utc>,
}

/// Before all events.
pub const START: Cursor = Cursor { transaction: 0, id: 0 };

/// Where the chain ends, and the last event it covers.
pub async fn last(connection: &mut PgConnection) -> sqlx::Result<(Head, Cursor)> {
    let row = sqlx::query!(
        r#"SELECT number, last_transaction::TEXT AS "transaction!", last_id, sha256 AS "sha256: Sha256Digest"
           FROM event_seal
           ORDER BY number DESC
           LIMIT 1"#,
    )
    .fetch_optional(connection)
    .await?;
    let Some(row) = row else { return Ok((Head::START, START)) };
    let last = Cursor { transaction: transaction(&row.transaction)?, id: row.last_id };
    Ok((Head { number: row.number, sha256: row.sha256 }, last))
}

/// Adds a seal that covers `events` events.
pub async fn insert(connection: &mut PgConnection, _lock: &Lock, link: &Link, events: i32) -> sqlx::Result<()> {
    sqlx::query!(
        "INSERT INTO event_seal (number, last_transaction, last_id, event_count, previous_sha256, sha256, at)
         VALUES ($1, $2::TEXT::XID8, $3, $4, $5, $6, $7)",
        link.head.number,
        link.last.transaction.to_string(),
        link.last.id,
        events,
        link.previous as _,
        link.head.sha256 as _,
        link.at,
    )
    .execute(connection)
    .await?;
    Ok(())
}

struct Row {
    number: i64,
    transaction: String,
    last_id: i64,
    previous: Sha256Digest,
    sha256: Sha256Digest,
    at: DateTime<Utc>,
    before_transaction: Option<String>,
    before_id: Option<i64>,
}

impl TryFrom<Row> for Link {
    type Error = sqlx::Error;

    fn try_from(row: Row) -> sqlx::Result<Self> {
        let after = match row.before_transaction.zip(row.before_id) {
            Some((before, id)) => Cursor { transaction: transaction(&before)?, id },
            None => START,
        };
        Ok(Self {
            head: Head { number: row.number, sha256: row.sha256 },
            after,
            last: Cursor { transaction: transaction(&row.transaction)?, id: row.last_id },
            previous: row.previous,
            at: row.at,
        })
    }
}

/// Reads a page of seals, oldest first.
pub async fn list(connection: &mut PgConnection, page: &PageRequest<i64>) -> sqlx::Result<Vec<Link>> {
    let rows = sqlx::query_as!(
        Row,
        r#"SELECT seal.number, seal.last_transaction::TEXT AS "transaction!", seal.last_id,
                  seal.previous_sha256 AS "previous: Sha256Digest", seal.sha256 AS "sha256: Sha256Digest", seal.at,
                  before.last_transaction::TEXT AS "before_transaction?", before.last_id AS "before_id?"
           FROM event_seal AS seal
           LEFT JOIN event_seal AS before ON before.number = seal.number - 1
           WHERE $1::BIGINT IS NULL OR seal.number > $1
           ORDER BY seal.number
           LIMIT $2"#,
        page.after,
        page.limit(),
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter().map(Link::try_from).collect()
}
