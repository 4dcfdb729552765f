//! `release`: the versions of packages.

mod notes;
mod view;

use clap::{Args, Subcommand};
use ota_domain::PackageName;
use ota_proto::admin::v1::{
    DeleteReleaseRequest, GetReleaseRequest, ListReleasesRequest, Release, UpdateReleaseRequest, YankReleaseRequest,
};
use prost_types::FieldMask;

use crate::{
    commands::package::parse_package,
    error::{Failure, promised},
    listing::{self, ListOptions, Page},
    reference::ReleaseRef,
    session::Session,
};

pub use notes::Notes;
pub use view::size_of;

/// What to do with releases.
#[derive(Debug, Subcommand)]
pub enum ReleaseCommand {
    /// List releases, newest first
    List(List),
    /// Show a release
    Get(Get),
    /// Change a release's notes; nothing else of a release ever changes
    EditNotes(EditNotes),
    /// Take a release out of use: nothing new installs it
    Yank(Yank),
    /// Delete a release that nothing needs
    Delete(Delete),
}

/// Arguments of `release list`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  otactl release list\n  otactl release list gateway-fw -o wide")]
pub struct List {
    /// Only this package's releases
    #[arg(value_name = "PACKAGE", value_parser = parse_package)]
    package: Option<PackageName>,
    #[command(flatten)]
    list: ListOptions,
}

/// Arguments of `release get`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  otactl release get gateway-fw@1.2.0")]
pub struct Get {
    /// The release
    #[arg(value_name = "PACKAGE@VERSION")]
    release: ReleaseRef,
}

/// Arguments of `release edit-notes`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  otactl release edit-notes gateway-fw@1.2.0 --notes 'Fixes the watchdog'\n  otactl release edit-notes gateway-fw@1.2.0 --notes-file CHANGES.md"
)]
pub struct EditNotes {
    /// The release
    #[arg(value_name = "PACKAGE@VERSION")]
    release: ReleaseRef,
    #[command(flatten)]
    notes: Notes,
}

/// Arguments of `release yank`.
#[derive(Debug, Args)]
#[command(
    after_help = "Its queued deployments are canceled; devices that run it keep it.\n\nExamples:\n  otactl release yank gateway-fw@1.2.0 --reason 'Loses its network after a day'"
)]
pub struct Yank {
    /// The release
    #[arg(value_name = "PACKAGE@VERSION")]
    release: ReleaseRef,
    /// Why, for the event log
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    reason: String,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

/// Arguments of `release delete`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  otactl release delete gateway-fw@1.2.0-rc.1 gateway-fw@1.2.0-rc.2")]
pub struct Delete {
    /// The releases
    #[arg(value_name = "PACKAGE@VERSION", required = true)]
    releases: Vec<ReleaseRef>,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

impl ReleaseCommand {
    /// Does it.
    pub async fn run(self, session: &mut Session) -> Result<(), Failure> {
        let client = session.client().await?.packages();
        match self {
            Self::List(command) => {
                let parent =
                    command.package.map_or_else(|| "packages/-".to_owned(), |package| format!("packages/{package}"));
                let fetch = async |page: listing::PageRequest| {
                    let request =
                        ListReleasesRequest { parent: parent.clone(), page_size: page.size, page_token: page.token };
                    let answer = client.clone().list_releases(request).await?.into_inner();
                    Ok(Page { items: answer.releases, next: answer.next_page_token })
                };
                listing::show(session, &command.list, fetch).await
            }
            Self::Get(command) => {
                let request = GetReleaseRequest { name: command.release.name() };
                let release = client.clone().get_release(request).await?.into_inner().release;
                session.printer.one(&promised(release)?)
            }
            Self::EditNotes(command) => {
                let notes = command.notes.required()?;
                let release = Release { name: command.release.name(), notes, ..Release::default() };
                let update_mask = Some(FieldMask { paths: vec!["notes".to_owned()] });
                let request = UpdateReleaseRequest { release: Some(release), update_mask };
                let release = client.clone().update_release(request).await?.into_inner().release;
                session.printer.done(&promised(release)?, "updated")
            }
            Self::Yank(command) => {
                let question =
                    format!("Yank {}? There is no way back; publish another version instead.", command.release);
                session.asker.confirm(&question, command.yes)?;
                let request = YankReleaseRequest { name: command.release.name(), reason: command.reason };
                let release = client.clone().yank_release(request).await?.into_inner().release;
                session.printer.done(&promised(release)?, "yanked")
            }
            Self::Delete(command) => {
                for release in command.releases {
                    session.asker.confirm(&format!("Delete {release}?"), command.yes)?;
                    let name = release.name();
                    client.clone().delete_release(DeleteReleaseRequest { name: name.clone() }).await?;
                    session.printer.gone(&name, "deleted")?;
                }
                Ok(())
            }
        }
    }
}
