//! `ota-tuf-client`: follows any repository of The Update Framework over HTTP, as the public conformance suite
//! (<https://github.com/theupdateframework/tuf-conformance>) asks of a client.
//!
//! What is verified and what is kept goes through the code that the agent uses: `ota_trust::verify` and [`trust_store`].
//! It is a program of its own so that the one on devices carries no second way to fetch anything.
//!
//! [`trust_store`]: crate::trust_store

mod artifact;
mod folder;
mod mirror;
mod refresh;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use chrono::Utc;
use clap::{Parser, Subcommand};

use folder::Folder;
use mirror::Mirror;

#[derive(Debug, Parser)]
#[command(name = "ota-tuf-client", version, about = "Follows a repository of The Update Framework")]
struct Cli {
    /// Where to keep what is trusted
    #[arg(long, value_name = "DIR")]
    metadata_dir: PathBuf,
    /// Where the repository's metadata is
    #[arg(long, value_name = "URL")]
    metadata_url: Option<String>,
    /// Path of the artifact, as the repository lists it
    #[arg(long, value_name = "PATH")]
    target_name: Option<String>,
    /// Where the repository's artifacts are
    #[arg(long, value_name = "URL")]
    target_base_url: Option<String>,
    /// Where to put the artifact
    #[arg(long, value_name = "DIR")]
    target_dir: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Trust a root
    Init {
        /// The root's file
        root: PathBuf,
    },
    /// Bring the metadata up to date
    Refresh,
    /// Bring the metadata up to date and fetch an artifact
    Download,
}

/// Reads the command line, does what it says and returns the exit code: 0 when all of it was done, 1 otherwise.
pub fn main() -> ExitCode {
    match try_main(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn try_main(cli: &Cli) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match &cli.command {
        Command::Init { root } => init(&cli.metadata_dir, root),
        Command::Refresh => runtime.block_on(refresh(cli)).map(drop),
        Command::Download => runtime.block_on(download(cli)),
    }
}

fn init(folder: &Path, root: &Path) -> anyhow::Result<()> {
    let bytes = std::fs::read(root).with_context(|| format!("cannot read {}", root.display()))?;
    Folder::begin(folder, &bytes)
}

async fn refresh(cli: &Cli) -> anyhow::Result<(Folder, Mirror)> {
    let mut folder = Folder::open(&cli.metadata_dir)?;
    let url = cli.metadata_url.as_deref().context("--metadata-url is missing")?;
    let mirror = Mirror::new(url, cli.target_base_url.as_deref())?;
    refresh::refresh(&mut folder, &mirror, Utc::now()).await?;
    Ok((folder, mirror))
}

async fn download(cli: &Cli) -> anyhow::Result<()> {
    let path = cli.target_name.as_deref().context("--target-name is missing")?;
    let target_dir = cli.target_dir.as_deref().context("--target-dir is missing")?;
    anyhow::ensure!(cli.target_base_url.is_some(), "--target-base-url is missing");
    let (mut folder, mirror) = refresh(cli).await?;
    let file = refresh::find(&mut folder, &mirror, path, Utc::now()).await?;
    artifact::fetch(&mirror, path, &file, folder.chain().is_consistent(), target_dir).await
}

/// Escapes a name from a repository so that it is one segment of a URL and the name of one file, whatever it is.
fn escape(name: &str) -> String {
    let mut escaped = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_name_is_one_segment_whatever_it_is() {
        assert_eq!(escape("targets"), "targets");
        assert_eq!(escape("../röle?#%"), "..%2Fr%C3%B6le%3F%23%25");
    }
}
