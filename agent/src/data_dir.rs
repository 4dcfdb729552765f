//! The folder in which the agent keeps everything, held by one agent at a time.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::durable;

/// A data directory that this process alone works in, until this is dropped.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    lock: File,
}

/// Why the data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be created or locked.
    #[error("cannot use the data directory {path}")]
    Unusable {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Another agent works in it.
    #[error("another agent is working in {path}")]
    Busy {
        /// The folder.
        path: PathBuf,
    },
}

impl DataDir {
    /// Creates the folder if it is missing and locks it. The lock ends with the process, however that ends.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let unusable = |source| Error::Unusable { path: path.to_owned(), source };
        if !path.is_dir() {
            durable::create_folder(path).map_err(unusable)?;
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).map_err(unusable)?;
        }
        // Hooks get paths from here, and run in another folder.
        let path = path.canonicalize().map_err(unusable)?;
        let lock = File::create(path.join("lock")).map_err(unusable)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path, lock }),
            Err(TryLockError::WouldBlock) => Err(Error::Busy { path }),
            Err(TryLockError::Error(source)) => Err(unusable(source)),
        }
    }

    /// Returns the folder, as an absolute path.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for DataDir {
    /// Says that the folder is free. To close the file would not do: a hook that is just being started holds it too,
    /// until it becomes its program.
    fn drop(&mut self) {
        self.lock.unlock().ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_agent_at_a_time_works_in_a_data_directory() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/data");
        let first = DataDir::open(&path).unwrap();
        assert!(matches!(DataDir::open(&path), Err(Error::Busy { .. })));
        let starting_child = first.lock.try_clone().unwrap();
        drop(first);
        DataDir::open(&path).unwrap();
        drop(starting_child);
    }
}
