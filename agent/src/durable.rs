//! Changes to folders that survive a power cut: each returns only when the change is on disk.
//!
//! A name is never seen half-written: content goes to a temporary name, is synced, and takes its name by a rename that
//! is synced too. A sync that fails counts as lost data and is never tried again as if it had worked.

pub(crate) mod disk;
#[cfg(test)]
pub(crate) mod model;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use disk::{Disk, SystemDisk};

/// Writes a file under its name in one go, replacing what was there.
pub fn write(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    write_on(&SystemDisk, path, content, mode)
}

/// Writes a file under its name in one go to this disk.
pub(crate) fn write_on<D: Disk>(disk: &D, path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let temporary = temporary(path);
    remove_on(disk, &temporary)?;
    let mut file = disk.create(&temporary, mode)?;
    let written = disk.fill(&mut file, content).and_then(|()| disk.sync(&file));
    if let Err(error) = written {
        // What could not be written must not take the space that was missing. The first error is the one to tell.
        disk.unlink(&temporary).ok();
        return Err(error);
    }
    rename_on(disk, &temporary, path)
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
    rename_on(&SystemDisk, from, to)
}

fn rename_on<D: Disk>(disk: &D, from: &Path, to: &Path) -> io::Result<()> {
    disk.rename(from, to)?;
    disk.sync_folder(parent(to))
}

/// Removes a file or link. One that does not exist is as good as removed.
pub fn remove(path: &Path) -> io::Result<()> {
    remove_on(&SystemDisk, path)
}

fn remove_on<D: Disk>(disk: &D, path: &Path) -> io::Result<()> {
    match disk.unlink(path) {
        Ok(()) => disk.sync_folder(parent(path)),
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
    SystemDisk.sync_folder(parent(path))
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) | None => Path::new("."),
    }
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
