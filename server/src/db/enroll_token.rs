//! Enrolment tokens.

use chrono::{DateTime, Utc};
use ota_domain::{
    EnrollTokenId, Hardware, Labels, Scope, Sha256Digest,
    enroll_token::{EnrollToken, Standing},
};
use sqlx::{FromRow, PgConnection, Postgres, QueryBuilder, types::Json};

use super::{page::PageRequest, selector};

#[derive(FromRow)]
struct Row {
    id: EnrollTokenId,
    description: String,
    max_uses: i32,
    uses: i32,
    expires_at: DateTime<Utc>,
    revoked_at: Option<DateTime<Utc>>,
    approval_required: bool,
    hardware: Vec<Hardware>,
    labels: Json<Labels>,
    created_at: DateTime<Utc>,
    creator: String,
}

impl From<Row> for EnrollToken {
    fn from(row: Row) -> Self {
        Self {
            id: row.id,
            description: row.description,
            standing: Standing {
                max_uses: row.max_uses,
                uses: row.uses,
                expires_at: row.expires_at,
                revoked_at: row.revoked_at,
            },
            approval_required: row.approval_required,
            hardware: row.hardware,
            labels: row.labels.0,
            created_at: row.created_at,
            creator: row.creator,
        }
    }
}

/// Versions of the roots that a token's pin is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RootVersions {
    /// The image repository's.
    pub image: u64,
    /// The director repository's.
    pub director: u64,
}

/// The versions of the roots that the token's pin is over.
pub async fn root_versions(connection: &mut PgConnection, id: EnrollTokenId) -> sqlx::Result<Option<RootVersions>> {
    let row = sqlx::query!("SELECT image_root_version, director_root_version FROM enroll_token WHERE id = $1", id.0)
        .fetch_optional(connection)
        .await?;
    Ok(row.map(|row| RootVersions {
        image: row.image_root_version.unsigned_abs(),
        director: row.director_root_version.unsigned_abs(),
    }))
}

/// Stores a token with the SHA-256 of its secret and what its pin is over.
pub async fn insert(
    connection: &mut PgConnection,
    token: &EnrollToken,
    secret: Sha256Digest,
    roots: RootVersions,
) -> sqlx::Result<()> {
    sqlx::query!(
        "INSERT INTO enroll_token (
             id, description, secret_sha256, max_uses, expires_at, approval_required, hardware, labels, created_at, creator,
             image_root_version, director_root_version
         )
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
        token.id.0,
        token.description,
        &secret.0[..],
        token.standing.max_uses,
        token.standing.expires_at,
        token.approval_required,
        &token.hardware as &[Hardware],
        Json(&token.labels) as _,
        token.created_at,
        token.creator,
        roots.image.cast_signed(),
        roots.director.cast_signed(),
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// The token.
pub async fn get(connection: &mut PgConnection, id: EnrollTokenId) -> sqlx::Result<Option<EnrollToken>> {
    let row = sqlx::query_as!(
        Row,
        r#"SELECT
               id AS "id: EnrollTokenId", description, max_uses, uses, expires_at, revoked_at, approval_required,
               hardware AS "hardware: Vec<Hardware>", labels AS "labels: Json<Labels>", created_at, creator
           FROM enroll_token
           WHERE id = $1"#,
        id.0,
    )
    .fetch_optional(connection)
    .await?;
    Ok(row.map(EnrollToken::from))
}

/// The SHA-256 of the token's secret.
pub async fn secret(connection: &mut PgConnection, id: EnrollTokenId) -> sqlx::Result<Option<Sha256Digest>> {
    sqlx::query_scalar!(r#"SELECT secret_sha256 AS "secret: Sha256Digest" FROM enroll_token WHERE id = $1"#, id.0,)
        .fetch_optional(connection)
        .await
}

/// The token, locked until the transaction ends.
pub async fn lock(connection: &mut PgConnection, id: EnrollTokenId) -> sqlx::Result<Option<EnrollToken>> {
    let row = sqlx::query_as!(
        Row,
        r#"SELECT
               id AS "id: EnrollTokenId", description, max_uses, uses, expires_at, revoked_at, approval_required,
               hardware AS "hardware: Vec<Hardware>", labels AS "labels: Json<Labels>", created_at, creator
           FROM enroll_token
           WHERE id = $1
           FOR UPDATE"#,
        id.0,
    )
    .fetch_optional(connection)
    .await?;
    Ok(row.map(EnrollToken::from))
}

/// A page of the tokens whose devices start in `scope`, newest first.
pub async fn list(
    connection: &mut PgConnection,
    page: &PageRequest<EnrollTokenId>,
    scope: &Scope,
) -> sqlx::Result<Vec<EnrollToken>> {
    let mut sql = QueryBuilder::<Postgres>::new(
        "SELECT id, description, max_uses, uses, expires_at, revoked_at, approval_required, hardware, labels,
                created_at, creator
         FROM enroll_token
         WHERE TRUE",
    );
    if let Some(after) = page.after {
        sql.push(" AND id < ").push_bind(after.0);
    }
    if let Some(selector) = &scope.devices {
        selector::push(&mut sql, "labels", selector);
    }
    sql.push(" ORDER BY id DESC LIMIT ").push_bind(page.limit());
    let rows: Vec<Row> = sql.build_query_as().fetch_all(connection).await?;
    Ok(rows.into_iter().map(EnrollToken::from).collect())
}

/// Counts one use, if the token works at `now` and has one left; says whether it did. The row stays locked until the
/// transaction ends, so of any number of machines at once exactly as many get in as may.
pub async fn count_use(connection: &mut PgConnection, id: EnrollTokenId, now: DateTime<Utc>) -> sqlx::Result<bool> {
    let counted = sqlx::query!(
        "UPDATE enroll_token
         SET uses = uses + 1
         WHERE id = $1 AND uses < max_uses AND revoked_at IS NULL AND expires_at > $2",
        id.0,
        now,
    )
    .execute(connection)
    .await?;
    Ok(counted.rows_affected() == 1)
}

/// Ends a token's use.
pub async fn revoke(connection: &mut PgConnection, id: EnrollTokenId, now: DateTime<Utc>) -> sqlx::Result<()> {
    sqlx::query!("UPDATE enroll_token SET revoked_at = $2 WHERE id = $1", id.0, now).execute(connection).await?;
    Ok(())
}
