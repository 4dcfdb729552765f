//! Creates files and directories strictly beneath one directory, by descriptor, so that no path is ever resolved from
//! the root of the file system and no link is ever followed.

use std::cell::Cell;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode as Bits, OFlags, ResolveFlags, fchmod, mkdirat, openat, openat2};
use rustix::io::Errno;

use super::EntryPath;
use crate::tree::Mode;

const DIRECTORY: OFlags = OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// A directory that everything is created beneath.
pub(super) struct Beneath {
    root: OwnedFd,
    /// Cleared at the first sign that the kernel (before 5.6) or a sandbox does not know `openat2`.
    has_openat2: Cell<bool>,
}

impl Beneath {
    pub(super) fn new(root: OwnedFd) -> Self {
        Self { root, has_openat2: Cell::new(true) }
    }

    /// Creates a directory whose parent exists. It must not exist itself.
    pub(super) fn make_directory(&self, path: &EntryPath) -> io::Result<()> {
        let (parent, name) = path.split();
        let parent = self.open_directory(parent)?;
        mkdirat(&parent, name, Bits::RWXU)?;
        let made = openat(&parent, name, DIRECTORY, Bits::empty())?;
        // Not left to mkdirat, which the umask cuts.
        fchmod(&made, Mode::Executable.bits())?;
        Ok(())
    }

    /// Creates a file whose parent exists. It must not exist itself.
    pub(super) fn create_file(&self, path: &EntryPath, mode: Mode) -> io::Result<File> {
        let (parent, name) = path.split();
        let parent = self.open_directory(parent)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(&parent, name, flags, Bits::RUSR | Bits::WUSR)?;
        fchmod(&file, mode.bits())?;
        Ok(File::from(file))
    }

    fn open_directory(&self, path: &str) -> io::Result<OwnedFd> {
        if path.is_empty() {
            return self.root.try_clone();
        }
        if self.has_openat2.get() {
            match self.open_resolved(path) {
                Err(Errno::NOSYS | Errno::PERM) => self.has_openat2.set(false),
                other => return Ok(other?),
            }
        }
        self.open_stepwise(path)
    }

    /// One call in which the kernel promises to stay beneath.
    fn open_resolved(&self, path: &str) -> rustix::io::Result<OwnedFd> {
        let resolve =
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
        openat2(self.root.as_fd(), path, DIRECTORY, Bits::empty(), resolve)
    }

    /// The same promise on old kernels: every component opened by itself, without following links. `path` holds no
    /// `..`, which [`EntryPath`] has made sure of.
    fn open_stepwise(&self, path: &str) -> io::Result<OwnedFd> {
        let mut directory = self.root.try_clone()?;
        for component in path.split('/') {
            directory = openat(&directory, component, DIRECTORY, Bits::empty())?;
        }
        Ok(directory)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fixture() -> (tempfile::TempDir, Beneath) {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("root/a/b")).unwrap();
        std::os::unix::fs::symlink(folder.path(), folder.path().join("root/a/out")).unwrap();
        let root = File::open(folder.path().join("root")).unwrap();
        (folder, Beneath::new(root.into()))
    }

    fn path(text: &str) -> EntryPath {
        EntryPath::parse(text.as_bytes()).unwrap().unwrap()
    }

    #[test]
    fn both_ways_of_opening_refuse_to_pass_through_a_link() {
        for has_openat2 in [true, false] {
            let (folder, beneath) = fixture();
            beneath.has_openat2.set(has_openat2);
            beneath.create_file(&path("a/b/fine"), Mode::Plain).unwrap();
            beneath.create_file(&path("a/out/bad"), Mode::Plain).unwrap_err();
            beneath.make_directory(&path("a/out/bad")).unwrap_err();
            assert!(!folder.path().join("bad").exists());
        }
    }

    #[test]
    fn a_file_that_exists_is_not_opened_again() {
        let (_folder, beneath) = fixture();
        beneath.create_file(&path("a/once"), Mode::Plain).unwrap();
        let error = beneath.create_file(&path("a/once"), Mode::Plain).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
    }
}
