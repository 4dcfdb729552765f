//! Releases whose every file says which version it belongs to, with hooks that kill the agent when they are told to.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use ota_e2e::{Operator, process::AgentProcess, tree};
use ota_proto::admin::v1::{Installer, Release};

/// What is ordered together.
pub(super) const PACKAGES: [&str; 2] = ["app", "lib"];

const FILES: usize = 40;
const FILE_BYTES: usize = 8 * 1024;
const HOOKS: [&str; 3] = ["stop", "start", "health"];

/// The trees of all versions, as they should be.
pub(super) struct Trees {
    scratch: PathBuf,
}

impl Trees {
    pub(super) fn new(scratch: &Path) -> Self {
        Self { scratch: scratch.to_owned() }
    }

    fn folder(&self, package: &str, version: u32) -> PathBuf {
        self.scratch.join(format!("{package}-{version}"))
    }

    fn trap(&self, hook: &str) -> PathBuf {
        self.scratch.join(format!("kill-{hook}"))
    }

    /// Makes the next run of a hook kill the agent.
    pub(super) fn arm(&self, hook: &str) {
        fs::write(self.trap(hook), "").expect("a file in the scratch folder");
    }

    /// Lets all hooks be.
    pub(super) fn disarm(&self) {
        for hook in HOOKS {
            // Most were not armed, or went off.
            fs::remove_file(self.trap(hook)).ok();
        }
    }

    /// Publishes a version of a package.
    pub(super) async fn publish(&self, admin: &Operator, package: &str, version: u32) -> Release {
        let folder = self.folder(package, version);
        for number in 0..FILES {
            // Every third file is there in every other version only.
            if !number.is_multiple_of(3) || (number + version as usize).is_multiple_of(2) {
                let line = format!("{package} {version} {number}\n");
                let content = line.repeat(FILE_BYTES / line.len());
                tree::write(&folder.join(format!("share/{}/{number}", number % 4)), content.as_bytes(), 0o644);
            }
        }
        for hook in HOOKS {
            let trap = self.trap(hook);
            let script =
                format!("#!/bin/sh\n# {version}\nif rm {} 2>/dev/null; then kill -9 $PPID; fi\n", trap.display());
            tree::write(&folder.join("ota/hooks").join(hook), script.as_bytes(), 0o755);
        }
        let archive = archive(&folder).expect("a folder that was just written");
        let payload = format!("payloads/{}", admin.upload(&archive).await);
        let release = Release { installer: Installer::Directory.into(), payload, ..Default::default() };
        admin.create_release(package, &format!("{version}.0.0"), release).await.expect("a release")
    }

    /// Whether a device runs this version of a package: every file of it, and nothing else.
    pub(super) fn runs(&self, agent: &AgentProcess, package: &str, version: u32) -> bool {
        let current = agent.current(package);
        current.exists() && tree::read(&current) == tree::read(&self.folder(package, version))
    }
}

fn archive(folder: &Path) -> io::Result<Bytes> {
    let mut archive = tar::Builder::new(Vec::new());
    for path in tree::read(folder).into_keys() {
        archive.append_path_with_name(folder.join(&path), &path)?;
    }
    Ok(archive.into_inner()?.into())
}

/// Counts the files beneath a folder that is being written and may go at any time.
pub(super) fn count_files(folder: &Path) -> usize {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| if entry.path().is_dir() { count_files(&entry.path()) } else { 1 }).sum()
}
