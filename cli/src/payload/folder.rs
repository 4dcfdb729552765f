//! A folder as a deterministic tar: the same tree gives the same bytes, whoever packs it, when and where.
//!
//! Entries come in the order of their paths, with modification time 0, owner 0, and mode 0755 for folders and what the
//! owner may execute, 0644 for all else. Symbolic links and special files are refused, because devices refuse them.

use std::{
    fs::{self, File, FileType},
    io::{self, Read, Write},
    os::unix::{
        ffi::OsStrExt,
        fs::{FileTypeExt, PermissionsExt},
    },
    path::{Path, PathBuf},
};

use tar::{EntryType, Header};

use super::entry::Names;
use crate::{error::Failure, progress::Progress, text};

/// Most violations shown. Whoever packs a whole system by mistake needs no more to see it.
const SHOWN_VIOLATIONS: usize = 50;

/// A folder whose every entry may go into an archive.
#[derive(Debug)]
pub struct Folder {
    root: PathBuf,
    /// Sorted by path.
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    /// Relative to the root, with `/` between the components.
    path: String,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Directory,
    File { size: u64, executable: bool },
}

impl Folder {
    /// Looks at every entry beneath `root`, and reports all that must not go into an archive at once.
    pub fn scan(root: &Path) -> Result<Self, Failure> {
        let mut scan = Scan::default();
        scan.directory(root, &[])?;
        let Scan { mut entries, names } = scan;
        refuse(root, names.finish())?;
        if entries.is_empty() {
            return Err(Failure::usage(format!("{} is empty", root.display())));
        }
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(Self { root: root.to_owned(), entries })
    }

    /// Returns the size of all files together.
    pub fn bytes(&self) -> u64 {
        self.entries
            .iter()
            .map(|entry| match entry.kind {
                Kind::Directory => 0,
                Kind::File { size, .. } => size,
            })
            .sum()
    }

    /// Says what it is, for a person.
    pub fn describe(&self) -> String {
        let files = self.entries.iter().filter(|entry| matches!(entry.kind, Kind::File { .. })).count();
        let files = text::count(i64::try_from(files).unwrap_or(i64::MAX), "file");
        format!("{} ({files}, packed as tar)", self.root.display())
    }

    /// Writes the archive. `spool_failed` makes the failure of writing, which is another one than that of reading.
    pub(super) fn write_tar(
        &self,
        out: &mut impl Write,
        progress: &Progress,
        spool_failed: impl Fn(io::Error) -> Failure,
    ) -> Result<(), Failure> {
        let mut tar = tar::Builder::new(out);
        for entry in &self.entries {
            match entry.kind {
                Kind::Directory => {
                    let mut header = header(EntryType::Directory, 0o755, 0);
                    tar.append_data(&mut header, format!("{}/", entry.path), io::empty()).map_err(&spool_failed)?;
                }
                Kind::File { size, executable } => {
                    let mode = if executable { 0o755 } else { 0o644 };
                    let mut header = header(EntryType::Regular, mode, size);
                    let mut source = Exactly::open(&self.root.join(&entry.path), size, progress)?;
                    let written = tar.append_data(&mut header, &entry.path, &mut source);
                    // A failure to read passes through the writer too, and explains more.
                    source.finish()?;
                    written.map_err(&spool_failed)?;
                }
            }
        }
        tar.finish().map_err(spool_failed)
    }
}

fn header(kind: EntryType, mode: u32, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header
}

/// Fails with all violations, if there are any.
pub(super) fn refuse(path: &Path, violations: Vec<String>) -> Result<(), Failure> {
    if violations.is_empty() {
        return Ok(());
    }
    let more = violations.len().saturating_sub(SHOWN_VIOLATIONS);
    let entries = if violations.len() == 1 { "an entry" } else { "entries" };
    let rest = (more > 0).then(|| format!("and {more} more"));
    Err(Failure::usage(format!("{} holds {entries} that devices would refuse", path.display()))
        .details(violations.into_iter().take(SHOWN_VIOLATIONS).chain(rest)))
}

/// The state of one scan.
#[derive(Default)]
struct Scan {
    entries: Vec<Entry>,
    names: Names,
}

impl Scan {
    fn directory(&mut self, path: &Path, relative: &[u8]) -> Result<(), Failure> {
        let cannot_read =
            |path: &Path, error: io::Error| Failure::because(format!("cannot read {}", path.display()), &error);
        let mut children = Vec::new();
        for child in fs::read_dir(path).map_err(|error| cannot_read(path, error))? {
            children.push(child.map_err(|error| cannot_read(path, error))?);
        }
        // Violations are reported in this order.
        children.sort_by_key(fs::DirEntry::file_name);
        for child in children {
            let child_path = child.path();
            let mut name = relative.to_vec();
            if !name.is_empty() {
                name.push(b'/');
            }
            name.extend(child.file_name().as_bytes());
            self.names.check(&name);
            let text = String::from_utf8_lossy(&name).into_owned();
            let metadata = child.metadata().map_err(|error| cannot_read(&child_path, error))?;
            if metadata.is_dir() {
                self.entries.push(Entry { path: text, kind: Kind::Directory });
                self.directory(&child_path, &name)?;
            } else if metadata.is_file() {
                let executable = metadata.permissions().mode() & 0o100 != 0;
                self.entries.push(Entry { path: text, kind: Kind::File { size: metadata.len(), executable } });
            } else {
                self.names.violation(
                    &text,
                    &format!("is {}; devices take files and folders alone", describe(metadata.file_type())),
                );
            }
        }
        Ok(())
    }
}

fn describe(kind: FileType) -> &'static str {
    if kind.is_symlink() {
        "a symbolic link"
    } else if kind.is_fifo() {
        "a FIFO"
    } else if kind.is_socket() {
        "a socket"
    } else if kind.is_block_device() || kind.is_char_device() {
        "a device"
    } else {
        "of an unknown kind"
    }
}

/// Reads a file that must have exactly the size that the archive's header says.
struct Exactly<'a> {
    path: PathBuf,
    file: File,
    left: u64,
    error: Option<io::Error>,
    progress: &'a Progress,
}

impl<'a> Exactly<'a> {
    fn open(path: &Path, size: u64, progress: &'a Progress) -> Result<Self, Failure> {
        let file =
            File::open(path).map_err(|error| Failure::because(format!("cannot read {}", path.display()), &error))?;
        Ok(Self { path: path.to_owned(), file, left: size, error: None, progress })
    }

    /// Fails when reading did, or when the file has another size than it had at the scan.
    fn finish(mut self) -> Result<(), Failure> {
        if let Some(error) = self.error {
            return Err(Failure::because(format!("cannot read {}", self.path.display()), &error));
        }
        let more = self.file.read(&mut [0]).unwrap_or(0);
        if self.left == 0 && more == 0 {
            return Ok(());
        }
        Err(Failure::failed(format!("{} changed while it was packed", self.path.display()))
            .hint("upload a copy that nothing writes to"))
    }
}

impl Read for Exactly<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        match self.file.read(&mut buffer[..most]) {
            Ok(count) => {
                self.left -= count as u64;
                self.progress.add(count as u64);
                Ok(count)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(error),
            Err(error) => {
                let kind = error.kind();
                self.error = Some(error);
                Err(kind.into())
            }
        }
    }
}
