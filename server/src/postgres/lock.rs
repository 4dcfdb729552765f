//! One server per folder. The lock is the kernel's: it goes with the process that holds it, so a killed server leaves
//! none behind, and the file's content is only there to name the holder.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{self, Read as _, Seek as _, Write as _},
    path::Path,
};

/// Holds the folder until dropped.
#[derive(Debug)]
pub(super) struct Lock {
    file: File,
}

/// Why the folder could not be locked.
#[derive(Debug)]
pub(super) enum LockError {
    /// Another process holds it; the process says so of itself.
    Held {
        by: String,
    },
    Io(io::Error),
}

impl Lock {
    /// Takes the lock at `path`, or tells who has it.
    pub(super) fn take(path: &Path) -> Result<Lock, LockError> {
        let mut file =
            OpenOptions::new().create(true).truncate(false).read(true).write(true).open(path).map_err(LockError::Io)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut by = String::new();
                file.read_to_string(&mut by).map_err(LockError::Io)?;
                return Err(LockError::Held { by: by.trim().to_owned() });
            }
            Err(TryLockError::Error(error)) => return Err(LockError::Io(error)),
        }
        file.set_len(0).map_err(LockError::Io)?;
        file.rewind().map_err(LockError::Io)?;
        writeln!(file, "process {}", std::process::id()).map_err(LockError::Io)?;
        Ok(Lock { file })
    }
}

impl Drop for Lock {
    /// Says that the folder is free. To close the file would not do: a child that is just being started holds it too,
    /// until it becomes its program.
    fn drop(&mut self) {
        self.file.unlock().ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_that_was_given_back_is_free_although_a_starting_child_still_has_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let lock = Lock::take(&path).unwrap();
        let child = lock.file.try_clone().unwrap();
        assert!(matches!(Lock::take(&path), Err(LockError::Held { .. })));
        drop(lock);
        Lock::take(&path).unwrap();
        drop(child);
    }
}
