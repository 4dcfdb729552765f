//! `keys adopt`: the operators take the root keys over.

use std::{collections::BTreeSet, path::PathBuf};

use clap::Args;
use ota_proto::admin::v1::{GetTrustStatusRequest, Repository as WireRepository};
use ota_trust::{
    key::{KeyId, Signer},
    metadata::{Mode, Role},
};
use serde_json::json;

use super::{Quorum, RootKeyFiles, borrowed, explain_files};
use crate::{
    client::Client,
    error::Failure,
    output::{Document, Fact},
    publication,
    roots::{self, Draft, Roots, Which},
    session::Session,
    signing::TargetsKey,
    time,
};

/// Arguments of `keys adopt`.
#[derive(Debug, Args)]
#[command(after_help = "\
Makes the root keys of both repositories in files on this machine, signs the next roots with them and has the server sign \
these once with its own root keys, which it then deletes together with its key for releases. Devices follow by themselves, \
also those that come back in a year. There is no way back: the server can never sign a root again.

From then on a stolen server cannot install anything that your people did not sign. You have to keep the files, and renew \
the roots once a year.

A run that was interrupted is repeated with the same arguments; it takes the files that are there.

Examples:
  otactl keys adopt --threshold 2 --of 3
  otactl keys adopt --threshold 2 --of 3 --out /media/usb/ota-root-keys")]
pub struct Adopt {
    /// Root keys that have to sign
    #[arg(long, value_name = "N")]
    threshold: u32,
    /// Root keys there are
    #[arg(long, value_name = "N")]
    of: u32,
    /// Make the root key files in this folder [default: beside the signing keys]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    #[command(flatten)]
    key: TargetsKey,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

impl Adopt {
    pub(super) async fn run(self, session: &mut Session) -> Result<(), Failure> {
        let quorum = Quorum { threshold: self.threshold, of: self.of }.check()?;
        let client = session.client().await?;
        let folder = match self.out {
            Some(folder) => folder,
            None => session.targets_key_path(client.context())?.with_extension("root-keys"),
        };
        let roots = Roots::refresh(session, &client).await?;
        let RootKeyFiles { paths, signers } = if roots.mode() == Mode::Managed {
            session.asker.confirm(
                &format!(
                    "Take the root keys over? {} of {} files in {} will be needed to change any key, for ever.",
                    quorum.threshold,
                    quorum.of,
                    folder.display()
                ),
                self.yes,
            )?;
            let key = self.key.ready(session, &client).await?;
            let files = RootKeyFiles::make(&folder, quorum.of)?;
            let servers = server_targets_keys(&client).await?;
            // Everything that is listed has to be signed by a key that stays.
            publication::publish_all(session, &client, &key).await?;
            take_over(session, &client, &borrowed(&files.signers), quorum, &servers).await?;
            files
        } else {
            // By an earlier run whose answer was lost, or by somebody else: the files tell.
            RootKeyFiles::open(&folder, Quorum::MOST)?
        };
        let roots = Roots::refresh(session, &client).await?;
        check(&roots, &borrowed(&signers), quorum)?;
        let expires = Some(time::timestamp(roots.image.root().expires));
        let document = Document::plain(json!({
            "mode": "TRUST_MODE_ADOPTED",
            "threshold": quorum.threshold,
            "rootKeys": paths,
            "expireTime": time::exact(expires.as_ref()),
        }));
        let facts = [
            Fact::new("Root keys", super::mode_cell(ota_proto::admin::v1::TrustMode::Adopted)),
            Fact::new("Have to sign", format!("{} of {}", quorum.threshold, quorum.of)),
            Fact::new("Run out", time::exact(expires.as_ref())),
        ];
        session.printer.answer(&document, "ADOPTED", &facts)?;
        session.printer.flush()?;
        explain_files(session, quorum, &paths);
        Ok(())
    }
}

/// Publishes the roots that hand over.
async fn take_over(
    session: &Session,
    client: &Client,
    signers: &[&dyn Signer],
    quorum: Quorum,
    servers: &BTreeSet<KeyId>,
) -> Result<(), Failure> {
    let public: Vec<_> = signers.iter().map(|signer| signer.public_key()).collect();
    let edit = |draft: &mut Draft<'_>| {
        if draft.old.mode == Mode::Adopted {
            // By this very command, whose answer was lost.
            return Ok(());
        }
        draft.root.mode = Mode::Adopted;
        draft.root.set_role(Role::Root, quorum.threshold, &public);
        match draft.which {
            Which::Image => keep_peoples_keys(draft, servers),
            // The server goes on to say what each device should run.
            Which::Director => Ok(()),
        }
    };
    roots::change(session, client, signers, edit).await.map(|_| ())
}

/// Takes the server's keys from those that sign releases.
fn keep_peoples_keys(draft: &mut Draft<'_>, servers: &BTreeSet<KeyId>) -> Result<(), Failure> {
    let keep: Vec<_> = draft.old.keys_of(Role::Targets).filter(|key| !servers.contains(&key.id())).cloned().collect();
    if keep.is_empty() {
        return Err(Failure::failed("nobody but the server could sign releases").hint("repeat the command"));
    }
    draft.root.set_role(Role::Targets, 1, &keep.iter().collect::<Vec<_>>());
    Ok(())
}

/// Asks which of the keys that sign releases the server holds.
async fn server_targets_keys(client: &Client) -> Result<BTreeSet<KeyId>, Failure> {
    let status = client.trust().get_trust_status(GetTrustStatusRequest {}).await?.into_inner();
    let targets = status
        .roles
        .iter()
        .filter(|role| role.repository() == WireRepository::Image && role.role == Role::Targets.as_str());
    Ok(targets
        .flat_map(|role| &role.keys)
        .filter(|key| key.held_by_server)
        .filter_map(|key| key.key_id.parse().ok())
        .collect())
}

/// Makes sure that both roots are those of the files, and were made as was asked.
fn check(roots: &Roots, signers: &[&dyn Signer], quorum: Quorum) -> Result<(), Failure> {
    let ours: BTreeSet<KeyId> = signers.iter().map(|signer| signer.public_key().id()).collect();
    for repository in [&roots.image, &roots.director] {
        let root = repository.root();
        let named: BTreeSet<KeyId> = root.keys_of(Role::Root).map(|key| key.id()).collect();
        let (threshold, of) = (root.threshold(Role::Root), named.len());
        if root.mode != Mode::Adopted || named != ours {
            return Err(Failure::failed("the root keys are not the server's any more, and their files are not here")
                .hint(
                    "somebody took them over: see `otactl keys status`; `otactl keys rotate root` replaces root keys",
                ));
        }
        if (threshold, u32::try_from(of)) != (quorum.threshold, Ok(quorum.of)) {
            return Err(Failure::failed(format!(
                "the root keys were taken over already: {threshold} of {of} have to sign"
            ))
            .hint("`otactl keys rotate root` replaces them, and can change how many there are"));
        }
    }
    Ok(())
}
