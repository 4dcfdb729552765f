//! `device`: the machines of the fleet.

mod view;

pub use view::pairs;

use clap::{Args, Subcommand};
use ota_proto::admin::v1::{
    ApproveDeviceRequest, DecommissionDeviceRequest, DeleteDeviceRequest, Device, ExplainDeviceRequest,
    GetDeviceRequest, ListDevicesRequest, RejectDeviceRequest, UpdateDeviceRequest,
};
use prost_types::FieldMask;

use crate::{
    client::Client,
    consent::need_to_lose,
    error::{Failure, promised},
    label_edit::{LabelEdit, repeated},
    listing::{self, ListOptions, Page, PageRequest},
    output::{Document, Fact},
    reference::{IdRef, short},
    session::Session,
    text,
};

/// Collection of devices in resource names.
const COLLECTION: &str = "devices";

/// What to do with devices.
#[derive(Debug, Subcommand)]
pub enum DeviceCommand {
    /// List devices, newest first
    List(List),
    /// Show a device with its inventory
    Get(One),
    /// Set and remove labels
    Label(Label),
    /// Let pending or rejected devices into the fleet
    Approve(Several),
    /// Keep pending devices out of the fleet
    Reject(Several),
    /// Take devices out of the fleet for good
    Decommission(Drastic),
    /// Forget rejected or decommissioned devices
    Delete(Drastic),
    /// Say why a device is or is not being updated
    Explain(One),
}

/// Arguments of `device list`.
#[derive(Debug, Args)]
#[command(after_help = "\
Selectors are those of Kubernetes labels; filters use the same grammar over state, hardware, hardware_id and online.

Examples:
  otactl device list -l 'site=lab,ring in (canary,early),!frozen'
  otactl device list --filter state=pending -o name | xargs otactl device approve
  otactl device list --watch")]
pub struct List {
    /// Only devices whose labels match
    #[arg(short = 'l', long, value_name = "SELECTOR", default_value = "", hide_default_value = true)]
    selector: String,
    /// Only devices whose fields match
    #[arg(long, value_name = "FILTER", default_value = "", hide_default_value = true)]
    filter: String,
    #[command(flatten)]
    list: ListOptions,
}

/// Arguments of commands about one device.
#[derive(Debug, Args)]
#[command(
    after_help = "A DEVICE is a UUID, devices/UUID, or the beginning or end of a UUID that fits one device alone.\n\nExamples:\n  otactl device get 4f21a0c3\n  otactl device explain 4f21a0c3"
)]
pub struct One {
    /// The device
    #[arg(value_name = "DEVICE")]
    device: String,
}

/// Arguments of commands about several devices.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  otactl device approve 4f21a0c3 9b07d512\n  otactl device list --filter state=pending -o name | xargs otactl device reject"
)]
pub struct Several {
    /// The devices
    #[arg(value_name = "DEVICE", required = true)]
    devices: Vec<String>,
}

/// Arguments of commands about several devices that cannot be undone.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  otactl device decommission 4f21a0c3\n  otactl device delete 4f21a0c3 --yes")]
pub struct Drastic {
    /// The devices
    #[arg(value_name = "DEVICE", required = true)]
    devices: Vec<String>,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

/// Arguments of `device label`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  otactl device label 4f21a0c3 site=lab ring=canary\n  otactl device label 4f21a0c3 frozen-"
)]
pub struct Label {
    /// The device
    #[arg(value_name = "DEVICE")]
    device: String,
    /// key=value sets a label, key- removes one
    #[arg(value_name = "KEY=VALUE|KEY-", required = true)]
    edits: Vec<LabelEdit>,
}

impl DeviceCommand {
    /// Does it.
    pub async fn run(self, session: &mut Session) -> Result<(), Failure> {
        let client = session.client().await?;
        match self {
            Self::List(command) => {
                let fetch = async |page| list(&client, &command.selector, &command.filter, page).await;
                listing::show(session, &command.list, fetch).await
            }
            Self::Get(command) => {
                let name = resolve(&client, &command.device).await?;
                let device = client.devices().get_device(GetDeviceRequest { name }).await?.into_inner().device;
                session.printer.one(&promised(device)?)
            }
            Self::Label(command) => label(session, &client, command).await,
            Self::Approve(command) => {
                for name in resolve_all(&client, &command.devices).await? {
                    let device = client
                        .devices()
                        .approve_device(ApproveDeviceRequest { name, ..Default::default() })
                        .await?
                        .into_inner()
                        .device;
                    session.printer.done(&promised(device)?, "approved")?;
                }
                Ok(())
            }
            Self::Reject(command) => {
                for name in resolve_all(&client, &command.devices).await? {
                    let device =
                        client.devices().reject_device(RejectDeviceRequest { name }).await?.into_inner().device;
                    session.printer.done(&promised(device)?, "rejected")?;
                }
                Ok(())
            }
            Self::Decommission(command) => {
                let names = resolve_all(&client, &command.devices).await?;
                let question = format!("Take {} out of the fleet for good?", what(&names));
                session.asker.obtain(&question, need_to_lose(names.len(), command.yes))?;
                for name in names {
                    let request = DecommissionDeviceRequest { name };
                    let device = client.devices().decommission_device(request).await?.into_inner().device;
                    session.printer.done(&promised(device)?, "decommissioned")?;
                }
                Ok(())
            }
            Self::Delete(command) => {
                let names = resolve_all(&client, &command.devices).await?;
                let question = format!("Forget {}?", what(&names));
                session.asker.obtain(&question, need_to_lose(names.len(), command.yes))?;
                for name in names {
                    client.devices().delete_device(DeleteDeviceRequest { name: name.clone() }).await?;
                    session.printer.gone(&name, "deleted")?;
                }
                Ok(())
            }
            Self::Explain(command) => explain(session, &client, &command.device).await,
        }
    }
}

