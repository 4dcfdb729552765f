//! Secrets in files, as orchestrators and service managers hand them over: never in an argument, which every account of
//! the machine can read.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// A file holds no secret that can be used.
#[derive(Debug, thiserror::Error)]
pub enum SecretFileError {
    /// It cannot be read.
    #[error("{flag}: {} cannot be read", .path.display())]
    Read {
        /// Who names the file.
        flag: &'static str,
        /// Which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// There is nothing in it.
    #[error("{flag}: {} is empty", .path.display())]
    Empty {
        /// Who names the file.
        flag: &'static str,
        /// Which file.
        path: PathBuf,
    },
}

/// Reads what the file holds that `flag` names, without the newline that editors and `echo` leave at its end.
///
/// # Errors
/// When it cannot be read, is no text, or has nothing in it.
pub fn read(flag: &'static str, path: &Path) -> Result<String, SecretFileError> {
    let content =
        fs::read_to_string(path).map_err(|source| SecretFileError::Read { flag, path: path.to_owned(), source })?;
    let secret = content.strip_suffix('\n').unwrap_or(&content);
    let secret = secret.strip_suffix('\r').unwrap_or(secret);
    if secret.is_empty() {
        return Err(SecretFileError::Empty { flag, path: path.to_owned() });
    }
    Ok(secret.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(content: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(&file, content).unwrap();
        file
    }

    #[test]
    fn one_newline_at_the_end_is_no_part_of_the_secret() {
        for (content, secret) in [("a b", "a b"), ("a b\n", "a b"), ("a b\r\n", "a b"), (" a\n\n", " a\n")] {
            assert_eq!(read("--x", file(content).path()).unwrap(), secret, "{content:?}");
        }
    }

    #[test]
    fn a_file_without_a_secret_is_named_with_its_flag() {
        let empty = file("\n");
        let missing = Path::new("/nonexistent/secret");
        for path in [empty.path(), missing] {
            let error = read("--x-file", path).unwrap_err().to_string();
            assert!(error.contains("--x-file") && error.contains(path.to_str().unwrap()), "{error}");
        }
    }
}
