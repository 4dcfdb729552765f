//! `keys drill`: prove that root keys are enough while nothing depends on it.

use clap::Args;
use ota_trust::metadata::{Mode, Role};
use serde_json::json;

use super::{RootKeys, borrowed};
use crate::{
    error::Failure,
    output::{Cell, Document, Fact, Tone},
    roots::Roots,
    session::Session,
};

/// Arguments of `keys drill`.
#[derive(Debug, Args)]
#[command(after_help = "\
Signs the next roots with the keys at hand, verifies them as a device would, and throws them away. Nothing is sent. The \
exit code is 0 when the keys are enough. Do it once a year, with the media from where they are kept.

Examples:
  otactl keys drill --root-key root-1.pem --root-key root-3.pem")]
pub struct Drill {
    #[command(flatten)]
    keys: RootKeys,
}

impl Drill {
    pub(super) async fn run(self, session: &mut Session) -> Result<(), Failure> {
        let client = session.client().await?;
        let roots = Roots::refresh(session, &client).await?;
        if roots.mode() == Mode::Managed {
            return Err(Failure::failed("the server holds the root keys: there is nothing to try with files")
                .hint("`otactl keys adopt` takes them over"));
        }
        let signers = self.keys.open(session.asker)?;
        roots.suffices(session.now(), &borrowed(&signers))?;
        let root = roots.image.root();
        let (threshold, of) = (root.threshold(Role::Root), root.keys_of(Role::Root).count());
        let ids: Vec<_> = signers.iter().map(|signer| signer.public_key().id().to_string()).collect();
        let document = Document::plain(json!({ "enough": true, "threshold": threshold, "of": of, "keys": ids }));
        let facts = [
            Fact::new("Drill", Cell::toned("these keys are enough to change every key", Tone::Good)),
            Fact::new("Have to sign", format!("{threshold} of {of}")),
            Fact::new("At hand", ids.join("\n")),
        ];
        session.printer.answer(&document, "enough", &facts)?;
        session.messages.say("nothing was published; put the keys back where they were");
        Ok(())
    }
}
