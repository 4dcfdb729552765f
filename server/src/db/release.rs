//! Releases.

use chrono::{DateTime, Utc};
use ota_domain::{
    DeploymentId, Hardware, PackageId, PackageName, ReleaseId, Scope, Sha256Digest, Version, deployment,
    release::{Draft, Installer, Payload, Release, State},
    scope::PackagePrefix,
};
use ota_trust::metadata::Custom;
use sqlx::PgConnection;

use super::page::PageRequest;

/// The constraint that gives a version of a package to one release.
pub const VERSION_TAKEN: &str = "release_version_key";
/// The constraint that keeps a release which a rollout brings to devices.
pub const NEEDED_BY_ROLLOUT: &str = "rollout_release_id_fkey";

struct Row {
    id: ReleaseId,
    package: PackageName,
    version: Version,
    release_counter: i64,
    hardware: Vec<Hardware>,
    installer: Installer,
    payload_sha256: Sha256Digest,
    size_bytes: i64,
    unpacked_size_bytes: i64,
    notes: String,
    state: State,
    created_at: DateTime<Utc>,
    creator: String,
    revision: i64,
    is_signed: bool,
}

impl From<Row> for Release {
    fn from(row: Row) -> Self {
        Self {
            id: row.id,
            package: row.package,
            version: row.version,
            counter: row.release_counter,
            hardware: row.hardware,
            installer: row.installer,
            payload: Payload { sha256: row.payload_sha256, size_bytes: row.size_bytes.unsigned_abs() },
            unpacked_size_bytes: row.unpacked_size_bytes.unsigned_abs(),
            notes: row.notes,
            state: row.state,
            created_at: row.created_at,
            creator: row.creator,
            revision: row.revision,
            is_signed: row.is_signed,
        }
    }
}

/// Reads a release.
pub async fn find(
    connection: &mut PgConnection,
    package: &PackageName,
    version: &Version,
) -> sqlx::Result<Option<Release>> {
    let row = sqlx::query_as!(
        Row,
        r#"SELECT release.id AS "id: ReleaseId", package.name AS "package: PackageName", version AS "version: Version",
                  release_counter, hardware AS "hardware: Vec<Hardware>", installer AS "installer: Installer",
                  payload_sha256 AS "payload_sha256: Sha256Digest", payload.size_bytes, unpacked_size_bytes, notes,
                  state AS "state: State", release.created_at, creator, release.revision,
                  signed_at IS NOT NULL AS "is_signed!"
           FROM release
           JOIN package ON package.id = release.package_id
           JOIN payload ON payload.sha256 = release.payload_sha256
           WHERE package.name = $1 AND version = $2"#,
        package.as_str(),
        version.to_string(),
    )
    .fetch_optional(connection)
    .await?;
    Ok(row.map(Release::from))
}

/// Reads a page of the releases of one package or of all in `scope`, newest first.
pub async fn list(
    connection: &mut PgConnection,
    package: Option<PackageId>,
    page: &PageRequest<ReleaseId>,
    scope: &Scope,
) -> sqlx::Result<Vec<Release>> {
    let rows = sqlx::query_as!(
        Row,
        r#"SELECT release.id AS "id: ReleaseId", package.name AS "package: PackageName", version AS "version: Version",
                  release_counter, hardware AS "hardware: Vec<Hardware>", installer AS "installer: Installer",
                  payload_sha256 AS "payload_sha256: Sha256Digest", payload.size_bytes, unpacked_size_bytes, notes,
                  state AS "state: State", release.created_at, creator, release.revision,
                  signed_at IS NOT NULL AS "is_signed!"
           FROM release
           JOIN package ON package.id = release.package_id
           JOIN payload ON payload.sha256 = release.payload_sha256
           WHERE ($1::UUID IS NULL OR release.package_id = $1) AND ($2::UUID IS NULL OR release.id < $2)
             AND ($4::TEXT IS NULL OR starts_with(package.name, $4))
           ORDER BY release.id DESC
           LIMIT $3"#,
        package.map(|package| package.0),
        page.after.map(|release| release.0),
        page.limit(),
        scope.packages.as_ref().map(PackagePrefix::as_str),
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(Release::from).collect())
}

