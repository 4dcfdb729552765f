//! `ota-bench`: measures the product beside its baselines, one scenario for each subcommand, and prints one JSON line for
//! each figure.
//!
//! The released programs run as processes of their own. Product and baseline take turns in one run, because machines are
//! noisy; every scenario ends with a line on how busy the machine was. Nothing here is a test: a figure that misses its
//! target is printed like any other. What a check-in may cost at most is a promise, though: a run that finds it broken fails.

mod bare;
mod check_in;
mod child;
mod download;
mod figure;
mod fleet;
mod machine;
mod memory;
mod nginx;
mod plain_tls;
mod product;
mod raw_stream;
mod source;
mod upload;
mod wake;

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, ensure};
use clap::{Args, Parser, Subcommand};
use machine::Watch;
use ota_server::config::Config;
use tempfile::TempDir;

/// Measures the server beside its baselines.
#[derive(Debug, Parser)]
#[command(name = "ota-bench", version)]
struct Cli {
    #[command(subcommand)]
    scenario: Option<Scenario>,

    /// Small amounts and one round: shows that everything works, and claims nothing.
    #[arg(long, global = true)]
    quick: bool,

    /// Folder for payloads, databases and stores. Needs some gigabytes on the disk that is to be measured.
    #[arg(long, global = true, value_name = "DIR", default_value_os_t = std::env::temp_dir())]
    scratch: PathBuf,
}

#[derive(Debug, Subcommand)]
enum Scenario {
    /// Every scenario, in order. The default.
    All,
    /// Check-ins of a fleet at rest, beside a bare tonic server.
    #[command(name = "check_in", alias = "check-in")]
    CheckIn(check_in::Options),
    /// Downloads of one payload, beside nginx serving the same file.
    Download(download::Options),
    /// An upload, beside hashing and writing the same bytes.
    Upload(upload::Options),
    /// Memory of the server and the agent during a large update.
    Memory(memory::Options),
    /// Devices that hold the doorbell, and one assignment to all.
    Wake(wake::Options),
    /// The baseline of check-ins.
    #[command(hide = true)]
    BareUnary,
    /// The baseline of check-ins with the trust layer.
    #[command(hide = true)]
    PlainTls(Box<Config>),
    /// The baseline of uploads.
    #[command(hide = true)]
    HashAndWrite {
        /// What to read.
        from: PathBuf,
        /// What to write.
        to: PathBuf,
    },
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    let bench = Bench { scratch: cli.scratch, quick: cli.quick };
    match cli.scenario {
        None | Some(Scenario::All) => bench.all().await,
        Some(Scenario::CheckIn(options)) => bench.check_in(options).await,
        Some(Scenario::Download(options)) => bench.download(options).await,
        Some(Scenario::Upload(options)) => bench.upload(options).await,
        Some(Scenario::Memory(options)) => bench.memory(options).await,
        Some(Scenario::Wake(options)) => bench.wake(options).await,
        Some(Scenario::BareUnary) => bare::serve().await,
        Some(Scenario::PlainTls(config)) => plain_tls::serve(&config).await,
        Some(Scenario::HashAndWrite { from, to }) => upload::hash_and_write(&from, &to),
    }
}

/// What holds for every scenario.
struct Bench {
    scratch: PathBuf,
    quick: bool,
}

impl Bench {
    /// Runs every scenario to its end, also after one whose figures are not as they should be.
    async fn all(&self) -> anyhow::Result<()> {
        let outcomes = [
            self.check_in(defaults::<check_in::Options>()?).await,
            self.check_in(check_in::Options { devices: 100_000, ..defaults()? }).await,
            self.check_in(check_in::Options { tls: true, ..defaults()? }).await,
            self.download(defaults()?).await,
            self.upload(defaults()?).await,
            self.memory(defaults()?).await,
            self.wake(defaults()?).await,
        ];
        let mut failed = 0;
        for error in outcomes.into_iter().filter_map(Result::err) {
            eprintln!("ota-bench: {error:#}");
            failed += 1;
        }
        ensure!(failed == 0, "{failed} scenarios failed");
        Ok(())
    }

    async fn check_in(&self, mut options: check_in::Options) -> anyhow::Result<()> {
        if self.quick {
            options = check_in::Options { devices: options.devices.min(1_000), seconds: 1, rounds: 1, ..options };
        }
        let watch = Watch::begin("check_in")?;
        check_in::run(&self.scratch, &options).await?;
        watch.end()
    }

    async fn download(&self, mut options: download::Options) -> anyhow::Result<()> {
        if self.quick {
            options = download::Options { mib: 16, streams: vec![1, 8], rounds: 1, ..options };
        }
        let watch = Watch::begin("download")?;
        download::run(&self.scratch, &options).await?;
        watch.end()
    }

    async fn upload(&self, mut options: upload::Options) -> anyhow::Result<()> {
        if self.quick {
            options = upload::Options { mib: 64, rounds: 1 };
        }
        let watch = Watch::begin("upload")?;
        upload::run(&self.scratch, &options).await?;
        watch.end()
    }

    async fn memory(&self, mut options: memory::Options) -> anyhow::Result<()> {
        if self.quick {
            options = memory::Options { mib: 64 };
        }
        let watch = Watch::begin("memory")?;
        memory::run(&self.scratch, &options).await?;
        watch.end()
    }

    async fn wake(&self, mut options: wake::Options) -> anyhow::Result<()> {
        if self.quick {
            options = wake::Options { devices: 100, rounds: 1 };
        }
        let watch = Watch::begin("wake")?;
        wake::run(&self.scratch, &options).await?;
        watch.end()
    }
}

/// The options of a scenario when none are given.
fn defaults<O: Args + clap::FromArgMatches>() -> anyhow::Result<O> {
    let matches = O::augment_args(clap::Command::new("defaults")).get_matches_from(["defaults"]);
    O::from_arg_matches(&matches).context("the scenario has no defaults")
}

/// Makes a folder that goes when it is dropped. The account that root lends to Postgres has to get in.
fn scratch_folder(parent: &Path) -> anyhow::Result<TempDir> {
    tempfile::Builder::new()
        .prefix("ota-bench-")
        .permissions(fs::Permissions::from_mode(0o755))
        .tempdir_in(parent)
        .with_context(|| format!("cannot make a folder in {}", parent.display()))
}
