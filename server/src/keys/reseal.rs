//! Replaces the key-encryption key: every private key in the database is sealed anew, all in one transaction.
//!
//! Nothing here is lost when it ends anywhere: the new key is durable before anything is sealed under it, the old one is
//! kept for backups of the database, and a second run finds what the first has done.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use sqlx::PgPool;

use super::{
    OpenError,
    kek::{KeyEncryptionKey, sync_folder},
};
use crate::db;

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resealed {
    /// How many keys were sealed anew. None when an earlier run did it all.
    pub keys: usize,
    /// Names the key-encryption key that seals them.
    pub id: String,
}

/// Seals all keys of the database under the key in `new`, which is made when there is no such file. What is sealed under
/// another one has to open with the key in `old`.
///
/// No server may run on the database: it would not open its keys any more.
///
/// # Errors
/// When the database or a file does not give what is needed; then nothing is changed.
pub async fn reseal(pool: &PgPool, old: &Path, new: &Path) -> Result<Resealed, OpenError> {
    let mut transaction = pool.begin().await?;
    db::server_key::lock(&mut transaction).await?;
    let rows = db::server_key::all(&mut transaction).await?;
    if rows.is_empty() {
        return Err(OpenError::NoKeys);
    }
    // Before a key is made: what is sealed has to open.
    let known = KeyEncryptionKey::read(new).map_err(OpenError::KeyFile)?;
    let left: Vec<_> = rows.iter().filter(|row| known.as_ref().is_none_or(|known| row.kek_id != known.id())).collect();
    let mut opened = Vec::new();
    if !left.is_empty() {
        let old = KeyEncryptionKey::read(old).map_err(OpenError::KeyFile)?.ok_or(OpenError::KeyFileMissing)?;
        for row in left {
            if row.kek_id != old.id() {
                return Err(OpenError::OtherKey { sealed_under: row.kek_id.clone(), found: old.id().to_owned() });
            }
            let secret = old.open(&row.name, &row.sealed);
            let secret = secret.map_err(|error| OpenError::Damaged { name: row.name.clone(), source: error.into() })?;
            opened.push((row.name.as_str(), secret));
        }
    }
    let new = KeyEncryptionKey::read_or_create(new).map_err(OpenError::KeyFile)?;
    for (name, secret) in &opened {
        db::server_key::reseal(&mut transaction, name, &new.seal(name, secret), new.id()).await?;
    }
    transaction.commit().await?;
    Ok(Resealed { keys: opened.len(), id: new.id().to_owned() })
}

/// Puts the key in `new` in the place of the one in `file`, and keeps that one beside it under its id. Answers where.
/// `file` is never missing meanwhile.
///
/// # Errors
/// When the files cannot be read or renamed.
pub fn replace_file(file: &Path, new: &Path) -> Result<Option<PathBuf>, OpenError> {
    let replaced = KeyEncryptionKey::read(file).map_err(OpenError::KeyFile)?.map(|old| {
        let mut kept = file.as_os_str().to_owned();
        kept.push(format!(".{}", old.id()));
        PathBuf::from(kept)
    });
    let swap = || -> io::Result<()> {
        if let Some(kept) = &replaced {
            match fs::hard_link(file, kept) {
                // By an earlier run.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                linked => linked?,
            }
        }
        fs::rename(new, file)?;
        sync_folder(file)
    };
    swap().map_err(|error| OpenError::KeyFile(super::KeyFileError::Create(error)))?;
    Ok(replaced)
}
