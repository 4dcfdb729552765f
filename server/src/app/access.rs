//! Who may run the fleet: API tokens, and the check of those that callers show.

use std::fmt;

use chrono::{DateTime, Duration, Utc};
use ota_domain::{
    ApiTokenId, Scope, Sha256Digest, Violations,
    api_token::{ApiToken, Draft},
    event::Kind,
    role::Role,
    secret::{BearerToken, Secret},
};
use sha2::{Digest, Sha256};
use sqlx::{PgConnection, PgPool};
use subtle::ConstantTimeEq;
use uuid::Uuid;

use super::{App, Error, Reason, Result};
use crate::{
    auth::{Caller, Identity, Principal},
    db::{
        self,
        event::NewEvent,
        page::{Page, PageRequest},
    },
};

/// How old the time of a token's last use may get before it is written again: operators call often, and each time would
/// be a write.
const TOUCH_AFTER: Duration = Duration::minutes(1);

/// What the token is called that a server without any makes for itself.
const FIRST_ADMIN: &str = "first admin";

/// What is kept of a secret. Secrets are 32 random bytes, which no slow hash could make safer.
#[must_use]
pub fn hash(secret: &Secret) -> Sha256Digest {
    Sha256Digest(Sha256::digest(secret.0).into())
}

/// Whether `secret` is the one of which `kept` was kept, in a time that tells nothing of how near it came.
#[must_use]
pub fn proves(secret: &Secret, kept: Sha256Digest) -> bool {
    hash(secret).0.ct_eq(&kept.0).into()
}

/// Who shows this token.
///
/// # Errors
/// `CREDENTIAL_INVALID` alike for an unknown token, a wrong secret, one that has expired and one that was revoked.
pub async fn authenticate(app: &App, id: ApiTokenId, secret: &Secret, now: DateTime<Utc>) -> Result<Principal> {
    let mut connection = app.pool.acquire().await?;
    let token = match db::api_token::with_secret(&mut connection, id).await? {
        Some((token, kept)) if proves(secret, kept) && token.works(now) => token,
        Some(_) | None => return Err(not_valid()),
    };
    if token.last_used_at.is_none_or(|last| now - last >= TOUCH_AFTER) {
        db::api_token::touch(&mut connection, id, now).await?;
    }
    let ApiToken { display_name, role, scope, .. } = token;
    Ok(Principal::Operator { identity: Identity::ApiToken(id), display_name, role, scope })
}

/// Makes sure that a caller who holds a stream may still read: an operator's token may have been revoked meanwhile.
///
/// # Errors
/// `CREDENTIAL_INVALID` when it was, or has expired.
pub async fn still_valid(connection: &mut PgConnection, caller: &Caller, now: DateTime<Utc>) -> Result<()> {
    let Principal::Operator { identity, .. } = &caller.principal else { return Ok(()) };
    let valid = match identity {
        Identity::ApiToken(id) => {
            db::api_token::with_secret(connection, *id).await?.is_some_and(|(token, _)| token.works(now))
        }
        Identity::User { expires_at, .. } => now < *expires_at,
    };
    if valid { Ok(()) } else { Err(not_valid()) }
}

fn not_valid() -> Error {
    Error::refused(Reason::CredentialInvalid, "the credential is not known here, has expired or was revoked")
}

/// Creates a token. The secret is in the answer and nowhere else.
///
/// # Errors
/// When the database does not answer.
pub async fn create(app: &App, caller: &Caller, draft: Draft, now: DateTime<Utc>) -> Result<(ApiToken, BearerToken)> {
    let mut transaction = app.pool.begin().await?;
    let new = NewToken::random();
    let token = insert(&mut transaction, caller, draft, &new, now).await?;
    transaction.commit().await?;
    Ok((token, new.bearer()))
}

/// Creates an admin's token for who can already reach the server's database, and may therefore do everything anyway.
///
/// # Errors
/// When the name breaks its rule or the database does not answer.
pub async fn create_admin(pool: &PgPool, display_name: &str, now: DateTime<Utc>) -> Result<BearerToken> {
    let draft = admin(display_name, now)?;
    let mut transaction = pool.begin().await?;
    let new = NewToken::random();
    insert(&mut transaction, &Caller::server(), draft, &new, now).await?;
    transaction.commit().await?;
    Ok(new.bearer())
}

