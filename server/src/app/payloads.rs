//! Payloads, and the bytes that nobody needs any more.
//!
//! A payload is deleted in two steps, because the blob store takes part in no transaction: first the row, with a note
//! that its bytes may go; then, under the lock on its name, the bytes and the note. A crash between them leaves the note,
//! and [`collect_dropped`] finds it. Who uploads the same bytes again puts them into place under that lock too and takes
//! the note off, so that the second step never takes what somebody was just told is stored.

use ota_domain::{Sha256Digest, event::Kind, payload::Stored};
use sqlx::PgConnection;

use super::{App, Error, Reason, Result, scope::out_of_scope};
use crate::{
    auth::Caller,
    db::{self, event::NewEvent},
};

/// Payloads whose bytes are deleted in one round.
const BATCH: i64 = 100;

pub(super) fn not_found(sha256: Sha256Digest) -> Error {
    Error::refused(Reason::PayloadNotFound, format!("there is no payloads/{sha256}; upload it first"))
}

/// Reads a payload's facts.
///
/// # Errors
/// `PAYLOAD_NOT_FOUND`.
pub async fn get(app: &App, caller: &Caller, sha256: Sha256Digest) -> Result<Stored> {
    let mut connection = app.pool.acquire().await?;
    if outside(&mut connection, caller, sha256).await? {
        return Err(not_found(sha256));
    }
    db::payload::find(&mut connection, sha256).await?.ok_or_else(|| not_found(sha256))
}

/// Whether a payload lies outside the caller's scope: releases install it, and none that they see. One that no release
/// installs belongs to whoever knows its hash.
async fn outside(connection: &mut PgConnection, caller: &Caller, sha256: Sha256Digest) -> Result<bool> {
    match &caller.scope().packages {
        Some(prefix) => Ok(db::release::only_outside(connection, sha256, prefix).await?),
        None => Ok(false),
    }
}

/// Deletes a payload that no release needs.
///
/// # Errors
/// `PAYLOAD_NOT_FOUND`; `PAYLOAD_IN_USE`.
pub async fn delete(app: &App, caller: &Caller, sha256: Sha256Digest) -> Result<()> {
    let mut tx = app.pool.begin().await?;
    if outside(&mut tx, caller, sha256).await? {
        return Err(out_of_scope(format_args!("payloads/{sha256}")));
    }
    if !remove(&mut tx, caller, sha256).await? {
        return Err(not_found(sha256));
    }
    db::notify::events(&mut tx).await?;
    tx.commit().await?;
    collect_now(app, sha256).await;
    Ok(())
}

/// Deletes a payload's row in a transaction of the caller's, who notifies and afterwards collects the bytes; `false` when
/// there is none.
pub(super) async fn remove(connection: &mut PgConnection, caller: &Caller, sha256: Sha256Digest) -> Result<bool> {
    match db::payload::delete(&mut *connection, sha256).await {
        Ok(false) => Ok(false),
        Ok(true) => {
            let event = NewEvent::new(Kind::PayloadDeleted, format!("payloads/{sha256}"));
            db::event::record(connection, caller, event).await?;
            Ok(true)
        }
        Err(error) if db::violates(&error, db::payload::NEEDED_BY_RELEASE) => Err(Error::refused(
            Reason::PayloadInUse,
            format!("a release installs payloads/{sha256}; delete that first"),
        )),
        Err(error) => Err(error.into()),
    }
}

/// Deletes the bytes of a payload whose row is gone. The caller's work is done already: what fails here is only put off.
pub(super) async fn collect_now(app: &App, sha256: Sha256Digest) {
    if let Err(error) = collect(app, sha256).await {
        tracing::warn!(payload.sha256 = %sha256, %error, "the bytes of a deleted payload stay for now");
    }
}

/// Deletes the bytes of payloads whose rows are gone.
///
/// # Errors
/// When the database or the blob store does not answer.
pub async fn collect_dropped(app: &App) -> Result<()> {
    let dropped = db::payload::dropped(&mut *app.pool.acquire().await?, BATCH).await?;
    for sha256 in dropped {
        collect(app, sha256).await?;
    }
    Ok(())
}

async fn collect(app: &App, sha256: Sha256Digest) -> Result<()> {
    // The transaction waits for the blob store, which nothing else here may do: the lock must outlast the deletion.
    let mut tx = app.pool.begin().await?;
    let lock = db::payload::lock(&mut tx, sha256).await?;
    if db::payload::take_dropped(&mut tx, &lock).await? {
        app.blobs.delete(sha256).await?;
    }
    tx.commit().await?;
    Ok(())
}
