//! Folders to upload, and what is left of them on a device.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use ota_domain::Sha256Digest;
use sha2::{Digest as _, Sha256};

/// What a test compares of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// SHA-256 of its content.
    pub sha256: Sha256Digest,
    /// Whether its owner may run it.
    pub executable: bool,
}

/// Reads all files beneath a folder, by their path. A symbolic link counts as a file with its target in it.
///
/// # Panics
/// When something cannot be read.
#[must_use]
pub fn read(folder: &Path) -> BTreeMap<PathBuf, Entry> {
    let mut entries = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(current) = folders.pop() {
        for entry in fs::read_dir(&current).unwrap_or_else(|error| panic!("{}: {error}", current.display())) {
            let path = entry.expect("an entry of a folder").path();
            let metadata = fs::symlink_metadata(&path).expect("an entry's metadata");
            if metadata.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(folder).expect("a path beneath the folder").to_owned();
                let executable = metadata.is_file() && metadata.permissions().mode() & 0o100 != 0;
                entries.insert(name, Entry { sha256: hash(&path, &metadata), executable });
            }
        }
    }
    entries
}

fn hash(path: &Path, metadata: &fs::Metadata) -> Sha256Digest {
    if metadata.is_symlink() {
        let target = fs::read_link(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        return Sha256Digest(Sha256::digest(target.as_os_str().as_encoded_bytes()).into());
    }
    let mut file = fs::File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut hasher = Sha256::new();
    std::io::copy(&mut file, &mut Hasher(&mut hasher)).expect("a file can be read");
    Sha256Digest(hasher.finalize().into())
}

struct Hasher<'a>(&'a mut Sha256);

impl std::io::Write for Hasher<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Writes a file, with the folders above it.
///
/// # Panics
/// When that does not work.
pub fn write(path: &Path, content: &[u8], mode: u32) {
    fs::create_dir_all(path.parent().expect("a file lies in a folder")).expect("a folder can be made");
    fs::write(path, content).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("a file's mode can be set");
}