async fn label(session: &mut Session, client: &Client, command: Label) -> Result<(), Failure> {
    let twice = repeated(&command.edits);
    if !twice.is_empty() {
        return Err(Failure::usage(format!("labels that would change twice: {}", twice.join(", "))));
    }
    let name = resolve(client, &command.device).await?;
    // Each key is masked by itself, so that nobody else's change of another label is undone and no etag is needed.
    let paths = command.edits.iter().map(|edit| format!("labels.{}", edit.key())).collect();
    let labels = command.edits.into_iter().filter_map(|edit| match edit {
        LabelEdit::Set(key, value) => Some((key, value)),
        LabelEdit::Remove(_) => None,
    });
    let device = Device { name, labels: labels.collect(), ..Device::default() };
    let request = UpdateDeviceRequest { device: Some(device), update_mask: Some(FieldMask { paths }) };
    let device = client.devices().update_device(request).await?.into_inner().device;
    session.printer.done(&promised(device)?, "labeled")
}

async fn explain(session: &mut Session, client: &Client, device: &str) -> Result<(), Failure> {
    let name = resolve(client, device).await?;
    let answer = client.devices().explain_device(ExplainDeviceRequest { name: name.clone() }).await?.into_inner();
    if answer.packages.is_empty() {
        session.messages.say("the device runs no release that the server knows of, and none is wanted");
    }
    let mut facts = Vec::new();
    for package in &answer.packages {
        let or_none = |version: &str| if version.is_empty() { "nothing".to_owned() } else { version.to_owned() };
        facts.push(Fact::new("Package", package.package.as_str()));
        facts.push(Fact::new("  Runs", or_none(&package.running_version)));
        facts.push(Fact::new("  Should run", or_none(&package.desired_version)));
        facts.push(Fact::new("  Waits for", package.waiting_on.join("\n")));
    }
    let document = Document::new("ota.admin.v1.ExplainDeviceResponse", &answer);
    session.printer.answer(&document, &name, &facts)
}

/// Fetches a page of devices.
pub async fn list(
    client: &Client,
    selector: &str,
    filter: &str,
    page: PageRequest,
) -> Result<Page<Device>, tonic::Status> {
    let request = ListDevicesRequest {
        page_size: page.size,
        page_token: page.token,
        selector: selector.to_owned(),
        filter: filter.to_owned(),
    };
    let answer = client.devices().list_devices(request).await?.into_inner();
    Ok(Page { items: answer.devices, next: answer.next_page_token })
}

/// Finds the device that somebody named.
pub async fn resolve(client: &Client, text: &str) -> Result<String, Failure> {
    let names = resolve_all(client, std::slice::from_ref(&text)).await?;
    promised(names.into_iter().next())
}

/// Finds the devices that somebody named. Looks at the list only when one is not named in full.
pub async fn resolve_all(client: &Client, texts: &[impl AsRef<str>]) -> Result<Vec<String>, Failure> {
    let ids: Vec<IdRef> =
        texts.iter().map(|text| IdRef::parse(COLLECTION, text.as_ref())).collect::<Result<_, Failure>>()?;
    let listed = if ids.iter().any(|id| matches!(id, IdRef::Partial(_))) {
        listing::fetch_all(None, async |page| list(client, "", "", page).await).await?
    } else {
        Vec::new()
    };
    ids.iter().map(|id| id.pick(COLLECTION, listed.iter().map(|device| device.name.as_str()))).collect()
}

/// Names devices in a question.
fn what(names: &[String]) -> String {
    match names {
        [name] => format!("device {}", short(name)),
        names => text::count(i64::try_from(names.len()).unwrap_or(i64::MAX), "device"),
    }
}
