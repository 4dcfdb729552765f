//! What is kept of a repository that was verified: one file, replaced as a whole.

use std::{
    collections::BTreeMap,
    fs::{DirBuilder, File},
    io::{self, Write},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use ota_trust::Repository;
use serde::{Deserialize, Serialize};

use crate::error::Failure;

/// Most bytes of the file: a hundred thousand releases take around 25 MB.
const MAX_BYTES: u64 = 256 << 20;

/// The folder of one context. Locked for as long as this lives.
#[derive(Debug)]
pub(super) struct Store {
    path: PathBuf,
    folder: PathBuf,
    _lock: File,
}

/// The file. The documents are JSON themselves and are kept letter by letter.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    root: String,
    timestamp: Option<String>,
    snapshot: Option<String>,
    targets: BTreeMap<String, String>,
}

impl Store {
    /// Opens the folder, waiting until no other run of otactl works with it. `name` is that of the repository.
    pub(super) fn open(folder: &Path, name: &str) -> Result<Self, Failure> {
        let open = || -> io::Result<File> {
            DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
            let lock =
                File::options().create(true).truncate(false).write(true).open(folder.join(format!("{name}.lock")))?;
            lock.lock()?;
            Ok(lock)
        };
        let lock = open().map_err(|error| Failure::because(format!("cannot use {}", folder.display()), &error))?;
        Ok(Self { path: folder.join(format!("{name}.json")), folder: folder.to_owned(), _lock: lock })
    }

    /// Reads what was kept, and verifies it again. `None` when nothing was.
    pub(super) fn load(&self) -> Result<Option<Repository>, Failure> {
        let text = match File::open(&self.path) {
            Ok(file) => io::read_to_string(io::Read::take(file, MAX_BYTES)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => Err(error),
        };
        let text = text.map_err(|error| Failure::because(format!("cannot read {}", self.path.display()), &error))?;
        let kept: Kept = serde_json::from_str(&text).map_err(|_| self.damaged("it is no list of documents"))?;
        let targets = kept.targets.iter().map(|(role, document)| (role.as_str(), document.as_bytes()));
        let (timestamp, snapshot) = (kept.timestamp.as_deref(), kept.snapshot.as_deref());
        Repository::restore(kept.root.as_bytes(), timestamp.map(str::as_bytes), snapshot.map(str::as_bytes), targets)
            .map(Some)
            .map_err(|error| self.damaged(&error.message))
    }

    /// Keeps a repository. A crash leaves the old file or the new one.
    pub(super) fn save(&self, repository: &Repository) -> Result<(), Failure> {
        let text = |role: &str| repository.bytes(role).map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        let targets = repository.targets_roles().filter_map(|(role, _)| Some((role.to_owned(), text(role)?)));
        let kept = Kept {
            root: text("root").unwrap_or_default(),
            timestamp: text("timestamp"),
            snapshot: text("snapshot"),
            targets: targets.collect(),
        };
        let write = || -> io::Result<()> {
            let mut file = tempfile::NamedTempFile::new_in(&self.folder)?;
            serde_json::to_writer(&mut file, &kept)?;
            file.flush()?;
            file.as_file().sync_all()?;
            file.persist(&self.path)?;
            File::open(&self.folder)?.sync_all()
        };
        write().map_err(|error| Failure::because(format!("cannot write {}", self.path.display()), &error))
    }

    fn damaged(&self, reason: &str) -> Failure {
        let shown = self.path.display();
        // Kept as it is: who decides to go on without it should know that they do.
        Failure::failed(format!("{shown} is damaged: {reason}")).hint(format!(
            "delete {shown} to start anew from what the server shows; then an older list than you saw before is not noticed"
        ))
    }
}

#[cfg(test)]
mod tests {
    use chrono::{DateTime, Utc};
    use ota_trust::{
        image::{OnlineKeys, create},
        key::{PrivateKey, Signer},
        metadata::{Mode, Role, Root, sign},
    };

    use std::fs;

    use super::*;

    fn repository() -> Repository {
        let now: DateTime<Utc> = "2026-11-21T12:00:00Z".parse().unwrap();
        let key = PrivateKey::generate().unwrap();
        let public = [key.public_key()];
        let roles = Role::ALL.map(|role| (role, public.as_slice()));
        let root = sign(&Root::first(Mode::Managed, now + Role::Root.lifetime(), &roles), &[&key]).unwrap();
        create(&root, now, &[&key], OnlineKeys { snapshot: &key, timestamp: &key }).unwrap()
    }

    #[test]
    fn what_was_kept_is_what_is_trusted_later() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("trust/default");
        let repository = repository();
        let store = Store::open(&path, "image").unwrap();
        assert!(store.load().unwrap().is_none());
        store.save(&repository).unwrap();
        drop(store);
        let loaded = Store::open(&path, "image").unwrap().load().unwrap().unwrap();
        assert_eq!(loaded.versions(), repository.versions());
        for role in ["root", "timestamp", "snapshot", "targets"] {
            assert_eq!(loaded.bytes(role), repository.bytes(role), "{role}");
        }
    }

    #[test]
    fn a_changed_file_is_refused_and_not_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), "image").unwrap();
        store.save(&repository()).unwrap();
        let file = folder.path().join("image.json");
        let whole = fs::read_to_string(&file).unwrap();
        for changed in [whole.replace("managed", "adopted"), whole[..whole.len() / 2].to_owned(), String::new()] {
            fs::write(&file, changed).unwrap();
            let failure = store.load().unwrap_err();
            assert!(failure.to_string().contains("image.json is damaged"), "{failure}");
            assert!(file.exists());
        }
    }
}
