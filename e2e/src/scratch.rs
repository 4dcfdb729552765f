//! Where scratch folders are made that see much writing.

use std::{
    env,
    path::{Path, PathBuf},
};

/// Memory is only used when this much is free: containers often have 64 MiB of it, and a database takes 8.
const MEMORY_BYTES: u64 = 1 << 30;

/// Returns the folder for scratch folders: memory when there is enough of it.
#[must_use]
pub fn parent() -> PathBuf {
    let memory = Path::new("/dev/shm");
    match rustix::fs::statvfs(memory) {
        Ok(space) if space.f_bavail.saturating_mul(space.f_frsize) >= MEMORY_BYTES => memory.to_owned(),
        Ok(_) | Err(_) => env::temp_dir(),
    }
}