/// Publishes a release with the package's next counter. Fails on [`VERSION_TAKEN`].
///
/// The counter and the release are written by one statement, which locks the package's row: releases of one package are
/// published one after the other, and no counter is given twice.
pub async fn insert(
    connection: &mut PgConnection,
    id: ReleaseId,
    package: PackageId,
    draft: &Draft,
    creator: &str,
    now: DateTime<Utc>,
) -> sqlx::Result<()> {
    sqlx::query!(
        "WITH counted AS (
             UPDATE package SET last_release_counter = last_release_counter + 1
             WHERE id = $2
             RETURNING last_release_counter
         )
         INSERT INTO release (
             id, package_id, version, release_counter, hardware, installer, payload_sha256, unpacked_size_bytes, notes,
             state, created_at, creator
         )
         SELECT $1, $2, $3, last_release_counter, $4, $5, $6, $7, $8, 'published', $9, $10
         FROM counted",
        id.0,
        package.0,
        draft.version.to_string(),
        &draft.hardware.iter().map(ToString::to_string).collect::<Vec<_>>(),
        draft.installer as Installer,
        draft.payload as _,
        draft.unpacked_size_bytes.cast_signed(),
        draft.notes,
        now,
        creator,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Changes the notes of the release if it still has this revision; `false` when it does not.
pub async fn annotate(connection: &mut PgConnection, id: ReleaseId, revision: i64, notes: &str) -> sqlx::Result<bool> {
    let done = sqlx::query!(
        "UPDATE release SET notes = $3, revision = revision + 1 WHERE id = $1 AND revision = $2",
        id.0,
        revision,
        notes,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// Takes a published release out of use and answers whose it is; `None` when it was yanked before.
pub async fn yank(connection: &mut PgConnection, id: ReleaseId) -> sqlx::Result<Option<PackageId>> {
    sqlx::query_scalar!(
        r#"UPDATE release SET state = 'yanked', revision = revision + 1
           WHERE id = $1 AND state = 'published'
           RETURNING package_id AS "package: PackageId""#,
        id.0
    )
    .fetch_optional(connection)
    .await
}

/// The deployments of a release that no device was told of.
pub async fn queued_deployments(connection: &mut PgConnection, id: ReleaseId) -> sqlx::Result<Vec<DeploymentId>> {
    sqlx::query_scalar!(
        r#"SELECT id AS "id: DeploymentId" FROM deployment WHERE release_id = $1 AND state = $2"#,
        id.0,
        deployment::State::Queued as deployment::State,
    )
    .fetch_all(connection)
    .await
}

/// Whether a device says that it runs the release.
pub async fn is_running(connection: &mut PgConnection, package: &PackageName, version: &Version) -> sqlx::Result<bool> {
    sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM device_running WHERE package = $1 AND version = $2) AS "running!""#,
        package.as_str(),
        version.to_string(),
    )
    .fetch_one(connection)
    .await
}

/// Deletes a release; `false` when there is none. Fails on [`NEEDED_BY_ROLLOUT`].
pub async fn delete(connection: &mut PgConnection, id: ReleaseId) -> sqlx::Result<bool> {
    let done = sqlx::query!("DELETE FROM release WHERE id = $1", id.0).execute(connection).await?;
    Ok(done.rows_affected() > 0)
}

/// Whether releases install the payload, all of them of packages whose names begin otherwise.
pub async fn only_outside(
    connection: &mut PgConnection,
    payload: Sha256Digest,
    prefix: &PackagePrefix,
) -> sqlx::Result<bool> {
    sqlx::query_scalar!(
        r#"SELECT COALESCE(bool_and(NOT starts_with(package.name, $2)), FALSE) AS "outside!"
           FROM release
           JOIN package ON package.id = release.package_id
           WHERE release.payload_sha256 = $1"#,
        payload as _,
        prefix.as_str(),
    )
    .fetch_one(connection)
    .await
}

/// Whether some release installs the payload.
pub async fn any_installs(connection: &mut PgConnection, payload: Sha256Digest) -> sqlx::Result<bool> {
    sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM release WHERE payload_sha256 = $1) AS "installs!""#,
        payload as _,
    )
    .fetch_one(connection)
    .await
}

