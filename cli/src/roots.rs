//! Changes the roots: the documents that say which keys the roles have.
//!
//! A root follows another when enough keys of both sign it. While the server holds the root keys it adds its signature to
//! what it is sent. Once the operators hold them, their signatures have to be there, and a device would follow what is
//! sent: that is checked here before it is.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use ota_proto::admin::v1::{ErrorReason, PublishRootsRequest};
use ota_trust::{
    Repository,
    key::{KeyId, Signer},
    metadata::{self, Mode, Role, Root},
};
use tonic::Status;

use crate::{
    backoff::patiently,
    client::Client,
    error::{Failure, reason_of},
    image_repository::{ImageRepository, refresh_director},
    session::Session,
};

/// Times that a change is made again because another was published first.
const ATTEMPTS: u32 = 5;

/// Both repositories, as far as their roots go.
#[derive(Debug, Clone)]
pub struct Roots {
    /// What may be installed.
    pub image: Repository,
    /// What each device should run.
    pub director: Repository,
}

impl Roots {
    /// Reads and verifies the newest.
    pub async fn refresh(session: &Session, client: &Client) -> Result<Self, Failure> {
        let image = ImageRepository::refresh(session, client).await?.repository().clone();
        Ok(Self { image, director: refresh_director(session, client).await? })
    }

    /// Returns who holds the root keys.
    pub fn mode(&self) -> Mode {
        self.image.root().mode
    }

    /// Returns the documents that follow, signed. `None` for one that does not change.
    pub fn next(
        &self,
        now: DateTime<Utc>,
        signers: &[&dyn Signer],
        edit: &dyn Fn(&mut Draft<'_>) -> Result<(), Failure>,
    ) -> Result<NextRoots, Failure> {
        let make = |which: Which| -> Result<Option<Vec<u8>>, Failure> {
            let old = self.repository(which);
            let mut draft =
                Draft { which, root: old.root().next(now + Role::Root.lifetime()), old: old.root(), renewed: false };
            edit(&mut draft)?;
            if !draft.is_change() {
                return Ok(None);
            }
            follow(old, &draft.root, signers).map(Some)
        };
        Ok(NextRoots { image: make(Which::Image)?, director: make(Which::Director)? })
    }

    /// Makes sure that the root keys at hand are enough to change every key: signs the next roots, verifies them as a
    /// device would, and throws them away.
    pub fn suffices(&self, now: DateTime<Utc>, signers: &[&dyn Signer]) -> Result<(), Failure> {
        let renew = |draft: &mut Draft<'_>| {
            draft.renewed = true;
            Ok(())
        };
        self.next(now, signers, &renew).map(drop)
    }

    /// Returns one of them.
    pub fn repository(&self, which: Which) -> &Repository {
        match which {
            Which::Image => &self.image,
            Which::Director => &self.director,
        }
    }
}

/// One of the repositories.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// What may be installed.
    Image,
    /// What each device should run.
    Director,
}

/// A root to be.
#[derive(Debug)]
pub struct Draft<'a> {
    /// Of which repository.
    pub which: Which,
    /// The root: the old one's keys until somebody changes them.
    pub root: Root,
    /// The one before.
    pub old: &'a Root,
    /// Publish it even when nothing but its date differs.
    pub renewed: bool,
}

impl Draft<'_> {
    fn is_change(&self) -> bool {
        let Root { version: _, expires: _, keys, roles, mode, .. } = &self.root;
        self.renewed || (keys, roles, mode) != (&self.old.keys, &self.old.roles, &self.old.mode)
    }
}

/// Roots that follow.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NextRoots {
    /// Of the image repository.
    pub image: Option<Vec<u8>>,
    /// Of the director repository.
    pub director: Option<Vec<u8>>,
}

/// Signs a root, and makes sure that devices would follow it.
fn follow(old: &Repository, next: &Root, signers: &[&dyn Signer]) -> Result<Vec<u8>, Failure> {
    let needed: BTreeSet<KeyId> = [old.root(), next].iter().flat_map(|root| ids(root)).collect();
    let useful: Vec<&dyn Signer> =
        signers.iter().copied().filter(|signer| needed.contains(&signer.public_key().id())).collect();
    if old.root().mode == Mode::Adopted {
        enough(old.root(), signers, "root keys in use")?;
    }
    if next.mode == Mode::Adopted {
        enough(next, signers, "new root keys")?;
    }
    let bytes = metadata::sign(next, &useful).map_err(|error| Failure::because("cannot sign the root", &error))?;
    if old.root().mode == Mode::Adopted {
        old.clone().update_root(&bytes).map_err(|error| {
            Failure::failed(format!("no device would follow the new root: {error}")).hint("nothing was published")
        })?;
    }
    Ok(bytes)
}

fn ids(root: &Root) -> Vec<KeyId> {
    root.keys_of(Role::Root).map(|key| key.id()).collect()
}

/// Refuses when the keys at hand are too few for a root.
fn enough(root: &Root, signers: &[&dyn Signer], what: &str) -> Result<(), Failure> {
    let known = ids(root);
    let (given, strange): (BTreeSet<KeyId>, BTreeSet<KeyId>) =
        signers.iter().map(|signer| signer.public_key().id()).partition(|id| known.contains(id));
    let needed = usize::try_from(root.threshold(Role::Root)).unwrap_or(usize::MAX);
    if given.len() >= needed {
        return Ok(());
    }
    let all = known.len();
    let here = given.len();
    let named = known.iter().map(|id| {
        let here = if given.contains(id) { "at hand" } else { "missing" };
        format!("{id}: {here}")
    });
    let strange = strange.iter().map(|id| format!("{id}: at hand, and none of the {what}"));
    Err(Failure::failed(format!("{needed} of the {all} {what} have to sign, and {here} of them at hand is too few"))
        .details(named.chain(strange))
        .hint("name each key with --root-key FILE"))
}

/// Changes the roots and publishes them. `edit` is given the newest, perhaps several times. Returns them as they are then,
/// and whether there was anything to publish.
pub async fn change(
    session: &Session,
    client: &Client,
    signers: &[&dyn Signer],
    edit: impl Fn(&mut Draft<'_>) -> Result<(), Failure>,
) -> Result<(Roots, bool), Failure> {
    for _ in 0..ATTEMPTS {
        let roots = Roots::refresh(session, client).await?;
        let next = roots.next(session.now(), signers, &edit)?;
        if next == NextRoots::default() {
            return Ok((roots, false));
        }
        let publish = async || -> Result<_, Status> {
            let request = PublishRootsRequest {
                image_root: next.image.clone().unwrap_or_default().into(),
                director_root: next.director.clone().unwrap_or_default().into(),
            };
            client.trust().publish_roots(request).await
        };
        match patiently(session.messages, "publishing the roots", publish).await {
            Ok(_) => return Ok((Roots::refresh(session, client).await?, true)),
            // Also when an answer was lost and the call was made twice: then nothing is left to change.
            Err(status) if reason_of(&status) == Some(ErrorReason::MetadataOutdated) => {}
            Err(status) => return Err(status.into()),
        }
    }
    Err(Failure::failed("others change the roots at the same time").hint("repeat the command in a moment"))
}

#[cfg(test)]
mod tests;
