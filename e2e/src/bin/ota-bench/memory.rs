//! How much memory the server and the agent need above what they have at rest, while a large payload is uploaded,
//! downloaded and applied.

use std::{fs::File, path::Path, process::Command, time::Duration};

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use ota_domain::release::Payload;
use ota_proto::admin::v1::{DeploymentState, EnrollToken, Installer, ListDevicesRequest, Release, target::Choice};

use crate::{
    child::{self, Child},
    figure::Figure,
    product::{self, Product},
    source::{self, MIB},
    upload,
};

/// Files in the archive.
const FILES: u64 = 4;

/// How long a program may have nothing to do before its memory counts as what it has at rest.
const REST: Duration = Duration::from_secs(3);
const LOOK: Duration = Duration::from_millis(200);
const LIMIT: Duration = Duration::from_secs(600);

/// What to measure.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// Size of the payload in MiB.
    #[arg(long, value_name = "N", default_value_t = 1024)]
    pub(crate) mib: u64,
}

/// Measures and prints.
pub(crate) async fn run(scratch: &Path, options: &Options) -> anyhow::Result<()> {
    let folder = crate::scratch_folder(scratch)?;
    let archive = folder.path().join("payload.tar");
    let payload = pack(&archive, options.mib * MIB)?;
    let product = Product::start(scratch, &["--check-in-interval", "1s"]).await?;
    let operator = product.operator();
    let agent = enroll(&product, &folder.path().join("agent")).await?;
    tokio::time::sleep(REST).await;

    let server = Peak::begin(product.server.pid())?;
    upload::send(&operator, &archive, payload).await?;
    server.print("memory_server_upload", options)?;

    let release = Release {
        installer: Installer::Directory.into(),
        payload: format!("payloads/{}", payload.sha256),
        ..Release::default()
    };
    let release = operator.create_release("bench", "1.0.0", release).await?;
    tokio::time::sleep(REST).await;
    let (server, device) = (Peak::begin(product.server.pid())?, Peak::begin(agent.pid())?);
    operator.create_rollout(&release, Choice::All(true)).await?;
    succeeded(&product).await?;
    server.print("memory_server_download", options)?;
    device.print("memory_agent", options)?;
    agent.stop()?;
    product.stop().await
}

/// Memory since it was at rest.
struct Peak {
    pid: u32,
    rest: f64,
}

impl Peak {
    fn begin(pid: u32) -> anyhow::Result<Self> {
        child::forget_peak(pid)?;
        Ok(Self { pid, rest: child::memory(pid)?.now })
    }

    fn print(&self, name: &str, options: &Options) -> anyhow::Result<()> {
        let peak = child::memory(self.pid)?.peak;
        Figure::alone(name, peak - self.rest, "MiB above rest")
            .target("value <= 64")
            .detail("rest_mib", crate::figure::round(self.rest))
            .detail("peak_mib", crate::figure::round(peak))
            .detail("payload_mib", options.mib)
            .print()
    }
}

/// Packs random files into an archive.
fn pack(archive: &Path, size_bytes: u64) -> anyhow::Result<Payload> {
    let mut builder = tar::Builder::new(File::create(archive)?);
    for number in 0..FILES {
        let content = archive.with_extension("content");
        source::create(&content, size_bytes / FILES)?;
        builder.append_path_with_name(&content, format!("file-{number}"))?;
        std::fs::remove_file(content)?;
    }
    builder.into_inner()?.sync_all()?;
    source::name(archive)
}

/// Enrols one agent and starts it.
async fn enroll(product: &Product, data: &Path) -> anyhow::Result<Child> {
    let string = product.operator().enrollment_string(EnrollToken { max_uses: 1, ..EnrollToken::default() }).await;
    let program = product::program("ota-agent")?;
    let status = Command::new(&program)
        .args(["enroll", &string, "--server", &product.url, "--data-dir"])
        .arg(data)
        .stdout(std::process::Stdio::null())
        .status()?;
    ensure!(status.success(), "the agent does not enrol: {status}");
    Child::start("ota-agent", Command::new(program).args(["run", "--data-dir"]).arg(data))
}

/// Waits until the one device has succeeded.
async fn succeeded(product: &Product) -> anyhow::Result<()> {
    let operator = product.operator();
    let devices = operator.devices().list_devices(ListDevicesRequest::default()).await?.into_inner().devices;
    let device = &devices.first().context("no device")?.name;
    let mut looks = tokio::time::interval(LOOK);
    let look = async {
        loop {
            looks.tick().await;
            let deployments = operator.deployments(device).await;
            let newest = deployments.first().context("no deployment")?;
            match newest.state() {
                DeploymentState::Succeeded => return Ok(()),
                DeploymentState::Failed
                | DeploymentState::RolledBack
                | DeploymentState::Rejected
                | DeploymentState::TimedOut
                | DeploymentState::Canceled
                | DeploymentState::Superseded => bail!("the deployment ended: {newest:?}"),
                DeploymentState::Unspecified
                | DeploymentState::Queued
                | DeploymentState::Granted
                | DeploymentState::Downloading
                | DeploymentState::Installing
                | DeploymentState::Rebooting
                | DeploymentState::Verifying => {}
            }
        }
    };
    tokio::time::timeout(LIMIT, look).await.context("the agent does not finish")?
}
