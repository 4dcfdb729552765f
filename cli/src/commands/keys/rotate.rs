//! `keys rotate` and `keys renew`.

use std::{fs, path::PathBuf};

use clap::{Args, ValueEnum};
use ota_proto::admin::v1::{Repository as WireRepository, RotateServerKeyRequest};
use ota_trust::{
    key::Signer,
    metadata::{Mode, Role as TufRole},
};

use super::{
    Quorum, RootKeyFiles, RootKeys, borrowed, explain_files,
    online::{self, OnlineKey},
    targets,
};
use crate::{
    client::Client,
    error::Failure,
    publication,
    roots::{self, Draft, Roots},
    session::Session,
    signing::{self, KeyRef, OpenKey, TargetsKey},
};

/// Arguments of `keys rotate`.
#[derive(Debug, Args)]
#[command(after_help = "\
root: while the server holds the root keys, it makes new ones. Once they are yours, new files are made, and enough of the \
old ones have to be named with --root-key.

targets: replaces your own signing key. Everything listed is signed again with the new one, and the old one may not sign \
any more; its file is kept under another name.

snapshot, timestamp, director: the server makes a new one and uses it from the root on that names it. While the server holds \
the root keys it signs that root itself; once they are yours, enough of them have to be named with --root-key. What was \
signed with the old key, also by a thief, counts no more with any device from then on.

A run that was interrupted is repeated with the same arguments.

Examples:
  otactl keys rotate targets
  otactl keys rotate targets --root-key root-1.pem --root-key root-2.pem
  otactl keys rotate timestamp --root-key root-1.pem --root-key root-2.pem
  otactl keys rotate root --root-key root-1.pem --root-key root-2.pem --out /media/usb/new-root-keys")]
pub struct Rotate {
    /// Which keys: root, targets, snapshot, timestamp or director
    #[arg(value_enum, value_name = "ROLE", hide_possible_values = true)]
    role: Role,
    #[command(flatten)]
    root_keys: RootKeys,
    /// Make the new root key files in this folder
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// New root keys that have to sign [default: as many as before]
    #[arg(long, value_name = "N")]
    threshold: Option<u32>,
    /// New root keys there are [default: as many as before]
    #[arg(long, value_name = "N")]
    of: Option<u32>,
    #[command(flatten)]
    key: TargetsKey,
    /// With `targets`: the new key, in place of a file made here
    #[arg(long, value_name = "FILE|pkcs11:URI", requires = "targets_key")]
    new_targets_key: Option<KeyRef>,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

/// Whose keys to replace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Role {
    /// Those that change all others
    Root,
    /// Your own, which signs releases
    Targets,
    /// The server's, which says what belongs together
    Snapshot,
    /// The server's, which says what is newest
    Timestamp,
    /// The server's, which says what each device should run
    Director,
}

impl Rotate {
    pub(super) async fn run(self, session: &mut Session) -> Result<(), Failure> {
        let client = session.client().await?;
        let mode = Roots::refresh(session, &client).await?.mode();
        match (self.role, mode) {
            (Role::Targets, _) => self.targets(session, &client).await,
            (Role::Root, Mode::Adopted) => self.root(session, &client).await,
            (Role::Root, Mode::Managed) => {
                let both = [(WireRepository::Image, "root"), (WireRepository::Director, "root")];
                self.servers(session, &client, &both).await
            }
            (Role::Snapshot, _) => self.online(session, &client, mode, &online::SNAPSHOT).await,
            (Role::Timestamp, _) => self.online(session, &client, mode, &online::TIMESTAMP).await,
            (Role::Director, _) => self.online(session, &client, mode, &online::DIRECTOR).await,
        }
    }

    /// Replaces a key that the server signs with every day.
    async fn online(&self, session: &mut Session, client: &Client, mode: Mode, key: &OnlineKey) -> Result<(), Failure> {
        match mode {
            Mode::Managed => self.servers(session, client, &[(key.repository, key.role)]).await,
            Mode::Adopted => key.rotate(session, client, &self.root_keys, self.yes).await,
        }
    }

    /// Has the server make new keys.
    async fn servers(
        &self,
        session: &mut Session,
        client: &Client,
        keys: &[(WireRepository, &str)],
    ) -> Result<(), Failure> {
        let names: Vec<_> = keys.iter().map(|(repository, role)| format!("{} {role}", word(*repository))).collect();
        session.asker.confirm(&format!("Have the server replace its {} key?", names.join(" and ")), self.yes)?;
        for ((repository, role), name) in keys.iter().zip(names) {
            let request = RotateServerKeyRequest { repository: (*repository).into(), role: (*role).to_owned() };
            let answer = client.trust().rotate_server_key(request).await?.into_inner();
            session.printer.gone(&answer.key_id, &format!("is the new {name} key"))?;
        }
        Roots::refresh(session, client).await.map(|_| ())
    }

