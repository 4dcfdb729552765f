//! `event verify`: recompute the seals of the event log.

use std::path::PathBuf;

use clap::Args;
use ota_proto::admin::v1::ListEventSealsRequest;
use serde_json::json;

use crate::{
    backoff::patiently,
    client::Client,
    error::Failure,
    output::{Cell, Document, Fact, Tone},
    seals::{self, Broken, Chain, Walked},
    session::Session,
    text, time,
};

/// Seals asked for at a time. Each has up to a thousand records of around half a kilobyte.
const PAGE_SIZE: i32 = 10;

/// Arguments of `event verify`.
#[derive(Debug, Args)]
#[command(after_help = "\
Every few seconds the server seals the events since the last seal: their hashes are chained onto the hash before. This \
fetches all seals with what they cover and computes the hashes again. The exit code is 0 when every seal is right, and 1 \
when one is not; the first that is wrong is named.

Somebody who owns the database could rewrite the log and seal it anew. With --from, the last seal is kept in a file, and \
the next run fails when that seal is another one or gone. Keep the file where the server's owner cannot write.

Examples:
  otactl event verify
  otactl event verify --from audit/production.seal")]
pub struct Verify {
    /// Compare with the seal in this file, then keep the last one there; the first run creates it
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
}

impl Verify {
    pub(super) async fn run(self, session: &mut Session) -> Result<(), Failure> {
        let remembered = self.from.as_deref().map(seals::recall).transpose()?.flatten();
        let client = session.client().await?;
        let (walked, newest) = walk(session, &client, Chain::new(remembered)).await?;
        if let Some(path) = self.from.as_deref().filter(|_| walked.head.number > 0) {
            seals::remember(path, walked.head)?;
        }
        let document = Document::plain(json!({
            "seals": walked.head.number,
            "records": walked.records,
            "sha256": walked.head.sha256,
            "remembered": remembered.map(|head| head.number),
        }));
        let mut facts = vec![
            Fact::new("Event log", Cell::toned("unchanged", Tone::Good)),
            Fact::new("Seals", walked.head.number.to_string()),
            Fact::new("Events", walked.records.to_string()),
            Fact::new(
                "Last seal",
                format!("{} ({} ago)", walked.head.sha256, time::age(newest.as_ref(), session.now())),
            ),
        ];
        if let Some(head) = remembered {
            facts.push(Fact::new("Same as before", format!("up to seal {}", head.number)));
        }
        session.printer.answer(&document, &walked.head.sha256.to_string(), &facts)
    }
}

/// Fetches every seal and checks it. Returns also when the last one was made.
async fn walk(
    session: &Session,
    client: &Client,
    mut chain: Chain,
) -> Result<(Walked, Option<prost_types::Timestamp>), Failure> {
    let mut token = String::new();
    let mut newest = None;
    loop {
        let fetch = async || {
            let request = ListEventSealsRequest { page_size: PAGE_SIZE, page_token: token.clone() };
            client.events().list_event_seals(request).await
        };
        let page = patiently(session.messages, "reading the log", fetch).await?.into_inner();
        for seal in page.seals {
            let made = seal.time;
            chain.next(seal).map_err(|broken| failure(&broken, &chain, made.as_ref()))?;
            newest = made;
        }
        token = page.next_page_token;
        if token.is_empty() {
            let seals = chain.clone();
            let walked = chain.end().map_err(|broken| failure(&broken, &seals, None))?;
            return Ok((walked, newest));
        }
    }
}

/// Says which seal is wrong, how, and what that means.
fn failure(broken: &Broken, chain: &Chain, made: Option<&prost_types::Timestamp>) -> Failure {
    let made = made.map(|made| format!("the seal was made {}", time::exact(Some(made))));
    let right = text::count(chain.seals(), "seal");
    Failure::failed(format!("the event log was changed: {broken}"))
        .details(made.into_iter().chain([format!("{right} before it fit")]))
        .hint("compare with a backup of the database from before that time")
}
