//! Keys in files: PKCS#8 in PEM, Ed25519, readable by their owner alone.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use ota_trust::key::{PrivateKey, Signer};

use crate::error::Failure;

/// Most bytes of a key file. A key in PEM has around a hundred and twenty.
const MAX_BYTES: u64 = 16 * 1024;

/// Opens a key file. `None` when there is none. A file that others can read is refused: who could read it, could sign.
pub fn open(path: &Path) -> Result<Option<PrivateKey>, Failure> {
    let cannot = |error: io::Error| Failure::because(format!("cannot read the key file {}", path.display()), &error);
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(cannot(error)),
    };
    let metadata = file.metadata().map_err(cannot)?;
    if !metadata.is_file() {
        return Err(Failure::failed(format!("{} is no key file", path.display())));
    }
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(Failure::failed(format!(
            "others can read the key file {}: its mode is {mode:04o}",
            path.display()
        ))
        .hint(format!(
            "run `chmod 600 {0}`; if somebody may have copied it, delete it and make another",
            path.display()
        )));
    }
    let mut text = String::with_capacity(usize::try_from(metadata.size().min(MAX_BYTES)).unwrap_or(0));
    let damaged = || {
        Failure::failed(format!("the key file {} is damaged, or holds another kind of key", path.display())).hint(
            "it should hold an Ed25519 key in PKCS#8 as PEM; restore it from a copy, or move it away to get a new one",
        )
    };
    match Read::by_ref(&mut file).take(MAX_BYTES).read_to_string(&mut text) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::InvalidData => return Err(damaged()),
        Err(error) => return Err(cannot(error)),
    }
    PrivateKey::from_pem(&text).map(Some).map_err(|_| damaged())
}

/// Makes a key and its file. A file that is there is never replaced; a crash leaves a whole file or none.
pub fn create(path: &Path) -> Result<PrivateKey, Failure> {
    let cannot = |error: io::Error| Failure::because(format!("cannot make the key file {}", path.display()), &error);
    let key = PrivateKey::generate().map_err(|error| Failure::because("cannot make a key", &error))?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(cannot)?;
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}.new", key.public_key().id()));
    let fresh = PathBuf::from(name);
    let made = write(&fresh, &key.to_pem())
        // A link, and not a rename, because that would replace a key that another process made meanwhile.
        .and_then(|()| fs::hard_link(&fresh, path))
        .and_then(|()| File::open(folder)?.sync_all());
    // Whatever happened, the first name has done its work; a second name of the same file does no harm.
    let _ = fs::remove_file(&fresh);
    made.map_err(cannot)?;
    Ok(key)
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_back_and_only_its_owner_can_read_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys/a.pem");
        let key = create(&path).unwrap();
        assert_eq!(open(&path).unwrap().unwrap().public_key(), key.public_key());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn a_key_is_never_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.pem");
        let key = create(&path).unwrap();
        assert!(create(&path).is_err());
        assert_eq!(open(&path).unwrap().unwrap().public_key(), key.public_key());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_key_that_others_can_read_is_refused_with_the_way_out() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.pem");
        create(&path).unwrap();
        for mode in [0o640, 0o604, 0o660, 0o610] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let text = open(&path).unwrap_err().to_string();
            assert!(text.contains(&format!("{mode:04o}")) && text.contains("chmod 600"), "{text}");
        }
    }

    #[test]
    fn a_damaged_key_is_named_and_not_shown() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.pem");
        let pem = PrivateKey::generate().unwrap().to_pem().to_string();
        let half = &pem[..pem.len() / 2];
        for content in [b"".as_slice(), half.as_bytes(), &[0xff; 100], b"-----BEGIN PRIVATE KEY-----\n"] {
            let _ = fs::remove_file(&path);
            write(&path, "").unwrap();
            fs::write(&path, content).unwrap();
            let text = open(&path).unwrap_err().to_string();
            assert!(text.contains("a.pem is damaged"), "{text}");
            assert!(!text.contains("MC4CAQ"), "{text}");
        }
    }

    #[test]
    fn no_file_is_no_key() {
        let folder = tempfile::tempdir().unwrap();
        assert!(open(&folder.path().join("a.pem")).unwrap().is_none());
        assert!(open(folder.path()).unwrap_err().to_string().contains("no key file"));
    }
}
