//! How soon a fleet that holds the doorbell has come for an assignment: from the operator's call until a device has its
//! deployment.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use clap::Args;
use ota_proto::{
    admin::v1::target::Choice,
    device::v1::{WatchRequest, update_service_client::UpdateServiceClient},
};
use tokio::{sync::Barrier, task::JoinSet};
use tonic::Request;

use crate::{
    check_in,
    figure::{Figure, percentile, round},
    fleet::{self, Device},
    product::{self, Product},
};

/// The package of the assignment; not the one that the devices run.
const PACKAGE: &str = "bench-wake";

/// How long the last device may take before the run is given up.
const LIMIT: Duration = Duration::from_secs(60);

/// What to measure.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// Devices that hold the doorbell, each on a connection of its own.
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    pub(crate) devices: usize,
    /// Assignments, one after the other.
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub(crate) rounds: usize,
}

/// Measures and prints.
pub(crate) async fn run(scratch: &Path, options: &Options) -> anyhow::Result<()> {
    let product = Product::start(scratch, &[]).await?;
    let devices = fleet::register(&product, options.devices).await?;
    let operator = product.operator();
    let (mut p50, mut p99, mut last, mut answered) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for round in 1..=options.rounds {
        let version = format!("{round}.0.0");
        let release = operator.publish(PACKAGE, &version, &Bytes::from(version.clone())).await;
        let ready = Arc::new(Barrier::new(devices.len() + 1));
        let mut waiting = JoinSet::new();
        for device in &devices {
            waiting.spawn(wait(product.url.clone(), device.clone(), version.clone(), Arc::clone(&ready)));
        }
        ready.wait().await;
        let assigned = Instant::now();
        operator.create_rollout(&release, Choice::All(true)).await?;
        answered.push(assigned.elapsed().as_secs_f64() * 1e3);
        let mut waited = Vec::with_capacity(devices.len());
        let collect = async {
            while let Some(came) = waiting.join_next().await {
                waited.push(came??.duration_since(assigned).as_secs_f64() * 1e3);
            }
            anyhow::Ok(())
        };
        tokio::time::timeout(LIMIT, collect).await.context("some device did not come")??;
        waited.sort_by(f64::total_cmp);
        p50.push(percentile(&waited, 0.5));
        p99.push(percentile(&waited, 0.99));
        last.push(percentile(&waited, 1.0));
        eprintln!("wake: round {round}: p50 {:.0}, last {:.0} ms", p50[round - 1], last[round - 1]);
    }
    for (name, values) in [("wake_p50", &p50), ("wake_p99", &p99), ("wake_last", &last), ("wake_assign", &answered)] {
        Figure::alone(name, crate::figure::median(values), "ms")
            .detail("devices", options.devices)
            .detail("rounds", values.iter().copied().map(round).collect::<Vec<_>>())
            .print()?;
    }
    product.stop().await
}

/// Holds the doorbell until it rings, checks in as told, and returns when the deployment was there.
async fn wait(url: String, device: Device, version: String, ready: Arc<Barrier>) -> anyhow::Result<Instant> {
    let mut client = UpdateServiceClient::new(product::connect(&url).await?);
    // As every agent does when it starts; it also ends what an earlier round left open.
    client.check_in(authorized(check_in::request(), &device)).await?;
    let mut rings = client.watch(authorized(WatchRequest {}, &device)).await?.into_inner();
    ready.wait().await;
    loop {
        let Some(ring) = rings.message().await? else { bail!("the doorbell ended") };
        if let Some(delay) = ring.delay {
            let delay = Duration::try_from(delay).context("a negative delay")?;
            tokio::time::sleep(delay).await;
        }
        let answer = client.check_in(authorized(check_in::request(), &device)).await?.into_inner();
        ensure!(answer.deployments.len() < 2, "{} deployments of one package", answer.deployments.len());
        if answer.deployments.iter().any(|deployment| deployment.version == version) {
            return Ok(Instant::now());
        }
    }
}

fn authorized<T>(message: T, device: &Device) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", device.authorization.clone());
    request
}
