//! What the client trusts, on disk.
//!
//! The truth is in two copies (`trust/a`, `trust/b`), kept as the agent keeps what it trusts. Beside them lie the documents
//! under their plain names (`timestamp.json`), for whoever wants to look: they are written after the truth, and never read.

use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use ota_trust::verify::Chain;

use super::escape;
use crate::durable;
use crate::durable::disk::SystemDisk;
use crate::trust_store::{self, Copies};

/// A folder that keeps what is trusted of one repository.
pub(super) struct Folder {
    path: PathBuf,
    copies: Copies<SystemDisk>,
    chain: Chain,
}

impl Folder {
    /// Begins to trust a root. A folder that trusts one already is left alone: to begin afresh would be a way back to what
    /// it has left behind.
    pub(super) fn begin(path: &Path, root: &[u8]) -> anyhow::Result<()> {
        let chain = Chain::from_root(root).context("this is no root that signs itself")?;
        let store = trust_store::folder(path);
        anyhow::ensure!(!store.exists(), "{} trusts a root already", path.display());
        durable::create_folder(&store).with_context(|| format!("cannot make {}", store.display()))?;
        let (copies, _) = open_copies(path)?;
        let mut folder = Self { path: path.to_owned(), copies, chain };
        folder.keep()
    }

    /// Reads what is trusted. When neither copy is whole, nothing is.
    pub(super) fn open(path: &Path) -> anyhow::Result<Self> {
        let (copies, kept) = open_copies(path)?;
        let kept = kept.with_context(|| format!("what {} trusted is damaged or gone", path.display()))?;
        let chain = Chain::from_bytes(&kept)?;
        let folder = Self { path: path.to_owned(), copies, chain };
        folder.show()?;
        Ok(folder)
    }

    /// What is trusted.
    pub(super) fn chain(&self) -> &Chain {
        &self.chain
    }

    /// Changes what is trusted, and keeps it. Without a change nothing is written.
    pub(super) fn change<T>(
        &mut self,
        change: impl FnOnce(&mut Chain) -> Result<T, ota_trust::TrustError>,
    ) -> anyhow::Result<T> {
        let mut chain = self.chain.clone();
        let outcome = change(&mut chain)?;
        self.chain = chain;
        self.keep()?;
        Ok(outcome)
    }

    fn keep(&mut self) -> anyhow::Result<()> {
        let kept = self.copies.replace(&self.chain.to_bytes());
        kept.with_context(|| format!("cannot keep what {} trusts", self.path.display()))?;
        self.show()
    }

    /// Writes the documents under their plain names, and takes away those that the root no longer vouches for.
    fn show(&self) -> anyhow::Result<()> {
        let shown = || -> io::Result<()> {
            for (role, bytes) in self.chain.documents() {
                let path = self.plain(role);
                if std::fs::read(&path).ok().as_deref() != Some(bytes) {
                    durable::write(&path, bytes, 0o644)?;
                }
            }
            let missing = ["timestamp", "snapshot"].into_iter().filter(|role| self.chain.bytes(role).is_none());
            missing.map(|role| self.plain(role)).try_for_each(|path| durable::remove(&path))
        };
        shown().with_context(|| format!("cannot write the documents to {}", self.path.display()))
    }

    fn plain(&self, role: &str) -> PathBuf {
        self.path.join(format!("{}.json", escape(role)))
    }
}

fn open_copies(path: &Path) -> anyhow::Result<(Copies<SystemDisk>, Option<Vec<u8>>)> {
    let store = trust_store::folder(path);
    Copies::open(SystemDisk, &store).with_context(|| format!("cannot read {}", store.display()))
}

#[cfg(test)]
mod tests {
    use chrono::{TimeDelta, Utc};
    use ota_trust::key::{PrivateKey, Signer as _};
    use ota_trust::metadata::{Mode, Role, Root, sign};

    use super::*;

    fn root() -> Vec<u8> {
        let key = PrivateKey::generate().unwrap();
        let public = key.public_key();
        let roles = Role::ALL.map(|role| (role, [public]));
        let roles: Vec<_> = roles.iter().map(|(role, keys)| (*role, keys.as_slice())).collect();
        sign(&Root::first(Mode::Adopted, Utc::now() + TimeDelta::days(1), &roles), &[&key]).unwrap()
    }

    #[test]
    fn a_folder_that_trusts_a_root_does_not_begin_afresh() {
        let folder = tempfile::tempdir().unwrap();
        let root = root();
        Folder::begin(folder.path(), &root).unwrap();
        Folder::begin(folder.path(), &root).unwrap_err();
        assert_eq!(Folder::open(folder.path()).unwrap().chain().root_bytes(), root);
    }

    #[test]
    fn damage_to_one_copy_and_to_what_is_shown_is_mended_and_to_both_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let root = root();
        Folder::begin(folder.path(), &root).unwrap();
        std::fs::write(folder.path().join("trust/a"), b"").unwrap();
        std::fs::write(folder.path().join("root.json"), b"").unwrap();
        Folder::open(folder.path()).unwrap();
        assert_eq!(std::fs::read(folder.path().join("root.json")).unwrap(), root);
        std::fs::write(folder.path().join("trust/a"), b"").unwrap();
        std::fs::write(folder.path().join("trust/b"), b"").unwrap();
        assert!(Folder::open(folder.path()).is_err());
        Folder::begin(folder.path(), &root).unwrap_err();
    }
}
