//! Files full of random bytes, which no file system and no protocol can make smaller.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    os::unix::fs::FileExt as _,
    path::Path,
};

use anyhow::Context as _;
use ota_domain::{Sha256Digest, release::Payload};
use sha2::{Digest as _, Sha256};

/// One mebibyte.
pub(crate) const MIB: u64 = 1 << 20;

/// Writes a file of that many bytes and returns what names it.
pub(crate) fn create(path: &Path, size_bytes: u64) -> anyhow::Result<Payload> {
    let mut file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
    let mut hash = Sha256::new();
    let mut block = vec![0; MIB as usize];
    let mut left = size_bytes;
    while left > 0 {
        rand::fill(&mut block[..]);
        let part = &block[..usize::try_from(left.min(MIB))?];
        file.write_all(part)?;
        hash.update(part);
        left -= part.len() as u64;
    }
    file.sync_all()?;
    Ok(Payload { sha256: Sha256Digest(hash.finalize().into()), size_bytes })
}

/// Makes another payload of a file by changing its first bytes: a server does not take the same one twice.
pub(crate) fn vary(path: &Path) -> anyhow::Result<Payload> {
    let file = File::options().write(true).open(path)?;
    file.write_all_at(&rand::random::<[u8; 32]>(), 0)?;
    // So that no write-back of this file runs while the next thing is measured.
    file.sync_all()?;
    name(path)
}

/// Hashes a file.
pub(crate) fn name(path: &Path) -> anyhow::Result<Payload> {
    let mut file = File::open(path)?;
    let mut hash = Sha256::new();
    let mut block = vec![0; MIB as usize];
    let mut size_bytes = 0;
    loop {
        let read = file.read(&mut block)?;
        if read == 0 {
            return Ok(Payload { sha256: Sha256Digest(hash.finalize().into()), size_bytes });
        }
        hash.update(&block[..read]);
        size_bytes += read as u64;
    }
}
