//! The file that Postgres writes its messages to. Appended across restarts, and put aside once it is large.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom},
    path::{Path, PathBuf},
};

/// Beyond this the file is put aside at the next start, so that two of these is all it ever takes.
const LARGE_BYTES: u64 = 8 << 20;

/// As much of the end as a person wants to see in an error.
const TAIL_LINES: usize = 12;

/// The log, from the moment this start began.
#[derive(Debug)]
pub(super) struct Log {
    path: PathBuf,
    file: File,
    begin: u64,
}

impl Log {
    /// Opens the log for another run.
    pub(super) fn open(path: PathBuf) -> io::Result<Log> {
        if fs::metadata(&path).is_ok_and(|meta| meta.len() > LARGE_BYTES) {
            fs::rename(&path, path.with_extension("log.1"))?;
        }
        let file = OpenOptions::new().create(true).append(true).open(&path)?;
        let begin = file.metadata()?.len();
        Ok(Log { path, file, begin })
    }

    /// Returns the file for a child to write to.
    pub(super) fn writer(&self) -> io::Result<File> {
        self.file.try_clone()
    }

    /// Returns the last lines written since [`Log::open`], or says why there are none: it goes into an error message,
    /// where a second error would only be in the way.
    pub(super) fn tail(&self) -> String {
        match read_from(&self.path, self.begin) {
            Ok(text) => last_lines(&text),
            Err(error) => format!("(cannot read {}: {error})", self.path.display()),
        }
    }
}

/// Returns the last few lines, without the blank ones.
pub(super) fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}

fn read_from(path: &Path, begin: u64) -> io::Result<String> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(begin))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn tail_leaves_out_earlier_runs() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("postgres.log");
        fs::write(&path, "of yesterday\n").unwrap();
        let log = Log::open(path).unwrap();
        writeln!(log.writer().unwrap(), "one\n\ntwo").unwrap();
        assert_eq!(log.tail(), "one\ntwo");
    }

    #[test]
    fn large_log_is_put_aside() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("postgres.log");
        File::create(&path).unwrap().set_len(LARGE_BYTES + 1).unwrap();
        let log = Log::open(path).unwrap();
        assert_eq!(log.begin, 0);
        assert!(folder.path().join("postgres.log.1").exists());
    }
}
