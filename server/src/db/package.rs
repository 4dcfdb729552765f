//! Packages.

use chrono::{DateTime, Utc};
use ota_domain::{PackageId, PackageName, Scope, Version, package::Package, scope::PackagePrefix};
use sqlx::PgConnection;

use super::page::PageRequest;

/// The constraint that keeps a package which has releases.
pub const HAS_RELEASES: &str = "release_package_id_fkey";

struct Row {
    id: PackageId,
    name: PackageName,
    description: String,
    created_at: DateTime<Utc>,
    revision: i64,
    release_count: i64,
    latest_version: Option<Version>,
}

impl From<Row> for Package {
    fn from(row: Row) -> Self {
        let Row { id, name, description, created_at, revision, release_count, latest_version } = row;
        Self { id, name, description, created_at, revision, release_count, latest_version }
    }
}

/// Reads a package.
pub async fn find(connection: &mut PgConnection, name: &PackageName) -> sqlx::Result<Option<Package>> {
    let row = sqlx::query_as!(
        Row,
        r#"SELECT id AS "id: PackageId", name AS "name: PackageName", description, created_at, revision,
                  (SELECT count(*) FROM release WHERE package_id = package.id) AS "release_count!",
                  (SELECT version FROM release WHERE package_id = package.id AND state = 'published'
                   ORDER BY release_counter DESC LIMIT 1) AS "latest_version: Version"
           FROM package
           WHERE name = $1"#,
        name.as_str()
    )
    .fetch_optional(connection)
    .await?;
    Ok(row.map(Package::from))
}

/// Reads a page of the packages in `scope`, by name.
pub async fn list(
    connection: &mut PgConnection,
    page: &PageRequest<PackageName>,
    scope: &Scope,
) -> sqlx::Result<Vec<Package>> {
    let rows = sqlx::query_as!(
        Row,
        r#"SELECT id AS "id: PackageId", name AS "name: PackageName", description, created_at, revision,
                  (SELECT count(*) FROM release WHERE package_id = package.id) AS "release_count!",
                  (SELECT version FROM release WHERE package_id = package.id AND state = 'published'
                   ORDER BY release_counter DESC LIMIT 1) AS "latest_version: Version"
           FROM package
           WHERE ($1::TEXT IS NULL OR name > $1) AND ($3::TEXT IS NULL OR starts_with(name, $3))
           ORDER BY name
           LIMIT $2"#,
        page.after.as_ref().map(PackageName::as_str),
        page.limit(),
        scope.packages.as_ref().map(PackagePrefix::as_str),
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(Package::from).collect())
}

/// Creates a package; `false` when the name is taken.
pub async fn insert(
    connection: &mut PgConnection,
    id: PackageId,
    name: &PackageName,
    description: &str,
    now: DateTime<Utc>,
) -> sqlx::Result<bool> {
    let done = sqlx::query!(
        "INSERT INTO package (id, name, description, created_at) VALUES ($1, $2, $3, $4)
         ON CONFLICT ON CONSTRAINT package_name_key DO NOTHING",
        id.0,
        name.as_str(),
        description,
        now,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// Changes the description of the package if it still has this revision; `false` when it does not.
pub async fn describe(
    connection: &mut PgConnection,
    id: PackageId,
    revision: i64,
    description: &str,
) -> sqlx::Result<bool> {
    let done = sqlx::query!(
        "UPDATE package SET description = $3, revision = revision + 1 WHERE id = $1 AND revision = $2",
        id.0,
        revision,
        description,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// Deletes a package; `false` when there is none. Fails on [`HAS_RELEASES`].
pub async fn delete(connection: &mut PgConnection, name: &PackageName) -> sqlx::Result<bool> {
    let done = sqlx::query!("DELETE FROM package WHERE name = $1", name.as_str()).execute(connection).await?;
    Ok(done.rows_affected() > 0)
}
