//! Disks that are full when a test says so.

use std::{
    env, fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Stdio},
};

use tempfile::TempDir;

/// A file system of a size that the test decides, in memory. Gone when dropped.
#[derive(Debug)]
pub struct SmallDisk {
    folder: TempDir,
}

impl SmallDisk {
    /// Makes one. Only root may: without, this says loudly what is not tested, and returns nothing.
    ///
    /// # Panics
    /// When it cannot be made and `CI=true`: there, what is not tested is a failure.
    #[must_use]
    pub fn make(tested: &str, size_bytes: usize) -> Option<Self> {
        let folder = TempDir::with_prefix("ota-disk-").expect("a scratch folder");
        if mount(folder.path(), &format!("size={size_bytes}")) {
            fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("a folder's mode can be set");
            return Some(Self { folder });
        }
        assert!(env::var("CI").as_deref() != Ok("true"), "{tested} takes a mount, and none can be made here");
        eprintln!("NOT TESTED: {tested}. It takes a mount, and only root may make one.");
        None
    }

    /// Gives it another size.
    ///
    /// # Panics
    /// When that does not work.
    pub fn resize(&self, size_bytes: usize) {
        assert!(mount(self.path(), &format!("remount,size={size_bytes}")), "a disk can be resized");
    }

    /// Returns where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: somebody may hold a file open.
        run(Command::new("umount").arg("-l").arg(self.path()));
    }
}

fn mount(folder: &Path, options: &str) -> bool {
    run(Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(folder))
}

fn run(command: &mut Command) -> bool {
    command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}
