//! The releases of one package on disk, and which of them runs.
//!
//! ```text
//! packages/<package>/current  -> releases/<sha256>      what runs
//!                    previous -> releases/<sha256>      what ran before, kept for going back
//!                    older    -> releases/<sha256>      only during a trial: what `previous` was before it
//!                    releases/<sha256>/                 an unpacked release, named by its payload
//!                    releases/<sha256>.json             what that release is
//!                    releases/<sha256>.trust            the signed metadata it was switched to under
//!                    releases/.part-<sha256>[.crc]      a payload on its way
//!                    releases/.tmp-<sha256>/            a tree that is being made
//!                    logs/<hook>.log                    what the last run of a hook wrote
//! ```
//! The links are the only truth of what runs: no second record exists that could disagree. Every change here may be
//! made twice, survives a power cut when it returns, and leaves old or new, never neither.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use ota_domain::{PackageName, Sha256Digest};
use serde::{Deserialize, Serialize};

use crate::durable;
use crate::release::Release;
use crate::tree::Tree;

/// What is written beside an unpacked release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The release.
    pub release: Release,
    /// Digest of its tree, to tell after a crash whether the tree is whole.
    pub tree_sha256: Sha256Digest,
    /// When it was unpacked.
    pub installed_at: DateTime<Utc>,
}

/// One package's folder.
#[derive(Debug, Clone)]
pub struct Releases {
    root: PathBuf,
}

/// Returns all packages that have a folder in a data directory.
pub fn packages(data: &Path) -> io::Result<Vec<PackageName>> {
    let entries = match fs::read_dir(data.join("packages")) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut packages = Vec::new();
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir()
            && let Some(package) = entry.file_name().to_str().and_then(|name| name.parse().ok())
        {
            packages.push(package);
        }
    }
    packages.sort();
    Ok(packages)
}

/// Returns what runs of all packages, read from the links.
pub fn running(data: &Path) -> io::Result<Vec<Release>> {
    let mut running = Vec::new();
    for package in packages(data)? {
        running.extend(Releases::new(data, &package).current_release()?);
    }
    Ok(running)
}

impl Releases {
    /// Names the folder of a package. Nothing is created.
    pub fn new(data: &Path, package: &PackageName) -> Self {
        Self { root: data.join("packages").join(package.as_str()) }
    }

    /// Creates the folders that downloads and hooks write to.
    pub fn create(&self) -> io::Result<()> {
        durable::create_folder(&self.root.join("releases"))?;
        durable::create_folder(&self.root.join("logs"))
    }

    /// Returns the folder of all releases.
    pub fn folder(&self) -> PathBuf {
        self.root.join("releases")
    }

    /// Returns the folder of one unpacked release.
    pub fn tree(&self, payload: Sha256Digest) -> PathBuf {
        self.folder().join(payload.to_string())
    }

    /// Returns where a tree is being made.
    pub fn unfinished_tree(&self, payload: Sha256Digest) -> PathBuf {
        self.folder().join(format!(".tmp-{payload}"))
    }

    /// Returns where a payload is collected.
    pub fn part(&self, payload: Sha256Digest) -> PathBuf {
        self.folder().join(format!(".part-{payload}"))
    }

    /// Returns where the checksums of a collected payload's blocks are.
    pub fn part_checksums(&self, payload: Sha256Digest) -> PathBuf {
        self.folder().join(format!(".part-{payload}.crc"))
    }

    /// Returns where a hook's output goes.
    pub fn log(&self, hook: &str) -> PathBuf {
        self.root.join("logs").join(format!("{hook}.log"))
    }

    fn record_path(&self, payload: Sha256Digest) -> PathBuf {
        self.folder().join(format!("{payload}.json"))
    }

    fn metadata_path(&self, payload: Sha256Digest) -> PathBuf {
        self.folder().join(format!("{payload}.trust"))
    }

    /// Keeps the signed metadata that allows a release, so that it can be told later why it runs.
    pub fn keep_metadata(&self, payload: Sha256Digest, metadata: &[u8]) -> io::Result<()> {
        durable::write(&self.metadata_path(payload), metadata, 0o644)
    }

