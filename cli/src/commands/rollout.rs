//! `rollout`: the campaigns that bring a release to devices.

mod view;

use clap::{Args, Subcommand};
use ota_proto::admin::v1::{CancelRolloutRequest, GetRolloutRequest, ListRolloutsRequest, Rollout};

use crate::{
    client::Client,
    error::{Failure, promised},
    listing::{self, ListOptions, Page, PageRequest},
    reference::IdRef,
    session::Session,
};

/// Collection of rollouts in resource names.
const COLLECTION: &str = "rollouts";

/// What to do with rollouts.
#[derive(Debug, Subcommand)]
pub enum RolloutCommand {
    /// List rollouts, newest first
    List(List),
    /// Show a rollout
    Get(Get),
    /// End a rollout: devices that have not begun never will
    Cancel(Cancel),
}

/// Arguments of `rollout list`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  otactl rollout list\n  otactl rollout list --limit 5 --watch")]
pub struct List {
    #[command(flatten)]
    list: ListOptions,
}

/// Arguments of `rollout get`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  otactl rollout get 4f21a0c3\n  otactl rollout get 4f21a0c3 -o json | jq .counts")]
pub struct Get {
    /// The rollout: a UUID, or its beginning or end
    #[arg(value_name = "ROLLOUT")]
    rollout: String,
}

/// Arguments of `rollout cancel`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  otactl rollout cancel 4f21a0c3\n  otactl rollout cancel 4f21a0c3 --force")]
pub struct Cancel {
    /// The rollout: a UUID, or its beginning or end
    #[arg(value_name = "ROLLOUT")]
    rollout: String,
    /// Also stop devices at work, as far as they have not switched
    #[arg(long)]
    force: bool,
}

impl RolloutCommand {
    /// Does it.
    pub async fn run(self, session: &mut Session) -> Result<(), Failure> {
        let client = session.client().await?;
        match self {
            Self::List(command) => {
                let fetch = async |page| list(&client, page).await;
                listing::show(session, &command.list, fetch).await
            }
            Self::Get(command) => {
                let name = resolve(&client, &command.rollout).await?;
                let rollout = client.rollouts().get_rollout(GetRolloutRequest { name }).await?.into_inner().rollout;
                session.printer.one(&promised(rollout)?)
            }
            Self::Cancel(command) => {
                let name = resolve(&client, &command.rollout).await?;
                let request = CancelRolloutRequest { name, force: command.force };
                let rollout = client.rollouts().cancel_rollout(request).await?.into_inner().rollout;
                session.printer.done(&promised(rollout)?, "canceled")
            }
        }
    }
}

async fn list(client: &Client, page: PageRequest) -> Result<Page<Rollout>, tonic::Status> {
    let request = ListRolloutsRequest { page_size: page.size, page_token: page.token };
    let answer = client.rollouts().list_rollouts(request).await?.into_inner();
    Ok(Page { items: answer.rollouts, next: answer.next_page_token })
}

/// Finds the rollout that somebody named.
pub async fn resolve(client: &Client, text: &str) -> Result<String, Failure> {
    let id = IdRef::parse(COLLECTION, text)?;
    let listed = match id {
        IdRef::Full(_) => Vec::new(),
        IdRef::Partial(_) => listing::fetch_all(None, async |page| list(client, page).await).await?,
    };
    id.pick(COLLECTION, listed.iter().map(|rollout| rollout.name.as_str()))
}
