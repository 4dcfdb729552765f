//! Changes to folders that survive a power cut: each returns only when the change is on disk.
//!
//! A name is never seen half-written: content goes to a temporary name, is synced, and takes its name by a rename that
//! is synced too. A sync that fails counts as lost data and is never tried again as if it had worked.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Writes a file under its name in one go, replacing what was there.
pub fn write(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let temporary = temporary(path);
    remove(&temporary)?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
    let written = file.write_all(content).and_then(|()| file.sync_all());
    if let Err(error) = written {
        // What could not be written must not take the space that was missing. The first error is the one to tell.
        fs::remove_file(&temporary).ok();
        return Err(error);
    }
    rename(&temporary, path)
}

/// Points the symbolic link `path` at `target` in one step, whether or not it existed.
pub fn link(target: &Path, path: &Path) -> io::Result<()> {
    let temporary = temporary(path);
    remove(&temporary)?;
    std::os::unix::fs::symlink(target, &temporary)?;
    rename(&temporary, path)
}

/// Gives a file or folder another name in the same file system.
pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    sync_parent(to)
}

/// Removes a file or link. One that does not exist is as good as removed.
pub fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Ok(()) => sync_parent(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Removes a folder with all that is in it. One that does not exist is as good as removed.
pub fn remove_tree(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Ok(()) => sync_parent(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Makes a folder and those above it.
pub fn create_folder(path: &Path) -> io::Result<()> {
    if path.as_os_str().is_empty() || path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        create_folder(parent)?;
    }
    fs::create_dir(path)?;
    sync_parent(path)
}

fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) | None => Path::new("."),
    };
    File::open(parent)?.sync_all()
}

fn temporary(path: &Path) -> PathBuf {
    path.with_added_extension("tmp")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_made_along_relative_paths_too() {
        create_folder(Path::new("")).unwrap();
        create_folder(Path::new("src")).unwrap();
        let folder = tempfile::tempdir_in(".").unwrap();
        let relative = Path::new(folder.path().file_name().unwrap()).join("a/b");
        create_folder(&relative).unwrap();
        assert!(relative.is_dir());
    }

    #[test]
    fn a_leftover_of_an_interrupted_write_is_no_hindrance() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(folder.path().join("file.tmp"), b"torn").unwrap();
        write(&path, b"whole", 0o600).unwrap();
        std::os::unix::fs::symlink("nowhere", folder.path().join("link.tmp")).unwrap();
        link(Path::new("file"), &folder.path().join("link")).unwrap();
        assert_eq!(fs::read(folder.path().join("link")).unwrap(), b"whole");
    }
}
