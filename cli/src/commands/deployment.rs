//! `deployment`: the journeys of single devices.

mod view;

use clap::{Args, Subcommand};
use ota_proto::admin::v1::{
    CancelDeploymentRequest, Deployment, GetDeploymentRequest, ListDeploymentsRequest, RetryDeploymentRequest,
};

use crate::{
    client::Client,
    commands::{device, rollout},
    error::{Failure, promised},
    listing::{self, ListOptions, Page, PageRequest},
    reference::IdRef,
    session::Session,
};

pub use view::failure_line;

/// Collection of deployments in resource names.
const COLLECTION: &str = "deployments";

/// What to do with deployments.
#[derive(Debug, Subcommand)]
pub enum DeploymentCommand {
    /// List deployments, newest first
    List(List),
    /// Show a deployment, with the reason if it failed
    Get(One),
    /// Cancel deployments that have not switched yet
    Cancel(Several),
    /// Try failed deployments again
    Retry(Several),
}

/// Arguments of `deployment list`.
#[derive(Debug, Args)]
#[command(after_help = "\
Filters use the grammar of selectors over the fields state and package.

Examples:
  otactl deployment list --device 4f21a0c3
  otactl deployment list --rollout 9b07d512 --filter 'state in (failed,rolled_back)' -o wide
  otactl deployment list --watch")]
pub struct List {
    /// Only this device's deployments, its update history
    #[arg(long, value_name = "DEVICE")]
    device: Option<String>,
    /// Only this rollout's deployments
    #[arg(long, value_name = "ROLLOUT")]
    rollout: Option<String>,
    /// Only deployments whose fields match
    #[arg(long, value_name = "FILTER", default_value = "", hide_default_value = true)]
    filter: String,
    #[command(flatten)]
    list: ListOptions,
}

/// Arguments of commands about one deployment.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  otactl deployment get 4f21a0c3")]
pub struct One {
    /// The deployment: a UUID, or its beginning or end
    #[arg(value_name = "DEPLOYMENT")]
    deployment: String,
}

/// Arguments of commands about several deployments.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  otactl deployment retry 4f21a0c3\n  otactl deployment list --rollout 9b07d512 --filter state=failed -o name | xargs otactl deployment retry"
)]
pub struct Several {
    /// The deployments: UUIDs, or their beginnings or ends
    #[arg(value_name = "DEPLOYMENT", required = true)]
    deployments: Vec<String>,
}

/// Which deployments to list.
#[derive(Debug, Default)]
pub struct Which {
    /// `devices/{device}`, or empty.
    pub device: String,
    /// `rollouts/{rollout}`, or empty.
    pub rollout: String,
    /// Filter, or empty.
    pub filter: String,
}

impl DeploymentCommand {
    /// Does it.
    pub async fn run(self, session: &mut Session) -> Result<(), Failure> {
        let client = session.client().await?;
        match self {
            Self::List(command) => {
                let mut which = Which { filter: command.filter, ..Which::default() };
                if let Some(text) = &command.device {
                    which.device = device::resolve(&client, text).await?;
                }
                if let Some(text) = &command.rollout {
                    which.rollout = rollout::resolve(&client, text).await?;
                }
                let fetch = async |page| list(&client, &which, page).await;
                listing::show(session, &command.list, fetch).await
            }
            Self::Get(command) => {
                let name = resolve(&client, &command.deployment).await?;
                let request = GetDeploymentRequest { name };
                let deployment = client.rollouts().get_deployment(request).await?.into_inner().deployment;
                session.printer.one(&promised(deployment)?)
            }
            Self::Cancel(command) => {
                for text in &command.deployments {
                    let request = CancelDeploymentRequest { name: resolve(&client, text).await? };
                    let deployment = client.rollouts().cancel_deployment(request).await?.into_inner().deployment;
                    session.printer.done(&promised(deployment)?, "canceled")?;
                }
                Ok(())
            }
            Self::Retry(command) => {
                for text in &command.deployments {
                    let request = RetryDeploymentRequest { name: resolve(&client, text).await? };
                    let deployment = client.rollouts().retry_deployment(request).await?.into_inner().deployment;
                    session.printer.done(&promised(deployment)?, "queued again")?;
                }
                Ok(())
            }
        }
    }
}

/// Fetches a page of deployments.
pub async fn list(client: &Client, which: &Which, page: PageRequest) -> Result<Page<Deployment>, tonic::Status> {
    let request = ListDeploymentsRequest {
        page_size: page.size,
        page_token: page.token,
        rollout: which.rollout.clone(),
        device: which.device.clone(),
        filter: which.filter.clone(),
    };
    let answer = client.rollouts().list_deployments(request).await?.into_inner();
    Ok(Page { items: answer.deployments, next: answer.next_page_token })
}

async fn resolve(client: &Client, text: &str) -> Result<String, Failure> {
    let id = IdRef::parse(COLLECTION, text)?;
    let listed = match id {
        IdRef::Full(_) => Vec::new(),
        IdRef::Partial(_) => listing::fetch_all(None, async |page| list(client, &Which::default(), page).await).await?,
    };
    id.pick(COLLECTION, listed.iter().map(|deployment| deployment.name.as_str()))
}
