//! The key-encryption key: seals what the database keeps of private keys, so that a copy of the database alone is worth
//! nothing. It lives in a file, never in the database.

use std::{
    fmt, fs,
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use data_encoding::{BASE64, BASE64_NOPAD, HEXLOWER_PERMISSIVE};
use sha2::{Digest as _, Sha256};

/// Bytes in the key.
const KEY_BYTES: usize = 32;
/// Bytes of the hash that name a key.
const ID_BYTES: usize = 8;

/// Why a key-encryption key is not to be had from a file.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// The file cannot be read.
    #[error("the file cannot be read")]
    Read(#[source] io::Error),
    /// The file cannot be made.
    #[error("the file cannot be made")]
    Create(#[source] io::Error),
    /// The file holds something else.
    #[error("the file holds no key: 32 bytes are needed, as they are, in base64 or in hexadecimal digits")]
    NotAKey,
}

/// What was sealed cannot be opened: it was sealed under another key or another name, or was changed since.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the seal does not open")]
pub struct SealBroken;

/// Seals and opens private keys.
pub(super) struct KeyEncryptionKey {
    id: String,
    key: RandomizedNonceKey,
}

impl fmt::Debug for KeyEncryptionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyEncryptionKey").field("id", &self.id).finish_non_exhaustive()
    }
}

impl KeyEncryptionKey {
    fn new(bytes: &[u8; KEY_BYTES]) -> Self {
        let hash = Sha256::new().chain_update(b"ota key-encryption key").chain_update(bytes).finalize();
        let key = RandomizedNonceKey::new(&AES_256_GCM, bytes).expect("AES-256 takes every 32 bytes");
        Self { id: hex::encode(&hash[..ID_BYTES]), key }
    }

    /// Reads the key; `None` when there is no such file.
    pub(super) fn read(path: &Path) -> Result<Option<Self>, KeyFileError> {
        match fs::read(path) {
            Ok(content) => Ok(Some(Self::new(&parse(&content).ok_or(KeyFileError::NotAKey)?))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(KeyFileError::Read(error)),
        }
    }

    /// Reads the key, or makes one for the file's owner alone. When this returns, the file is durable: what is sealed
    /// under a key that a power cut takes would be lost.
    pub(super) fn read_or_create(path: &Path) -> Result<Self, KeyFileError> {
        if let Some(key) = Self::read(path)? {
            return Ok(key);
        }
        let bytes: [u8; KEY_BYTES] = rand::random();
        match create(path, &bytes) {
            Ok(()) => Ok(Self::new(&bytes)),
            // Another server on this machine made it in between.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                Self::read(path)?.ok_or(KeyFileError::Create(error))
            }
            Err(error) => Err(KeyFileError::Create(error)),
        }
    }

    /// Names the key, and tells nothing of it: bytes of a hash over 32 random ones.
    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// Seals `secret` for `name`: the nonce, the ciphertext, the tag.
    pub(super) fn seal(&self, name: &str, secret: &[u8]) -> Vec<u8> {
        let mut sealed = secret.to_vec();
        let nonce = self
            .key
            .seal_in_place_append_tag(Aad::from(name.as_bytes()), &mut sealed)
            .expect("AES-GCM seals everything shorter than 64 GiB");
        [&nonce.as_ref()[..], &sealed].concat()
    }

    /// Opens what was sealed for `name`.
    pub(super) fn open(&self, name: &str, sealed: &[u8]) -> Result<Vec<u8>, SealBroken> {
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE_LEN>().ok_or(SealBroken)?;
        let (nonce, mut sealed) = (Nonce::assume_unique_for_key(*nonce), sealed.to_vec());
        let opened = self.key.open_in_place(nonce, Aad::from(name.as_bytes()), &mut sealed).map_err(|_| SealBroken)?;
        Ok(opened.to_vec())
    }
}

/// The key as operators may write it.
fn parse(content: &[u8]) -> Option<[u8; KEY_BYTES]> {
    if let Ok(raw) = content.try_into() {
        return Some(raw);
    }
    let text = content.trim_ascii();
    [HEXLOWER_PERMISSIVE, BASE64, BASE64_NOPAD]
        .into_iter()
        .find_map(|encoding| encoding.decode(text).ok()?.try_into().ok())
}

/// Writes the file beside its place and links it there, so that nobody ever reads half a key or loses the first one.
fn create(path: &Path, key: &[u8; KEY_BYTES]) -> io::Result<()> {
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(format!(".{}", hex::encode(rand::random::<[u8; 8]>())));
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unfinished)?;
    let written = writeln!(file, "{}", BASE64.encode(key))
        .and_then(|()| file.sync_all())
        .and_then(|()| fs::hard_link(&unfinished, path));
    fs::remove_file(&unfinished)?;
    written?;
    sync_folder(path)
}

/// Makes the names in a file's folder durable.
pub(super) fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        Some(_) | None => Path::new("."),
    };
    fs::File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn what_is_sealed_opens_under_its_name_and_key_only() {
        let key = KeyEncryptionKey::new(&[1; 32]);
        let sealed = key.seal("ours", b"secret");
        assert_eq!(key.open("ours", &sealed).unwrap(), b"secret");
        assert_ne!(sealed, key.seal("ours", b"secret"), "a nonce is used once");
        assert_eq!(key.open("theirs", &sealed), Err(SealBroken));
        assert_eq!(KeyEncryptionKey::new(&[2; 32]).open("ours", &sealed), Err(SealBroken));
        for index in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[index] ^= 1;
            assert_eq!(key.open("ours", &changed), Err(SealBroken), "byte {index}");
            assert_eq!(key.open("ours", &sealed[..index]), Err(SealBroken), "{index} bytes");
        }
    }

    #[test]
    fn a_key_is_read_in_every_form() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let key = [7; 32];
        let id = KeyEncryptionKey::new(&key).id().to_owned();
        let base64 = BASE64.encode(&key);
        for content in [
            key.to_vec(),
            hex::encode(key).into_bytes(),
            hex::encode_upper(key).into_bytes(),
            format!("{base64}\n").into_bytes(),
            format!(" {} \r\n", base64.trim_end_matches('=')).into_bytes(),
        ] {
            fs::write(&path, &content).unwrap();
            assert_eq!(KeyEncryptionKey::read(&path).unwrap().unwrap().id(), id, "{content:?}");
        }
        for content in [&b""[..], b"secret", &[7; 31], &[7; 33], hex::encode([7; 31]).as_bytes()] {
            fs::write(&path, content).unwrap();
            assert!(matches!(KeyEncryptionKey::read(&path), Err(KeyFileError::NotAKey)), "{content:?}");
        }
    }

    #[test]
    fn a_new_key_is_for_its_owner_alone_and_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        assert!(KeyEncryptionKey::read(&path).unwrap().is_none());
        let made = KeyEncryptionKey::read_or_create(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(KeyEncryptionKey::read_or_create(&path).unwrap().id(), made.id());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing unfinished stays");
        assert_eq!(create(&path, &[1; 32]).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(KeyEncryptionKey::read_or_create(&path).unwrap().id(), made.id());
    }
}
