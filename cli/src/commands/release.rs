//! `release`: the versions of packages.

mod notes;
mod signed;
mod view;

use std::path::PathBuf;

use clap::{Args, Subcommand};
use ota_domain::PackageName;
use ota_proto::admin::v1::{
    DeleteReleaseRequest, GetReleaseRequest, ListReleasesRequest, Release, UpdateReleaseRequest,
};
use prost_types::FieldMask;

use crate::{
    commands::package::parse_package,
    error::{Failure, promised},
    listing::{self, ListOptions, Page},
    reference::ReleaseRef,
    session::Session,
    signing::TargetsKey,
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
    /// Sign a release that another program published, so that devices believe it
    Sign(Sign),
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
    after_help = YANK_EXAMPLES
)]
pub struct Yank {
    /// The release
    #[arg(value_name = "PACKAGE@VERSION")]
    release: ReleaseRef,
    /// Why, for the event log
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    reason: String,
    /// Make devices refuse it and every earlier release of the package for good
    #[arg(long)]
    raise_floor: bool,
    #[command(flatten)]
    key: TargetsKey,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

const YANK_EXAMPLES: &str = "\
Its queued deployments are canceled, and it leaves the signed list: devices refuse it, whatever the server says. Devices \
that run it keep it.

With --raise-floor, the signed list also says that releases of the package with its counter or a lower one must not be \
installed any more, not even by somebody who holds the server: for a release with a hole in it.

Examples:
  otactl release yank gateway-fw@1.2.0 --reason 'Loses its network after a day'
  otactl release yank gateway-fw@1.1.7 --reason 'CVE-2026-1234' --raise-floor";

/// Arguments of `release sign`.
#[derive(Debug, Args)]
#[command(after_help = "\
`otactl upload` signs what it uploads. This is for releases that were published in another way. Compare the SHA-256 with \
your own build before you sign: --payload does it for you.

Examples:
  otactl release sign gateway-fw@1.2.0 --payload ./build
  otactl release sign gateway-fw@1.2.0")]
pub struct Sign {
    /// The release
    #[arg(value_name = "PACKAGE@VERSION")]
    release: ReleaseRef,
    /// Refuse unless this file or folder gives the same payload
    #[arg(long, value_name = "PATH")]
    payload: Option<PathBuf>,
    #[command(flatten)]
    key: TargetsKey,
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
    #[command(flatten)]
    key: TargetsKey,
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
            Self::Sign(command) => signed::sign(session, command).await,
            Self::Yank(command) => signed::yank(session, command).await,
            Self::Delete(command) => {
                for release in command.releases {
                    session.asker.confirm(&format!("Delete {release}?"), command.yes)?;
                    let name = release.name();
                    client.clone().delete_release(DeleteReleaseRequest { name: name.clone() }).await?;
                    session.printer.gone(&name, "deleted")?;
                    signed::forget(session, &release, &command.key).await?;
                }
                Ok(())
            }
        }
    }
}