    /// Returns what a release on disk is, `None` when there is no readable record of it.
    pub fn record(&self, payload: Sha256Digest) -> io::Result<Option<Record>> {
        match fs::read(self.record_path(payload)) {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Takes in a finished tree under its name. The tree must be synced.
    pub fn add(&self, record: &Record) -> io::Result<()> {
        let payload = record.release.payload.sha256;
        durable::write(&self.record_path(payload), &serde_json::to_vec_pretty(record)?, 0o644)?;
        durable::rename(&self.unfinished_tree(payload), &self.tree(payload))
    }

    /// Tells whether a release's tree is on disk as it was unpacked. Reads all of it.
    pub fn is_whole(&self, payload: Sha256Digest) -> io::Result<bool> {
        let Some(record) = self.record(payload)? else { return Ok(false) };
        if !self.tree(payload).is_dir() {
            return Ok(false);
        }
        match Tree::read(&self.tree(payload)) {
            Ok(tree) => Ok(tree.sha256() == record.tree_sha256),
            // A tree with something in it that was never unpacked is not whole.
            Err(error) if error.kind() == io::ErrorKind::InvalidData => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Deletes a release's tree and its record.
    pub fn remove(&self, payload: Sha256Digest) -> io::Result<()> {
        durable::remove_tree(&self.tree(payload))?;
        durable::remove(&self.metadata_path(payload))?;
        durable::remove(&self.record_path(payload))
    }

    /// Deletes what a download and an unfinished install left.
    pub fn remove_download(&self, payload: Sha256Digest) -> io::Result<()> {
        durable::remove_tree(&self.unfinished_tree(payload))?;
        durable::remove(&self.part(payload))?;
        durable::remove(&self.part_checksums(payload))
    }

    /// Returns the payload that `current` points at.
    pub fn current(&self) -> io::Result<Option<Sha256Digest>> {
        self.target("current")
    }

    /// Returns the payload that `previous` points at.
    pub fn previous(&self) -> io::Result<Option<Sha256Digest>> {
        self.target("previous")
    }

    /// Returns the release that runs.
    pub fn current_release(&self) -> io::Result<Option<Release>> {
        self.release_of(self.current()?)
    }

    /// Returns the release that ran before.
    pub fn previous_release(&self) -> io::Result<Option<Release>> {
        self.release_of(self.previous()?)
    }

    fn release_of(&self, payload: Option<Sha256Digest>) -> io::Result<Option<Release>> {
        let Some(payload) = payload else { return Ok(None) };
        Ok(self.record(payload)?.map(|record| record.release))
    }

    /// Makes `to` the current release and what was current the previous one.
    pub fn switch(&self, to: Sha256Digest) -> io::Result<()> {
        let current = self.current()?;
        if current == Some(to) {
            return Ok(());
        }
        if let Some(current) = current {
            let previous = self.previous()?;
            if previous != Some(current) {
                if let Some(previous) = previous {
                    self.point("older", previous)?;
                }
                self.point("previous", current)?;
            }
        }
        self.point("current", to)
    }

    /// Makes `to` the current release again after a switch away from it; `None` means that nothing ran before.
    pub fn switch_back(&self, to: Option<Sha256Digest>) -> io::Result<()> {
        match to {
            Some(to) => self.point("current", to)?,
            None => durable::remove(&self.root.join("current"))?,
        }
        match self.target("older")? {
            Some(older) => {
                self.point("previous", older)?;
                durable::remove(&self.root.join("older"))?;
            }
            None if self.previous()? == to => durable::remove(&self.root.join("previous"))?,
            None => {}
        }
        Ok(())
    }

    /// Deletes every release that is neither current nor previous, and what is left of downloads.
    pub fn collect_garbage(&self) -> io::Result<()> {
        durable::remove(&self.root.join("older"))?;
        let kept: BTreeSet<_> = [self.current()?, self.previous()?].into_iter().flatten().collect();
        let entries = match fs::read_dir(self.folder()) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let stem = name.strip_suffix(".json").or_else(|| name.strip_suffix(".trust")).unwrap_or(&name);
            let payload = stem.parse::<Sha256Digest>();
            if payload.is_ok_and(|payload| kept.contains(&payload)) {
                continue;
            }
            if entry.file_type()?.is_dir() {
                durable::remove_tree(&entry.path())?;
            } else {
                durable::remove(&entry.path())?;
            }
        }
        Ok(())
    }

    fn target(&self, link: &str) -> io::Result<Option<Sha256Digest>> {
        match fs::read_link(self.root.join(link)) {
            Ok(target) => {
                Ok(target.strip_prefix("releases").ok().and_then(Path::to_str).and_then(|name| name.parse().ok()))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn point(&self, link: &str, payload: Sha256Digest) -> io::Result<()> {
        durable::link(&Path::new("releases").join(payload.to_string()), &self.root.join(link))
    }
}

#[cfg(test)]
mod tests {
    use ota_domain::release::{Installer, Payload};

    use super::*;

    fn payload(number: u8) -> Sha256Digest {
        Sha256Digest([number; 32])
    }

    fn fixture() -> (tempfile::TempDir, Releases) {
        let data = tempfile::tempdir().unwrap();
        let releases = Releases::new(data.path(), &"app".parse().unwrap());
        releases.create().unwrap();
        (data, releases)
    }

    fn add(releases: &Releases, number: u8) {
        let tree = releases.unfinished_tree(payload(number));
        fs::create_dir(&tree).unwrap();
        fs::write(tree.join("file"), [number]).unwrap();
        let release = Release {
            package: "app".parse().unwrap(),
            version: format!("{number}.0.0").parse().unwrap(),
            payload: Payload { sha256: payload(number), size_bytes: 1 },
            release_counter: i64::from(number),
            installer: Installer::File,
        };
        let tree_sha256 = Tree::read(&tree).unwrap().sha256();
        releases.add(&Record { release, tree_sha256, installed_at: DateTime::UNIX_EPOCH }).unwrap();
    }

    fn links(releases: &Releases) -> (Option<u8>, Option<u8>) {
        let number = |payload: Option<Sha256Digest>| payload.map(|payload| payload.0[0]);
        (number(releases.current().unwrap()), number(releases.previous().unwrap()))
    }

    #[test]
    fn what_runs_is_read_from_the_link() {
        let (data, releases) = fixture();
        assert_eq!(running(data.path()).unwrap(), []);
        add(&releases, 1);
        assert_eq!(running(data.path()).unwrap(), [], "unpacked is not running");
        releases.switch(payload(1)).unwrap();
        assert_eq!(running(data.path()).unwrap()[0].version.to_string(), "1.0.0");
    }

    #[test]
    fn switching_and_going_back_can_be_done_twice() {
        let (_data, releases) = fixture();
        for number in 1..=3 {
            add(&releases, number);
        }
        for _ in 0..2 {
            releases.switch(payload(1)).unwrap();
        }
        assert_eq!(links(&releases), (Some(1), None));
        for _ in 0..2 {
            releases.switch(payload(2)).unwrap();
        }
        releases.collect_garbage().unwrap();
        assert_eq!(links(&releases), (Some(2), Some(1)));
        add(&releases, 3);
        releases.switch(payload(3)).unwrap();
        assert_eq!(links(&releases), (Some(3), Some(2)));
        for _ in 0..2 {
            releases.switch_back(Some(payload(2))).unwrap();
            assert_eq!(links(&releases), (Some(2), Some(1)), "also the one before is kept");
        }
    }

    #[test]
    fn going_back_from_the_first_release_leaves_nothing_running() {
        let (_data, releases) = fixture();
        add(&releases, 1);
        releases.switch(payload(1)).unwrap();
        for _ in 0..2 {
            releases.switch_back(None).unwrap();
            assert_eq!(links(&releases), (None, None));
        }
    }

    #[test]
    fn garbage_is_all_but_current_and_previous() {
        let (_data, releases) = fixture();
        for number in 1..=4 {
            add(&releases, number);
        }
        releases.switch(payload(1)).unwrap();
        releases.switch(payload(2)).unwrap();
        fs::write(releases.part(payload(9)), b"part").unwrap();
        for number in [1, 3] {
            releases.keep_metadata(payload(number), b"signed").unwrap();
        }
        fs::create_dir(releases.unfinished_tree(payload(8))).unwrap();
        for _ in 0..2 {
            releases.collect_garbage().unwrap();
        }
        let mut left: Vec<_> = fs::read_dir(releases.folder())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        let (one, two) = (payload(1).to_string(), payload(2).to_string());
        assert_eq!(
            left,
            [one.clone(), format!("{one}.json"), format!("{one}.trust"), two.clone(), format!("{two}.json")]
        );
    }

    #[test]
    fn a_changed_tree_is_not_whole() {
        let (_data, releases) = fixture();
        add(&releases, 1);
        assert!(releases.is_whole(payload(1)).unwrap());
        assert!(!releases.is_whole(payload(2)).unwrap());
        let file = releases.tree(payload(1)).join("file");
        fs::write(&file, b"").unwrap();
        assert!(!releases.is_whole(payload(1)).unwrap());
        fs::write(&file, [1]).unwrap();
        assert!(releases.is_whole(payload(1)).unwrap());
        std::os::unix::fs::symlink("/", releases.tree(payload(1)).join("link")).unwrap();
        assert!(!releases.is_whole(payload(1)).unwrap());
    }
}
