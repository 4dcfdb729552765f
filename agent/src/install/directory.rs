//! The `directory` installer: a tar archive becomes a tree.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use super::{Error, Unpack};
use crate::archive::{self, Limits};
use crate::tree::Tree;

/// Enough that headers do not cost a system call each.
const READ_BUFFER_BYTES: usize = 64 * 1024;

/// Unpacks a tar archive under the rules of [`archive`].
#[derive(Debug)]
pub struct Directory {
    /// What the archive may grow to.
    pub limits: Limits,
}

impl Unpack for Directory {
    fn unpack(&self, payload: &mut dyn Read, into: &Path) -> Result<Tree, Error> {
        let into = File::open(into).map_err(Error::Disk)?;
        let reader = BufReader::with_capacity(READ_BUFFER_BYTES, payload);
        archive::unpack(reader, into.into(), self.limits).map_err(Error::Archive)
    }
}
