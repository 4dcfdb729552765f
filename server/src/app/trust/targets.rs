//! Targets: the list of what may be installed, signed by operators.

use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, Utc};
use ota_domain::event::Kind;
use ota_trust::{
    image,
    metadata::{Custom, Target},
    verify::Repository,
};
use sqlx::PgConnection;

use super::{invalid, outdated, refused, repository};
use crate::{
    app::{App, Result, scope},
    auth::Caller,
    db::{self, event::NewEvent, release::Listed},
};

/// Most entries that an event or an error names.
const MOST_TOLD: usize = 20;

/// Takes targets documents in, all or none, and signs the snapshot and the timestamp that list them. `expected` is the
/// version of the snapshot that they follow. Answers with the version of the new one.
///
/// # Errors
/// `METADATA_OUTDATED` when another was published meanwhile; `METADATA_INVALID` for documents that no device would believe
/// and for entries that are not as their releases; `OUT_OF_SCOPE` for a change to a package outside the caller's scope.
pub async fn publish_targets(
    app: &App,
    caller: &Caller,
    expected: u64,
    documents: &[(String, Vec<u8>)],
    now: DateTime<Utc>,
) -> Result<u64> {
    let mut tx = app.pool.begin().await?;
    db::trust_metadata::lock(&mut tx).await?;
    let before = repository::load(&mut tx).await?;
    let current = before.versions().snapshot;
    if current != expected {
        return Err(outdated(format!(
            "the newest snapshot is version {current}, not {expected}: read it and sign again"
        )));
    }
    let keys = app.keys.signing(&mut tx).await?;
    let after = image::publish(&before, documents, now, repository::online(&keys)).map_err(refused)?;

    let (old, new) = (entries(&before), entries(&after));
    let added: Vec<&Target> = new
        .iter()
        .filter(|(path, target)| old.get(*path).is_none_or(|old| !same(old, target)))
        .map(|(_, t)| *t)
        .collect();
    let removed: Vec<&Target> = old.iter().filter(|(path, _)| !new.contains_key(*path)).map(|(_, t)| *t).collect();
    // What changes is held against the caller's scope by all its members, a raised floor too.
    let changed = |one: &BTreeMap<&str, &Target>, other: &BTreeMap<&str, &Target>| {
        let differs = |(path, target): &(&&str, &&Target)| other.get(**path) != Some(*target);
        one.iter().filter(differs).map(|(_, target)| target.custom.package.clone()).collect::<Vec<_>>()
    };
    scope::may_publish(caller, changed(&old, &new).iter().chain(&changed(&new, &old)))?;
    check(&mut tx, &added).await?;
    db::release::mark_signed(&mut tx, &customs(&added), now).await?;
    db::release::mark_unsigned(&mut tx, &customs(&removed)).await?;

    repository::store(&mut tx, &before, &after, now).await?;
    let snapshot = after.versions().snapshot;
    let event = NewEvent::new(Kind::TargetsPublished, "metadata/image/targets")
        .detail("snapshot_version", snapshot)
        .detail("added", told(&added))
        .detail("removed", told(&removed));
    db::event::record(&mut tx, caller, event).await?;
    db::notify::events(&mut tx).await?;
    tx.commit().await?;
    Ok(snapshot)
}

/// Every entry, by path.
fn entries(repository: &Repository) -> BTreeMap<&str, &Target> {
    repository
        .targets_roles()
        .flat_map(|(_, list)| list.targets.iter().map(|(path, target)| (path.as_str(), target)))
        .collect()
}

/// Whether two entries list the same release. Its package's floor is not the release's.
fn same(one: &Target, other: &Target) -> bool {
    let custom = Custom { floor: other.custom.floor, ..one.custom.clone() };
    (one.length, one.sha256, &custom) == (other.length, other.sha256, &other.custom)
}

fn customs<'a>(targets: &[&'a Target]) -> Vec<&'a Custom> {
    targets.iter().map(|target| &target.custom).collect()
}

/// Every entry is as its release is. A release's payload is there, so an entry's bytes are too.
async fn check(connection: &mut PgConnection, targets: &[&Target]) -> Result<()> {
    let releases = db::release::listed(connection, &customs(targets)).await?;
    let releases: HashMap<_, _> =
        releases.iter().map(|release| ((&release.package, &release.version), release)).collect();
    let mut faults = Vec::new();
    for target in targets {
        let custom = &target.custom;
        let fault = match releases.get(&(&custom.package, &custom.version)) {
            None => Some("there is no such release"),
            Some(release) => disagreement(release, target),
        };
        faults.extend(fault.map(|fault| format!("{}: {fault}", target.path())));
    }
    if faults.is_empty() {
        return Ok(());
    }
    let more = faults.len().saturating_sub(MOST_TOLD);
    faults.truncate(MOST_TOLD);
    let more = if more == 0 { String::new() } else { format!("; and {more} more") };
    Err(invalid(format!("{}{more}", faults.join("; "))))
}

fn disagreement(release: &Listed, target: &Target) -> Option<&'static str> {
    let custom = &target.custom;
    [
        (release.payload.sha256 == target.sha256, "its SHA-256 is another than the release's"),
        (release.payload.size_bytes == target.length, "its length is another than the release's"),
        (release.counter == custom.release_counter, "its counter is another than the release's"),
        (release.hardware == custom.hardware, "its hardware is another than the release's"),
        (release.installer == custom.installer, "its installer is another than the release's"),
        (release.unpacked_size_bytes == custom.unpacked_size_bytes, "its unpacked size is another than the release's"),
    ]
    .into_iter()
    .find_map(|(agrees, fault)| (!agrees).then_some(fault))
}

/// Names entries, the first of them when they are many.
fn told(targets: &[&Target]) -> String {
    let named: Vec<String> = targets.iter().take(MOST_TOLD).map(|target| target.path()).collect();
    match targets.len().saturating_sub(MOST_TOLD) {
        0 => named.join(", "),
        more => format!("{} and {more} more", named.join(", ")),
    }
}