/// A release as a signed entry has to list it.
#[derive(Debug)]
pub struct Listed {
    /// What it is a version of.
    pub package: PackageName,
    /// Its version.
    pub version: Version,
    /// Its counter.
    pub counter: i64,
    /// The hardware types it fits.
    pub hardware: Vec<Hardware>,
    /// How it is installed.
    pub installer: Installer,
    /// What is installed.
    pub payload: Payload,
    /// Size of the installed tree; 0 when not known.
    pub unpacked_size_bytes: u64,
}

/// Package names and versions of entries, as two parameters.
fn names(entries: &[&Custom]) -> (Vec<String>, Vec<String>) {
    entries.iter().map(|entry| (entry.package.to_string(), entry.version.to_string())).unzip()
}

/// Reads the releases of these entries, and holds them as they are until the transaction ends. Those that do not exist are
/// left out.
pub async fn listed(connection: &mut PgConnection, entries: &[&Custom]) -> sqlx::Result<Vec<Listed>> {
    let (packages, versions) = names(entries);
    let rows = sqlx::query!(
        r#"SELECT package.name AS "package: PackageName", release.version AS "version: Version", release_counter,
                  hardware AS "hardware: Vec<Hardware>", installer AS "installer: Installer",
                  payload_sha256 AS "payload_sha256: Sha256Digest", payload.size_bytes, unpacked_size_bytes
           FROM UNNEST($1::TEXT[], $2::TEXT[]) AS entry (package, version)
           JOIN package ON package.name = entry.package
           JOIN release ON release.package_id = package.id AND release.version = entry.version
           JOIN payload ON payload.sha256 = release.payload_sha256
           ORDER BY release.id
           FOR NO KEY UPDATE OF release"#,
        &packages,
        &versions,
    )
    .fetch_all(connection)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Listed {
            package: row.package,
            version: row.version,
            counter: row.release_counter,
            hardware: row.hardware,
            installer: row.installer,
            payload: Payload { sha256: row.payload_sha256, size_bytes: row.size_bytes.unsigned_abs() },
            unpacked_size_bytes: row.unpacked_size_bytes.unsigned_abs(),
        })
        .collect())
}

/// Notes that signed entries list these releases from `now` on.
pub async fn mark_signed(connection: &mut PgConnection, entries: &[&Custom], now: DateTime<Utc>) -> sqlx::Result<()> {
    set_signed_at(connection, entries, Some(now)).await
}

/// Notes that no signed entry lists these releases any more.
pub async fn mark_unsigned(connection: &mut PgConnection, entries: &[&Custom]) -> sqlx::Result<()> {
    set_signed_at(connection, entries, None).await
}

async fn set_signed_at(
    connection: &mut PgConnection,
    entries: &[&Custom],
    signed_at: Option<DateTime<Utc>>,
) -> sqlx::Result<()> {
    let (packages, versions) = names(entries);
    sqlx::query!(
        "UPDATE release
         SET signed_at = $3
         FROM UNNEST($1::TEXT[], $2::TEXT[]) AS entry (package, version)
         JOIN package ON package.name = entry.package
         WHERE release.package_id = package.id AND release.version = entry.version",
        &packages,
        &versions,
        signed_at,
    )
    .execute(connection)
    .await?;
    Ok(())
}
