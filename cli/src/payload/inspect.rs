//! Checks a ready tar archive by the rules that devices unpack it by. Reads headers, never unpacks.

use std::{
    io::{self, Read, Seek},
    path::Path,
};

use super::{entry::Names, folder::refuse};
use crate::error::Failure;

/// Returns the size of all files in the archive together, or everything that devices would refuse.
pub(super) fn check_archive(path: &Path, archive: impl Read + Seek) -> Result<u64, Failure> {
    // What the parser says quotes the file's bytes, which are not fit for a person.
    let not_tar = |_: io::Error| {
        Failure::usage(format!("{} is no tar archive, or a damaged one", path.display()))
            .hint("give the folder itself, or an archive that is not compressed")
    };
    let mut archive = tar::Archive::new(archive);
    let mut names = Names::default();
    let mut bytes = 0_u64;
    let mut entries = 0_u64;
    for entry in archive.entries_with_seek().map_err(not_tar)? {
        let entry = entry.map_err(not_tar)?;
        entries += 1;
        let name = entry.path_bytes();
        let name = name.strip_prefix(b"./").unwrap_or(&name);
        let name = name.strip_suffix(b"/").unwrap_or(name);
        let kind = entry.header().entry_type();
        if kind.is_dir() {
            // The archive's own root has no name to check.
            if !matches!(name, b"" | b".") {
                names.check(name);
            }
        } else if kind.is_file() || kind.is_contiguous() {
            names.check(name);
            bytes = bytes.saturating_add(entry.size());
        } else {
            let name = String::from_utf8_lossy(name);
            names.violation(&name, "is neither a file nor a folder; devices take nothing else");
        }
    }
    if entries == 0 {
        return Err(Failure::usage(format!("{} is no tar archive, or an empty one", path.display())));
    }
    refuse(path, names.finish())?;
    Ok(bytes)
}
