//! `keys rotate` for the keys that the server signs with every day, once the operators hold the root keys.
//!
//! The server makes the key and keeps it; the operators sign the root that names it; with that root the server uses it. A
//! run that ends in between leaves a key that waits, and the next run is given the same one.

use ota_proto::admin::v1::{Repository as WireRepository, RotateServerKeyRequest};
use ota_trust::{key::PublicKey, metadata::Role};

use super::{RootKeys, borrowed};
use crate::{
    backoff::patiently,
    client::Client,
    error::{Failure, promised},
    roots::{self, Draft, Roots, Which},
    session::Session,
};

/// A key of the server's, as operators, the server and the root call it.
#[derive(Debug, Clone, Copy)]
pub(super) struct OnlineKey {
    name: &'static str,
    pub(super) repository: WireRepository,
    pub(super) role: &'static str,
    which: Which,
    roles: &'static [Role],
}

/// Signs snapshots of the image repository.
pub(super) const SNAPSHOT: OnlineKey = OnlineKey {
    name: "image snapshot",
    repository: WireRepository::Image,
    role: "snapshot",
    which: Which::Image,
    roles: &[Role::Snapshot],
};

/// Signs timestamps of the image repository.
pub(super) const TIMESTAMP: OnlineKey = OnlineKey {
    name: "image timestamp",
    repository: WireRepository::Image,
    role: "timestamp",
    which: Which::Image,
    roles: &[Role::Timestamp],
};

/// Signs what each device should run.
pub(super) const DIRECTOR: OnlineKey = OnlineKey {
    name: "director",
    repository: WireRepository::Director,
    role: "targets",
    which: Which::Director,
    roles: &[Role::Targets, Role::Snapshot, Role::Timestamp],
};

impl OnlineKey {
    /// Has the server make a key, and publishes the root that names it, signed by the root keys at hand.
    pub(super) async fn rotate(
        &self,
        session: &mut Session,
        client: &Client,
        root_keys: &RootKeys,
        yes: bool,
    ) -> Result<(), Failure> {
        let signers = root_keys.open(session.asker)?;
        let signers = borrowed(&signers);
        let roots = Roots::refresh(session, client).await?;
        // Before anything is made.
        roots.suffices(session.now(), &signers)?;
        session.asker.confirm(&format!("Replace the server's {} key?", self.name), yes)?;
        let key = self.prepare(session, client).await?;
        let used = roots.repository(self.which).root().keys_of(self.roles[0]).any(|used| *used == key);
        if used {
            return Err(Failure::failed("the server answered with the key that is in use, and not with a new one")
                .hint("see the server's log; nothing was changed"));
        }
        let edit = |draft: &mut Draft<'_>| {
            if draft.which == self.which {
                self.roles.iter().for_each(|role| draft.root.set_role(*role, 1, &[&key]));
            }
            Ok(())
        };
        roots::change(session, client, &signers, edit).await?;
        session.printer.gone(key.id().as_str(), &format!("is the new {} key", self.name))
    }

    async fn prepare(&self, session: &Session, client: &Client) -> Result<PublicKey, Failure> {
        // Repeated without harm: the server answers with the key that waits.
        let rotate = async || {
            let request = RotateServerKeyRequest { repository: self.repository.into(), role: self.role.to_owned() };
            client.trust().rotate_server_key(request).await
        };
        let answer = patiently(session.messages, "making the key", rotate).await?.into_inner();
        if !answer.awaits_root {
            return Err(Failure::failed("the server says that it replaced the key by itself, which it cannot")
                .hint("does it run an older version? Update it, and repeat the command"));
        }
        promised(PublicKey::from_spki_der(&answer.public_key).ok())
    }
}
