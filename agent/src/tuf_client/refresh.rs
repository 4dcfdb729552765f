//! What is fetched when, as TUF (5.3 to 5.6) has it. Each document is kept as soon as it is verified, so that a fault in a
//! later one takes nothing back.

use anyhow::Context as _;
use chrono::{DateTime, Utc};
use ota_trust::metadata::Role;
use ota_trust::verify::MAX_ROOT_STEPS;
use ota_trust::verify::chain::{MAX_VISITED, Search, TargetFile};

use super::escape;
use super::folder::Folder;
use super::mirror::Mirror;

/// Brings root, timestamp, snapshot and the top of the targets up to date.
pub(super) async fn refresh(folder: &mut Folder, mirror: &Mirror, now: DateTime<Utc>) -> anyhow::Result<()> {
    follow_roots(folder, mirror).await?;
    let timestamp = need(mirror, "timestamp.json", Role::Timestamp).await?;
    folder.change(|chain| chain.update_timestamp(&timestamp, now))?;
    if !folder.chain().has_snapshot(now) {
        let name = file(folder, "snapshot", folder.chain().snapshot_version());
        let snapshot = need(mirror, &name, Role::Snapshot).await?;
        folder.change(|chain| chain.update_snapshot(&snapshot, now))?;
    }
    if !folder.chain().has_targets(now) {
        let name = file(folder, "targets", folder.chain().listed_version("targets"));
        let targets = need(mirror, &name, Role::Targets).await?;
        folder.change(|chain| chain.update_targets(&targets, now))?;
    }
    folder.chain().check(now)?;
    Ok(())
}

/// Finds what the repository says of a path, along its delegations.
pub(super) async fn find(
    folder: &mut Folder,
    mirror: &Mirror,
    path: &str,
    now: DateTime<Utc>,
) -> anyhow::Result<TargetFile> {
    // A role may be asked for twice when two delegate to it, but a mirror cannot keep this going.
    for _ in 0..=MAX_VISITED {
        let (role, delegator) = match folder.chain().search(path, now)? {
            Search::Found(file) => return Ok(file),
            Search::Absent => anyhow::bail!("the repository does not list {path}"),
            Search::Needs { role, delegator } => (role, delegator),
        };
        let name = file(folder, &role, folder.chain().listed_version(&role));
        let targets = need(mirror, &name, Role::Targets).await?;
        folder.change(|chain| chain.update_delegated(&role, &delegator, &targets, now))?;
    }
    anyhow::bail!("the delegations of {path} do not end")
}

async fn follow_roots(folder: &mut Folder, mirror: &Mirror) -> anyhow::Result<()> {
    for _ in 0..MAX_ROOT_STEPS {
        let name = format!("{}.root.json", folder.chain().root_version().saturating_add(1));
        let Some(root) = mirror.metadata(&name, Role::Root.max_bytes()).await? else { return Ok(()) };
        folder.change(|chain| chain.update_root(&root))?;
    }
    anyhow::bail!("more than {MAX_ROOT_STEPS} roots")
}

async fn need(mirror: &Mirror, name: &str, role: Role) -> anyhow::Result<Vec<u8>> {
    mirror.metadata(name, role.max_bytes()).await?.with_context(|| format!("the mirror does not have {name}"))
}

/// Where a role's document is. Only with consistent snapshots its name says the version.
fn file(folder: &Folder, role: &str, version: Option<u64>) -> String {
    let role = escape(role);
    match version.filter(|_| folder.chain().is_consistent()) {
        Some(version) => format!("{version}.{role}.json"),
        None => format!("{role}.json"),
    }
}
