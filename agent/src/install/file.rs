//! The `file` installer: the payload is one file, put into a tree of its own.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

use sha2::{Digest, Sha256};

use super::{Error, Unpack};
use crate::tree::{Mode, Tree};

const COPY_BUFFER_BYTES: usize = 128 * 1024;

/// Stores the payload under one name.
#[derive(Debug, Clone)]
pub struct SingleFile {
    /// The file's name in its tree.
    pub name: String,
    /// Whether it can be executed.
    pub mode: Mode,
}

impl Unpack for SingleFile {
    fn unpack(&self, payload: &mut dyn Read, into: &Path) -> Result<Tree, Error> {
        let mut file = File::create_new(into.join(&self.name)).map_err(Error::Disk)?;
        rustix::fs::fchmod(&file, self.mode.bits()).map_err(|error| Error::Disk(error.into()))?;
        let mut hash = Sha256::new();
        let mut buffer = vec![0; COPY_BUFFER_BYTES];
        loop {
            let count = payload.read(&mut buffer).map_err(Error::Disk)?;
            if count == 0 {
                break;
            }
            hash.update(&buffer[..count]);
            file.write_all(&buffer[..count]).map_err(Error::Disk)?;
        }
        let mut tree = Tree::default();
        tree.add_file(&self.name, self.mode, hash.finalize().into());
        Ok(tree)
    }
}