    /// Replaces the operators' root keys.
    async fn root(self, session: &mut Session, client: &Client) -> Result<(), Failure> {
        let roots = Roots::refresh(session, client).await?;
        let root = roots.image.root();
        let count = u32::try_from(root.keys_of(TufRole::Root).count()).unwrap_or(u32::MAX);
        let quorum =
            Quorum { threshold: self.threshold.unwrap_or(root.threshold(TufRole::Root)), of: self.of.unwrap_or(count) }
                .check()?;
        let folder = self.out.ok_or_else(|| {
            Failure::usage("nothing says where the new root key files go")
                .hint("say --out DIR, with a folder of their own")
        })?;
        let old = self.root_keys.open(session.asker)?;
        let there = RootKeyFiles::open(&folder, quorum.of)?;
        let paths = if there.are_those_of(root, quorum) {
            // An earlier run got as far as this, and its answer was lost; unless these are the keys to be replaced.
            if old.iter().any(|key| root.keys_of(TufRole::Root).any(|named| named == key.public_key())) {
                return Err(Failure::usage(format!("{} has the root keys that are in use", folder.display()))
                    .hint("say --out DIR, with a folder of its own for the new ones"));
            }
            there.paths
        } else {
            roots.suffices(session.now(), &borrowed(&old))?;
            session.asker.confirm(&format!("Replace the root keys by new ones in {}?", folder.display()), self.yes)?;
            let RootKeyFiles { paths, signers: new } = RootKeyFiles::make(&folder, quorum.of)?;
            let public: Vec<_> = new.iter().map(|signer| signer.public_key()).collect();
            let edit = |draft: &mut Draft<'_>| {
                draft.root.set_role(TufRole::Root, quorum.threshold, &public);
                Ok(())
            };
            let signers: Vec<&dyn Signer> = borrowed(&old).into_iter().chain(borrowed(&new)).collect();
            roots::change(session, client, &signers, edit).await?;
            paths
        };
        session.printer.line("the root keys are replaced; the old ones sign nothing any more")?;
        session.printer.flush()?;
        explain_files(session, quorum, &paths);
        Ok(())
    }

    /// Replaces the caller's own signing key.
    async fn targets(self, session: &mut Session, client: &Client) -> Result<(), Failure> {
        let own = session.targets_key_path(client.context())?;
        let fresh = own.with_extension("new.pem");
        let old = self.key.open(&own, session.asker)?;
        let old_id = old.signer.public_key().id();
        session.asker.confirm(&format!("Replace the key {old_id} that signs releases?"), self.yes)?;
        let new: Box<dyn Signer> = match (&self.new_targets_key, &self.key.targets_key) {
            (Some(key), _) => key.open(session.asker)?,
            (None, Some(_)) => {
                return Err(Failure::usage("nothing says which key comes in place of the one that was named")
                    .hint("say --new-targets-key"));
            }
            // A file of an earlier run that was interrupted is taken.
            (None, None) => match signing::open(&fresh)? {
                Some(key) => Box::new(key),
                None => Box::new(signing::create(&fresh)?),
            },
        };
        targets::allow(session, client, &self.root_keys, new.public_key()).await?;
        let new = OpenKey { signer: new, created: None };
        publication::publish_all(session, client, &new).await?;
        targets::forbid(session, client, &self.root_keys, new.signer.as_ref(), &old_id).await?;
        if self.key.targets_key.is_none() {
            let kept = own.with_extension(format!("{}.old.pem", &old_id.as_str()[..12]));
            let swap = fs::rename(&own, &kept).and_then(|()| fs::rename(&fresh, &own));
            swap.map_err(|error| {
                Failure::because("the key is replaced, and its file could not be renamed", &error).hint(format!(
                    "rename {} to {}",
                    fresh.display(),
                    own.display()
                ))
            })?;
        }
        session.printer.gone(new.signer.public_key().id().as_str(), "signs releases from now on")
    }
}

fn word(repository: WireRepository) -> &'static str {
    match repository {
        WireRepository::Image => "image",
        WireRepository::Director => "director",
        WireRepository::Unspecified => "unknown",
    }
}

/// Arguments of `keys renew`.
#[derive(Debug, Args)]
#[command(after_help = "\
The list of releases and the roots are good for a year. Every upload renews the list when half of that is over; this does \
it at once. With --root-key, for as many keys as have to sign, it renews the roots. While the server holds the root keys, it \
renews the roots itself.

Examples:
  otactl keys renew
  otactl keys renew --root-key root-1.pem --root-key root-2.pem")]
pub struct Renew {
    #[command(flatten)]
    root_keys: RootKeys,
    #[command(flatten)]
    key: TargetsKey,
}

impl Renew {
    pub(super) async fn run(self, session: &mut Session) -> Result<(), Failure> {
        let client = session.client().await?;
        let signers = self.root_keys.open(session.asker)?;
        if !signers.is_empty() {
            let day = session.now().date_naive();
            let edit = |draft: &mut Draft<'_>| {
                // The same day again is the same command again, whose answer was lost.
                draft.renewed = draft.old.expires.date_naive() < (day + TufRole::Root.lifetime());
                Ok(())
            };
            let (roots, _) = roots::change(session, &client, &borrowed(&signers), edit).await?;
            let expires = roots.image.root().expires;
            session.printer.line(&format!("the roots are good until {}", expires.format("%Y-%m-%d")))?;
        }
        let key = self.key.ready(session, &client).await?;
        publication::publish_all(session, &client, &key).await?;
        session.printer.line("the list of releases is signed again and good for a year")
    }
}
