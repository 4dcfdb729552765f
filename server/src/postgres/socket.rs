//! Where the socket lives, and the ways to write its address. The folder is the only access control of the cluster
//! (it trusts whoever connects), so it must never be one that others may enter.

use std::{
    ffi::OsString,
    os::unix::ffi::{OsStrExt as _, OsStringExt as _},
    path::{Path, PathBuf},
};

use sha2::{Digest as _, Sha256};

/// Part of the socket's file name; nothing listens on a TCP port of this number.
pub(super) const PORT: u16 = 5432;

/// Linux takes 108 bytes with the final zero, macOS 104; Postgres refuses to start with more.
const MAX_PATH_BYTES: usize = 103;

/// Returns the folder for the socket: `run` beneath the cluster's own, or a short one in `/tmp` when that path is too
/// long. The short one is named after the long one, so that a restart finds the same.
pub(super) fn folder(cluster: &Path) -> PathBuf {
    let run = cluster.join("run");
    if file(&run).as_os_str().len() <= MAX_PATH_BYTES {
        return run;
    }
    let digest = Sha256::digest(cluster.as_os_str().as_bytes());
    PathBuf::from(format!("/tmp/ota-postgres-{}", hex::encode(&digest[..8])))
}

/// Returns the path of the socket itself.
pub(super) fn file(folder: &Path) -> PathBuf {
    folder.join(format!(".s.PGSQL.{PORT}"))
}

/// Returns the folder as a value of `unix_socket_directories`, which is a list: quoted, so that commas and spaces in
/// a path stay part of it.
pub(super) fn setting(folder: &Path) -> OsString {
    let mut quoted = b"\"".to_vec();
    for byte in folder.as_os_str().as_bytes() {
        if *byte == b'"' {
            quoted.push(b'"');
        }
        quoted.push(*byte);
    }
    quoted.push(b'"');
    OsString::from_vec(quoted)
}

/// Returns the address as a URL that every Postgres client understands.
pub(super) fn url(folder: &Path, user: &str, database: &str) -> String {
    let mut url = format!("postgres://{user}@localhost/{database}?host=");
    for byte in folder.as_os_str().as_bytes() {
        match byte {
            b'/' | b'-' | b'.' | b'_' | b'~' | b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' => url.push(char::from(*byte)),
            _ => url.push_str(&format!("%{byte:02X}")),
        }
    }
    url
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn socket_stays_beside_the_data_while_it_fits() {
        assert_eq!(folder(Path::new("/var/lib/ota/postgres")), Path::new("/var/lib/ota/postgres/run"));
    }

    #[test]
    fn long_folder_gets_the_same_short_socket_folder_each_time() {
        let long = PathBuf::from(format!("/{}", "x".repeat(95)));
        let other = PathBuf::from(format!("/{}", "y".repeat(95)));
        assert!(folder(&long).starts_with("/tmp"));
        assert_eq!(folder(&long), folder(&long));
        assert_ne!(folder(&long), folder(&other));
        assert!(file(&folder(&long)).as_os_str().len() <= MAX_PATH_BYTES);
    }

    #[test]
    fn awkward_paths_are_quoted() {
        let path = Path::new("/a b,c\"d%e?");
        assert_eq!(setting(path), "\"/a b,c\"\"d%e?\"");
        assert_eq!(url(path, "ota", "ota"), "postgres://ota@localhost/ota?host=/a%20b%2Cc%22d%25e%3F");
    }
}
