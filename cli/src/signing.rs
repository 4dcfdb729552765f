//! The keys that people hold: in files, or in hardware and key services that speak PKCS#11.
//!
//! Private keys never leave this machine, and nothing here talks to the server.

mod file;
mod pkcs11;
mod uri;

use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
};

use clap::Args;
use ota_trust::key::Signer;

pub use file::{create, open};
pub use uri::{ParseUriError, Uri};

use crate::{client::Client, consent::Asker, error::Failure, publication, session::Session};

/// Where a key is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyRef {
    /// In a PEM file.
    File(PathBuf),
    /// In what a PKCS#11 module reaches.
    Pkcs11(Box<Uri>),
}

impl fmt::Display for KeyRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Pkcs11(uri) => write!(f, "{uri}"),
        }
    }
}

impl FromStr for KeyRef {
    type Err = ParseUriError;

    fn from_str(text: &str) -> Result<Self, ParseUriError> {
        if text.starts_with(uri::SCHEME) {
            text.parse().map(Box::new).map(Self::Pkcs11)
        } else {
            Ok(Self::File(text.into()))
        }
    }
}

impl KeyRef {
    /// Opens the key. A PIN comes from where the URI says, else from the environment, else the person is asked.
    pub fn open(&self, asker: Asker) -> Result<Box<dyn Signer>, Failure> {
        match self {
            Self::File(path) => match open(path)? {
                Some(key) => Ok(Box::new(key)),
                None => Err(Failure::failed(format!("there is no key file {}", path.display()))),
            },
            Self::Pkcs11(uri) => Ok(Box::new(pkcs11::open(uri, asker)?)),
        }
    }
}

/// Which key signs the list of releases.
#[derive(Debug, Clone, Args)]
pub struct TargetsKey {
    /// Sign with this key: a PEM file, or a PKCS#11 URI [default: one per context, made on first use] [env: OTACTL_TARGETS_KEY]
    #[arg(long, value_name = "FILE|pkcs11:URI", env = "OTACTL_TARGETS_KEY", hide_env = true)]
    pub targets_key: Option<KeyRef>,
}

impl TargetsKey {
    /// Opens the key that was named, or the context's own, which is made when there is none.
    pub fn open(&self, default: &Path, asker: Asker) -> Result<OpenKey, Failure> {
        if let Some(key) = &self.targets_key {
            return Ok(OpenKey { signer: key.open(asker)?, created: None });
        }
        if let Some(key) = open(default)? {
            return Ok(OpenKey { signer: Box::new(key), created: None });
        }
        Ok(OpenKey { signer: Box::new(create(default)?), created: Some(default.to_owned()) })
    }
}

impl TargetsKey {
    /// Opens the key and sees to it that it may sign the list of releases, before anything is sent that it has to sign.
    pub async fn ready(&self, session: &Session, client: &Client) -> Result<OpenKey, Failure> {
        let key = self.open(&session.targets_key_path(client.context())?, session.asker)?;
        if let Some(path) = &key.created {
            session.messages.say(&format!(
                "made your signing key {} in {}; keep a copy of that file where nobody else can read it",
                key.signer.public_key().id(),
                path.display()
            ));
        }
        publication::prepare(session, client, &key).await?;
        Ok(key)
    }
}

/// A key ready to sign.
pub struct OpenKey {
    /// Signs.
    pub signer: Box<dyn Signer>,
    /// The file, when it was made just now.
    pub created: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uri_is_told_from_a_file() {
        assert_eq!("keys/a.pem".parse(), Ok(KeyRef::File("keys/a.pem".into())));
        assert!(matches!("pkcs11:object=a".parse(), Ok(KeyRef::Pkcs11(_))));
        assert!("pkcs11:object=%zz".parse::<KeyRef>().is_err());
    }

    #[test]
    fn the_contexts_key_is_made_once_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ota/keys/default.pem");
        let option = TargetsKey { targets_key: None };
        let first = option.open(&path, Asker::new(false)).unwrap();
        assert_eq!(first.created.as_deref(), Some(path.as_path()));
        let second = option.open(&path, Asker::new(false)).unwrap();
        assert_eq!(second.created, None);
        assert_eq!(first.signer.public_key(), second.signer.public_key());
    }

    #[test]
    fn a_key_that_was_named_is_never_made() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mine.pem");
        let option = TargetsKey { targets_key: Some(KeyRef::File(path.clone())) };
        let failure = option.open(&folder.path().join("default.pem"), Asker::new(false)).err().unwrap();
        assert!(failure.to_string().contains("mine.pem"), "{failure}");
        assert!(!path.exists() && !folder.path().join("default.pem").exists());
    }
}