/// Whether there is any token, revoked and expired ones counted.
///
/// # Errors
/// When the database does not answer.
pub async fn any_token(pool: &PgPool) -> Result<bool> {
    Ok(db::api_token::any_locked(&mut *pool.begin().await?).await?)
}

/// Creates this token for an admin when there is no token at all, so that a fresh server can be used. Of several replicas
/// that start at once, one does. Answers whether this one did.
///
/// # Errors
/// When the database does not answer.
pub async fn first_admin(pool: &PgPool, token: &NewToken, now: DateTime<Utc>) -> Result<bool> {
    let mut transaction = pool.begin().await?;
    if db::api_token::any_locked(&mut transaction).await? {
        return Ok(false);
    }
    insert(&mut transaction, &Caller::server(), admin(FIRST_ADMIN, now)?, token, now).await?;
    transaction.commit().await?;
    Ok(true)
}

fn admin(display_name: &str, now: DateTime<Utc>) -> Result<Draft> {
    let scope = Scope::default();
    Ok(Draft::new(display_name.to_owned(), Some(Role::Admin), scope, None, now, Violations::default())?)
}

/// What is random in a token.
#[derive(Debug)]
pub struct NewToken {
    /// Its name.
    pub id: ApiTokenId,
    /// What proves it.
    pub secret: Secret,
}

impl NewToken {
    /// Makes one.
    #[must_use]
    pub fn random() -> Self {
        Self { id: ApiTokenId(Uuid::now_v7()), secret: Secret(rand::random()) }
    }

    fn bearer(&self) -> BearerToken {
        BearerToken::Api { token: self.id, secret: self.secret.clone() }
    }
}

impl fmt::Display for NewToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.bearer().fmt(f)
    }
}

async fn insert(
    connection: &mut PgConnection,
    caller: &Caller,
    draft: Draft,
    new: &NewToken,
    now: DateTime<Utc>,
) -> Result<ApiToken> {
    let token = draft.into_token(new.id, now);
    db::api_token::insert(connection, &token, hash(&new.secret)).await?;
    record(connection, caller, Kind::ApiTokenCreated, &token).await?;
    Ok(token)
}

/// Lists tokens, newest first.
///
/// # Errors
/// When the database does not answer.
pub async fn list(app: &App, page: PageRequest<ApiTokenId>) -> Result<Page<ApiToken>> {
    let tokens = db::api_token::list(&mut *app.pool.acquire().await?, &page).await?;
    Ok(page.cut(tokens, |token| token.id.to_string()))
}

/// Ends a token's use at once. Revoking it again changes nothing.
///
/// # Errors
/// `API_TOKEN_NOT_FOUND`.
pub async fn revoke(app: &App, caller: &Caller, id: ApiTokenId, now: DateTime<Utc>) -> Result<ApiToken> {
    let mut transaction = app.pool.begin().await?;
    let token = db::api_token::lock(&mut transaction, id)
        .await?
        .ok_or_else(|| Error::refused(Reason::ApiTokenNotFound, format!("there is no API token {id}")))?;
    if token.revoked_at.is_some() {
        return Ok(token);
    }
    db::api_token::revoke(&mut transaction, id, now).await?;
    record(&mut transaction, caller, Kind::ApiTokenRevoked, &token).await?;
    transaction.commit().await?;
    Ok(ApiToken { revoked_at: Some(now), ..token })
}

async fn record(connection: &mut PgConnection, caller: &Caller, kind: Kind, token: &ApiToken) -> Result<()> {
    let mut event = NewEvent::new(kind, format!("apiTokens/{}", token.id))
        .detail("display_name", &token.display_name)
        .detail("role", token.role.as_str());
    if let Some(devices) = &token.scope.devices {
        event = event.detail("devices", devices);
    }
    if let Some(packages) = &token.scope.packages {
        event = event.detail("packages", packages);
    }
    db::event::record(connection, caller, event).await?;
    db::notify::events(connection).await?;
    Ok(())
}
