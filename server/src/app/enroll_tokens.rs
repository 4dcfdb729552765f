//! Tokens with which machines join the fleet.

use chrono::{DateTime, Utc};
use ota_domain::{
    EnrollTokenId,
    enroll_token::{Draft, EnrollToken, Standing},
    event::Kind,
    secret::{EnrollmentString, Secret},
};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{App, Error, Reason, Result, access, identity, scope::out_of_scope};
use crate::{
    auth::Caller,
    db::{
        self,
        event::NewEvent,
        page::{Page, PageRequest},
    },
};

/// Creates a token. The secret is in the answer and nowhere else.
///
/// # Errors
/// `OUT_OF_SCOPE` when its devices would not start among those the caller sees.
pub async fn create(
    app: &App,
    caller: &Caller,
    draft: Draft,
    now: DateTime<Utc>,
) -> Result<(EnrollToken, EnrollmentString)> {
    let token = draft.into_token(EnrollTokenId(Uuid::now_v7()), caller.principal.to_string(), now);
    may_change(caller, &token)?;
    let secret = Secret(rand::random());
    let mut transaction = app.pool.begin().await?;
    let (roots, pin) = identity::pin(app, &mut transaction).await?;
    db::enroll_token::insert(&mut transaction, &token, access::hash(&secret), roots).await?;
    record(&mut transaction, caller, Kind::EnrollTokenCreated, &token).await?;
    transaction.commit().await?;
    let string = EnrollmentString { token: token.id, secret, pin: pin.0 };
    Ok((token, string))
}

/// Reads a token.
///
/// # Errors
/// `ENROLL_TOKEN_NOT_FOUND`.
pub async fn get(app: &App, caller: &Caller, id: EnrollTokenId) -> Result<EnrollToken> {
    let token = db::enroll_token::get(&mut *app.pool.acquire().await?, id).await?;
    token.filter(|token| caller.scope().has_device(&token.labels)).ok_or_else(|| not_found(id))
}

/// Lists tokens, newest first.
///
/// # Errors
/// When the database does not answer.
pub async fn list(app: &App, caller: &Caller, page: PageRequest<EnrollTokenId>) -> Result<Page<EnrollToken>> {
    let tokens = db::enroll_token::list(&mut *app.pool.acquire().await?, &page, caller.scope()).await?;
    Ok(page.cut(tokens, |token| token.id.to_string()))
}

/// Ends a token's use at once; devices that enrolled with it stay. Revoking it again changes nothing.
///
/// # Errors
/// `ENROLL_TOKEN_NOT_FOUND`.
pub async fn revoke(app: &App, caller: &Caller, id: EnrollTokenId, now: DateTime<Utc>) -> Result<EnrollToken> {
    let mut transaction = app.pool.begin().await?;
    let token = db::enroll_token::lock(&mut transaction, id).await?.ok_or_else(|| not_found(id))?;
    may_change(caller, &token)?;
    if token.standing.revoked_at.is_some() {
        return Ok(token);
    }
    db::enroll_token::revoke(&mut transaction, id, now).await?;
    record(&mut transaction, caller, Kind::EnrollTokenRevoked, &token).await?;
    transaction.commit().await?;
    let standing = Standing { revoked_at: Some(now), ..token.standing };
    Ok(EnrollToken { standing, ..token })
}

/// A token is in a scope when the devices that enrol with it are.
fn may_change(caller: &Caller, token: &EnrollToken) -> Result<()> {
    if caller.scope().has_device(&token.labels) {
        Ok(())
    } else {
        Err(out_of_scope("a device with the labels that the enrolment token gives"))
    }
}

fn not_found(id: EnrollTokenId) -> Error {
    Error::refused(Reason::EnrollTokenNotFound, format!("there is no enrolment token {id}"))
}

async fn record(connection: &mut PgConnection, caller: &Caller, kind: Kind, token: &EnrollToken) -> Result<()> {
    let event = NewEvent::new(kind, format!("enrollTokens/{}", token.id))
        .detail("max_uses", token.standing.max_uses)
        .detail("approval_required", token.approval_required);
    db::event::record(connection, caller, event).await?;
    db::notify::events(connection).await?;
    Ok(())
}
