//! Who holds which keys, and what runs out when.

use std::collections::BTreeSet;

use chrono::{DateTime, TimeDelta, Utc};
use ota_trust::{
    key::{KeyId, Signer as _},
    metadata::{Mode, Role, Root, read},
};
use sqlx::PgConnection;

use crate::{
    app::{App, Error, Reason, Result},
    db::{
        self,
        trust_metadata::{Expiry, Repository, Stored},
    },
};

/// How long before its end a document that people have to sign is warned of.
const WARN_BEFORE: TimeDelta = TimeDelta::days(30);

/// Who holds which keys, and what runs out when.
#[derive(Debug, Clone)]
pub struct TrustStatus {
    /// Who holds the root keys.
    pub mode: Mode,
    /// The roles of both repositories.
    pub roles: Vec<RoleStatus>,
}

/// One role.
#[derive(Debug, Clone)]
pub struct RoleStatus {
    /// Where it belongs.
    pub repository: Repository,
    /// Which.
    pub role: Role,
    /// Version and end of its newest document, unless each device has its own.
    pub newest: Option<(u64, DateTime<Utc>)>,
    /// Signatures it needs.
    pub threshold: u32,
    /// Its keys.
    pub keys: Vec<KeyStatus>,
}

/// One key.
#[derive(Debug, Clone)]
pub struct KeyStatus {
    /// Which.
    pub id: KeyId,
    /// Whether the server holds the private part.
    pub held_by_server: bool,
}

/// Says who holds which keys, and what runs out when.
///
/// # Errors
/// When the database does not answer.
pub async fn status(app: &App) -> Result<TrustStatus> {
    let mut connection = app.pool.acquire().await?;
    let held: BTreeSet<KeyId> = {
        let keys = app.keys.signing(&mut connection).await?;
        keys.iter().map(|(_, key)| key.public_key().id()).collect()
    };
    let expiries = db::trust_metadata::expiries(&mut connection).await?;
    let image = newest_root(&mut connection, Repository::Image).await?;
    let director = newest_root(&mut connection, Repository::Director).await?;
    let role = |repository, root: &Root, role: Role| RoleStatus {
        repository,
        role,
        newest: expiries
            .iter()
            .find(|one| one.repository == repository && one.role == role.as_str())
            .map(|one| (one.version.unsigned_abs(), one.expires_at)),
        threshold: root.threshold(role),
        keys: root
            .keys_of(role)
            .map(|key| KeyStatus { held_by_server: held.contains(&key.id()), id: key.id() })
            .collect(),
    };
    let mut roles = Vec::new();
    for (repository, root) in [(Repository::Image, &image), (Repository::Director, &director)] {
        roles.extend(Role::ALL.into_iter().map(|one| role(repository, root, one)));
    }
    Ok(TrustStatus { mode: image.mode, roles })
}

async fn newest_root(connection: &mut PgConnection, repository: Repository) -> Result<Root> {
    let stored = db::trust_metadata::newest(connection, repository, Role::Root.as_str()).await?;
    let stored = stored.ok_or_else(|| Error::internal("a repository has no root"))?;
    read::<Root>(&stored.document).map_err(Error::internal)
}

/// Reads a role's document: a version of it, or the newest.
///
/// # Errors
/// `METADATA_NOT_FOUND`.
pub async fn document(app: &App, repository: Repository, role: &str, version: Option<u64>) -> Result<Stored> {
    let mut connection = app.pool.acquire().await?;
    let stored = match version {
        Some(version) => db::trust_metadata::find(&mut connection, repository, role, version).await?,
        None => db::trust_metadata::newest(&mut connection, repository, role).await?,
    };
    stored.ok_or_else(|| {
        let version = version.map_or_else(String::new, |version| format!(" of version {version}"));
        let message = format!("there is no {} {role}{version}", repository.as_str());
        Error::refused(Reason::MetadataNotFound, message)
    })
}

/// Who holds the root keys, and when each role's newest document runs out.
///
/// # Errors
/// When the database does not answer.
pub async fn expiries(connection: &mut PgConnection) -> Result<(Mode, Vec<Expiry>)> {
    let mode = newest_root(&mut *connection, Repository::Image).await?.mode;
    Ok((mode, db::trust_metadata::expiries(connection).await?))
}

/// What a person should know of a document that runs out, if anything.
#[must_use]
pub fn warning(expiry: &Expiry, now: DateTime<Utc>) -> Option<String> {
    let what = format!("The {} repository's {}", expiry.repository.as_str(), expiry.role);
    let left = expiry.expires_at - now;
    // What the server signs itself lives shorter than the warning's time: it is told of only when that has failed.
    let is_online = [Role::Snapshot, Role::Timestamp].iter().any(|role| role.as_str() == expiry.role);
    if left <= TimeDelta::zero() {
        Some(format!("{what} has expired: devices keep what they run and take nothing new."))
    } else if left <= WARN_BEFORE && !is_online {
        Some(format!("{what} expires on {}: sign it again.", expiry.expires_at.format("%Y-%m-%d")))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_sign_is_warned_of_before_it_expires() {
        let now = "2026-11-21T12:00:00Z".parse().unwrap();
        let after = |role: &str, days| Expiry {
            repository: Repository::Image,
            role: role.to_owned(),
            version: 1,
            expires_at: now + TimeDelta::days(days),
        };
        for (role, days, warned) in [
            ("root", 31, false),
            ("root", 29, true),
            ("bin-0a", 1, true),
            ("targets", 0, true),
            ("timestamp", 1, false),
            ("snapshot", 6, false),
            ("timestamp", 0, true),
        ] {
            assert_eq!(warning(&after(role, days), now).is_some(), warned, "{role} {days}");
        }
    }
}
