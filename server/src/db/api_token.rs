//! API tokens.

use std::str::FromStr;

use chrono::{DateTime, Utc};
use ota_domain::{ApiTokenId, Scope, Sha256Digest, api_token::ApiToken, role::Role};
use sqlx::{PgConnection, error::BoxDynError};

use super::page::PageRequest;

/// Key of the advisory lock under which the first token is made: the letters `ota-adm1`.
const FIRST_TOKEN_LOCK: i64 = i64::from_be_bytes(*b"ota-adm1");

struct Row {
    id: ApiTokenId,
    display_name: String,
    role: Role,
    device_selector: Option<String>,
    package_prefix: Option<String>,
    created_at: DateTime<Utc>,
    expires_at: Option<DateTime<Utc>>,
    last_used_at: Option<DateTime<Utc>>,
    revoked_at: Option<DateTime<Utc>>,
    secret: Sha256Digest,
}

impl TryFrom<Row> for ApiToken {
    type Error = sqlx::Error;

    fn try_from(row: Row) -> sqlx::Result<Self> {
        Ok(Self {
            id: row.id,
            display_name: row.display_name,
            role: row.role,
            scope: Scope {
                devices: parse("device_selector", row.device_selector)?,
                packages: parse("package_prefix", row.package_prefix)?,
            },
            created_at: row.created_at,
            expires_at: row.expires_at,
            last_used_at: row.last_used_at,
            revoked_at: row.revoked_at,
        })
    }
}

/// Reads a text that was checked before it was stored. One that cannot be read is an error and never no limit.
fn parse<T>(column: &str, text: Option<String>) -> sqlx::Result<Option<T>>
where
    T: FromStr<Err: std::error::Error + Send + Sync + 'static>,
{
    text.map(|text| text.parse()).transpose().map_err(|error: T::Err| sqlx::Error::ColumnDecode {
        index: column.to_owned(),
        source: BoxDynError::from(error),
    })
}

/// Whether there is any token, revoked and expired ones counted. Until the transaction ends, other callers of this wait, so
/// that of several replicas that start at once one makes the first token.
pub async fn any_locked(connection: &mut PgConnection) -> sqlx::Result<bool> {
    sqlx::query!("SELECT pg_advisory_xact_lock($1)", FIRST_TOKEN_LOCK).execute(&mut *connection).await?;
    sqlx::query_scalar!(r#"SELECT EXISTS (SELECT FROM api_token) AS "any!""#).fetch_one(connection).await
}

/// Stores a token with the SHA-256 of its secret.
pub async fn insert(connection: &mut PgConnection, token: &ApiToken, secret: Sha256Digest) -> sqlx::Result<()> {
    sqlx::query!(
        "INSERT INTO api_token (
             id, display_name, role, secret_sha256, created_at, expires_at, device_selector, package_prefix
         )
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        token.id.0,
        token.display_name,
        token.role as Role,
        &secret.0[..],
        token.created_at,
        token.expires_at,
        token.scope.devices.as_ref().map(ToString::to_string),
        token.scope.packages.as_ref().map(ToString::to_string),
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// The token and the SHA-256 of its secret.
pub async fn with_secret(
    connection: &mut PgConnection,
    id: ApiTokenId,
) -> sqlx::Result<Option<(ApiToken, Sha256Digest)>> {
    let row = sqlx::query_as!(
        Row,
        r#"SELECT
               id AS "id: ApiTokenId", display_name, role AS "role: Role", device_selector, package_prefix, created_at,
               expires_at, last_used_at, revoked_at, secret_sha256 AS "secret: Sha256Digest"
           FROM api_token
           WHERE id = $1"#,
        id.0,
    )
    .fetch_optional(connection)
    .await?;
    row.map(|row| {
        let secret = row.secret;
        Ok((ApiToken::try_from(row)?, secret))
    })
    .transpose()
}

/// The token, locked until the transaction ends.
pub async fn lock(connection: &mut PgConnection, id: ApiTokenId) -> sqlx::Result<Option<ApiToken>> {
    let row = sqlx::query_as!(
        Row,
        r#"SELECT
               id AS "id: ApiTokenId", display_name, role AS "role: Role", device_selector, package_prefix, created_at,
               expires_at, last_used_at, revoked_at, secret_sha256 AS "secret: Sha256Digest"
           FROM api_token
           WHERE id = $1
           FOR UPDATE"#,
        id.0,
    )
    .fetch_optional(connection)
    .await?;
    row.map(ApiToken::try_from).transpose()
}

/// A page of tokens, newest first.
pub async fn list(connection: &mut PgConnection, page: &PageRequest<ApiTokenId>) -> sqlx::Result<Vec<ApiToken>> {
    let rows = sqlx::query_as!(
        Row,
        r#"SELECT
               id AS "id: ApiTokenId", display_name, role AS "role: Role", device_selector, package_prefix, created_at,
               expires_at, last_used_at, revoked_at, secret_sha256 AS "secret: Sha256Digest"
           FROM api_token
           WHERE $1::UUID IS NULL OR id < $1
           ORDER BY id DESC
           LIMIT $2"#,
        page.after.map(|id| id.0),
        page.limit(),
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter().map(ApiToken::try_from).collect()
}

/// Notes that a token was used.
pub async fn touch(connection: &mut PgConnection, id: ApiTokenId, now: DateTime<Utc>) -> sqlx::Result<()> {
    sqlx::query!("UPDATE api_token SET last_used_at = GREATEST(last_used_at, $2) WHERE id = $1", id.0, now)
        .execute(connection)
        .await?;
    Ok(())
}

/// Ends a token's use.
pub async fn revoke(connection: &mut PgConnection, id: ApiTokenId, now: DateTime<Utc>) -> sqlx::Result<()> {
    sqlx::query!("UPDATE api_token SET revoked_at = $2 WHERE id = $1", id.0, now).execute(connection).await?;
    Ok(())
}
