//! The verifiers, each fed in the order of TUF 5.

use chrono::{DateTime, Utc};
use ota_trust::Repository;
use serde::de::DeserializeOwned;
use tough::schema::{Metafile, Role, Root, Signed, Snapshot, Targets, Timestamp};

use crate::corpus::Case;

/// Our verdict.
pub(crate) fn ours(case: &Case) -> Result<(), String> {
    let said = |error: ota_trust::TrustError| error.to_string();
    let mut repository = Repository::from_root(&case.roots[0].0).map_err(said)?;
    for root in &case.roots[1..] {
        repository.update_root(&root.0).map_err(said)?;
    }
    repository.update_timestamp(&case.timestamp.0, case.now).map_err(said)?;
    repository.update_snapshot(&case.snapshot.0, case.now).map_err(said)?;
    repository.update_targets(&case.targets.0, case.now).map_err(said)?;
    if let Some((role, bin)) = &case.bin {
        repository.update_bin(role, &bin.0, case.now).map_err(said)?;
    }
    repository.check(case.now).map_err(said)
}

/// The verdict of `tough`: its schema and its checks of signatures, in the order and with the comparisons of its loader.
pub(crate) fn tough(case: &Case) -> Result<(), String> {
    let mut root: Signed<Root> = parse(&case.roots[0].0)?;
    root.signed.verify_role(&root).map_err(|error| error.to_string())?;
    for bytes in &case.roots[1..] {
        let next: Signed<Root> = parse(&bytes.0)?;
        root.signed.verify_role(&next).map_err(|error| error.to_string())?;
        next.signed.verify_role(&next).map_err(|error| error.to_string())?;
        if next.signed.version.get() != root.signed.version.get() + 1 {
            return Err("another version of root".to_owned());
        }
        root = next;
    }
    fresh(&root.signed, case.now)?;
    let timestamp: Signed<Timestamp> = parse(&case.timestamp.0)?;
    root.signed.verify_role(&timestamp).map_err(|error| error.to_string())?;
    fresh(&timestamp.signed, case.now)?;
    let pin = timestamp.signed.meta.get("snapshot.json").ok_or("no snapshot")?;
    let snapshot: Signed<Snapshot> = pinned(pin, &case.snapshot.0)?;
    root.signed.verify_role(&snapshot).map_err(|error| error.to_string())?;
    fresh(&snapshot.signed, case.now)?;
    let pin = snapshot.signed.meta.get("targets.json").ok_or("no targets")?;
    let targets: Signed<Targets> = pinned(pin, &case.targets.0)?;
    root.signed.verify_role(&targets).map_err(|error| error.to_string())?;
    fresh(&targets.signed, case.now)?;
    if let Some((role, bytes)) = &case.bin {
        let pin = snapshot.signed.meta.get(&format!("{role}.json")).ok_or("no bin")?;
        let bin: Signed<Targets> = pinned(pin, &bytes.0)?;
        let delegations = targets.signed.delegations.as_ref().ok_or("no delegations")?;
        delegations.verify_role(&bin, role).map_err(|error| error.to_string())?;
        fresh(&bin.signed, case.now)?;
    }
    Ok(())
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    serde_json::from_slice(bytes).map_err(|error| error.to_string())
}

fn pinned<T: Role + DeserializeOwned>(pin: &Metafile, bytes: &[u8]) -> Result<Signed<T>, String> {
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    if pin.hashes.as_ref().is_some_and(|hashes| &*hashes.sha256 != hash.as_ref()) {
        return Err("another hash".to_owned());
    }
    // A limit of the download, not an equality.
    if pin.length.is_some_and(|length| bytes.len() as u64 > length) {
        return Err("too long".to_owned());
    }
    let role: Signed<T> = parse(bytes)?;
    if role.signed.version() == pin.version { Ok(role) } else { Err("another version".to_owned()) }
}

fn fresh<T: Role>(role: &T, now: DateTime<Utc>) -> Result<(), String> {
    let now = jiff::Timestamp::from_second(now.timestamp()).unwrap();
    if now <= role.expires() { Ok(()) } else { Err(format!("expired at {}", role.expires())) }
}
