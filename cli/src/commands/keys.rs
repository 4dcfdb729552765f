//! `keys`: who may sign what devices install, and who may change that.

mod adopt;
mod drill;
mod online;
mod rotate;
mod status;
mod targets;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use clap::{Args, Subcommand};
use ota_trust::{
    key::{KeyId, PrivateKey, PublicKey, Signer},
    metadata::{Role, Root},
};

use crate::{
    consent::Asker,
    error::Failure,
    session::Session,
    signing::{self, KeyRef},
};

pub use status::{mode_cell, mode_word};

/// What to do with keys.
#[derive(Debug, Subcommand)]
pub enum KeysCommand {
    /// Show who holds the keys and what runs out when
    Status(status::Status),
    /// Take the root keys over from the server, into files of your own
    Adopt(adopt::Adopt),
    /// Replace the keys of a role
    Rotate(rotate::Rotate),
    /// Sign again what runs out, with the same keys
    Renew(rotate::Renew),
    /// Prove that root keys at hand are enough, without changing anything
    Drill(drill::Drill),
    /// Let another person's key sign releases
    Add(targets::Add),
    /// Let a key sign releases no more
    Remove(targets::Remove),
}

impl KeysCommand {
    /// Does it.
    pub async fn run(self, session: &mut Session) -> Result<(), Failure> {
        match self {
            Self::Status(command) => command.run(session).await,
            Self::Adopt(command) => command.run(session).await,
            Self::Rotate(command) => command.run(session).await,
            Self::Renew(command) => command.run(session).await,
            Self::Drill(command) => command.run(session).await,
            Self::Add(command) => command.run(session).await,
            Self::Remove(command) => command.run(session).await,
        }
    }
}

/// The root keys at hand.
#[derive(Debug, Clone, Args)]
pub struct RootKeys {
    /// A root key that is at hand: a PEM file, or a PKCS#11 URI; may be repeated
    #[arg(long = "root-key", value_name = "FILE|pkcs11:URI")]
    root_keys: Vec<KeyRef>,
}

impl RootKeys {
    fn open(&self, asker: Asker) -> Result<Vec<Box<dyn Signer>>, Failure> {
        self.root_keys.iter().map(|key| key.open(asker)).collect()
    }
}

/// Borrows signers for a call.
fn borrowed(signers: &[Box<dyn Signer>]) -> Vec<&dyn Signer> {
    signers.iter().map(AsRef::as_ref).collect()
}

/// How many root keys there are to be, and how many have to sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Quorum {
    threshold: u32,
    of: u32,
}

impl Quorum {
    /// Most root keys: more files than anybody keeps apart are none kept apart.
    const MOST: u32 = 16;

    fn check(self) -> Result<Self, Failure> {
        let Self { threshold, of } = self;
        if threshold == 0 || threshold > of || of > Self::MOST {
            return Err(Failure::usage(format!("{threshold} of {of} root keys cannot have to sign"))
                .hint(format!("--threshold is at least 1 and at most --of, which is at most {}", Self::MOST)));
        }
        Ok(self)
    }
}

/// Root keys in files.
struct RootKeyFiles {
    paths: Vec<PathBuf>,
    signers: Vec<Box<dyn Signer>>,
}

impl RootKeyFiles {
    /// Makes the files of new root keys. Those that are there are taken: they are of an earlier run that was interrupted.
    fn make(folder: &Path, of: u32) -> Result<Self, Failure> {
        Self::collect(folder, of, |path| match signing::open(path)? {
            Some(key) => Ok(Some(key)),
            None => signing::create(path).map(Some),
        })
    }

    /// Opens those that are there, and makes none.
    fn open(folder: &Path, of: u32) -> Result<Self, Failure> {
        Self::collect(folder, of, signing::open)
    }

    fn collect(
        folder: &Path,
        of: u32,
        key: impl Fn(&Path) -> Result<Option<PrivateKey>, Failure>,
    ) -> Result<Self, Failure> {
        let mut files = Self { paths: Vec::new(), signers: Vec::new() };
        for number in 1..=of {
            let path = folder.join(format!("root-{number}.pem"));
            if let Some(key) = key(&path)? {
                files.paths.push(path);
                files.signers.push(Box::new(key));
            }
        }
        Ok(files)
    }

    /// Whether a root names the keys of these files and no others, and asks for as many signatures.
    fn are_those_of(&self, root: &Root, quorum: Quorum) -> bool {
        let ours: BTreeSet<KeyId> = self.signers.iter().map(|signer| signer.public_key().id()).collect();
        let named: BTreeSet<KeyId> = root.keys_of(Role::Root).map(PublicKey::id).collect();
        ours == named && root.threshold(Role::Root) == quorum.threshold
    }
}

/// Says plainly what is to be done with the files of root keys.
fn explain_files(session: &Session, quorum: Quorum, files: &[PathBuf]) {
    let Quorum { threshold, of } = quorum;
    let messages = session.messages;
    messages.say("");
    messages.say("The root keys are in these files, and nowhere else:");
    for path in files {
        messages.say(&format!("  {}", path.display()));
    }
    messages.say("What to do with them, today:");
    let drill: String = files.iter().map(|path| format!(" --root-key {}", path.display())).collect();
    messages.say(&format!("  1. Prove that they work: otactl keys drill{drill}"));
    messages.say("  2. Copy each to a medium of its own, and keep the media in different places, without a network.");
    messages.say("  3. Delete them here. They are needed again before the roots run out in a year: otactl keys renew.");
    messages.say(&format!(
        "Any {threshold} of the {of} change every other key, and whoever has {threshold} can change who signs for your devices. \
         You may lose {}: with fewer than {threshold} left, no key can ever be changed again.",
        of - threshold
    ));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quorum_is_possible_and_small() {
        for (threshold, of) in [(1, 1), (2, 3), (16, 16)] {
            assert!(Quorum { threshold, of }.check().is_ok(), "{threshold} of {of}");
        }
        for (threshold, of) in [(0, 1), (3, 2), (1, 0), (1, 17)] {
            assert_eq!(Quorum { threshold, of }.check().unwrap_err().exit().code(), 2, "{threshold} of {of}");
        }
    }

    #[test]
    fn root_keys_of_an_interrupted_run_are_used_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("roots");
        let first: Vec<_> =
            RootKeyFiles::make(&path, 2).unwrap().signers.iter().map(|key| key.public_key().id()).collect();
        let again: Vec<_> =
            RootKeyFiles::make(&path, 3).unwrap().signers.iter().map(|key| key.public_key().id()).collect();
        assert_eq!(again[..2], first);
        assert_eq!(again.len(), 3);
        assert_eq!(RootKeyFiles::open(&path, 5).unwrap().paths.len(), 3);
    }
}
