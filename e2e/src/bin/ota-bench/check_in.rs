//! Check-ins of a fleet at rest: 1 % of the devices have something open, for the others there is nothing new.

mod trusted;

use std::{
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use clap::Args;
use ota_proto::device::v1::{
    CheckInRequest, MetadataVersions, RunningRelease, update_service_client::UpdateServiceClient,
};
use tokio::task::JoinSet;
use tonic::{Request, transport::Channel};

use crate::{
    child::Child,
    figure::{Figure, median, percentile, round},
    fleet::{self, Device},
    product::{self, Product},
};

/// Connections that share the calls, as a proxy in front of a fleet has them.
const CONNECTIONS: usize = 8;

/// More statements than this for a check-in mean that check-ins query the database.
const STATEMENTS_PER_CHECK_IN: f64 = 0.01;

/// What to measure.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// Registered devices.
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    pub(crate) devices: usize,
    /// Calls in flight, over 8 connections.
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub(crate) in_flight: usize,
    /// Seconds of each round.
    #[arg(long, value_name = "SECONDS", default_value_t = 5)]
    pub(crate) seconds: u64,
    /// Rounds of each side.
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub(crate) rounds: usize,
    /// Compare calls over TLS by devices that are known by their certificates with calls over TLS by session.
    #[arg(long)]
    pub(crate) tls: bool,
}

/// One side's calls in one round.
#[derive(Debug, Default)]
struct Round {
    per_second: f64,
    calls: usize,
    /// In microseconds, sorted.
    latencies: Vec<f64>,
    server_cpu_us: f64,
}

/// Measures and prints.
pub(crate) async fn run(scratch: &Path, options: &Options) -> anyhow::Result<()> {
    if options.tls {
        return trusted::run(scratch, options).await;
    }
    let product = Product::start(scratch, &[]).await?;
    let devices: Arc<[Device]> = fleet::register(&product, options.devices).await?.into();
    let busy: Vec<_> = devices.iter().step_by(100).cloned().collect();
    fleet::deploy(&product.database, &busy, fleet::imaginary_payload()).await?;

    let mut bare = Command::new(std::env::current_exe()?);
    let (bare, bare_url) = Child::start_listening("the bare tonic server", bare.arg("bare-unary"))?;

    let ours = Load::connect(&product.url, &devices, options.in_flight).await?;
    let theirs = Load::connect(&bare_url, &devices, options.in_flight).await?;

    // The rest that is measured begins when every device has called once.
    let warmed_up = ours.call(devices.len(), None).await?;
    eprintln!("check_in: first check-ins of {} devices at {:.0}/s", devices.len(), warmed_up.per_second);
    theirs.call(devices.len(), None).await?;

    let limit = Some(Duration::from_secs(options.seconds));
    let (mut product_rounds, mut bare_rounds) = (Vec::new(), Vec::new());
    let mut database_cpu = 0.0;
    let mut statements = 0;
    for round in 1..=options.rounds {
        bare_rounds.push(measured(&theirs, &bare, limit).await?);
        let (before, cpu_before) = (product.statements().await?, product.database_cpu_seconds()?);
        product_rounds.push(measured(&ours, &product.server, limit).await?);
        statements += product.statements().await? - before;
        database_cpu += product.database_cpu_seconds()? - cpu_before;
        let (ours, theirs) = (product_rounds.last(), bare_rounds.last());
        if let (Some(ours), Some(theirs)) = (ours, theirs) {
            eprintln!("check_in: round {round}: {:.0} beside {:.0} req/s", ours.per_second, theirs.per_second);
        }
    }
    drop(bare);

    let calls: usize = product_rounds.iter().map(|round| round.calls).sum();
    let per_call = statements as f64 / calls as f64;
    print(options, &product_rounds, &bare_rounds)?;
    Figure::alone("check_in_statements", per_call, "statements/check-in")
        .target("value < 0.01")
        .detail("devices", options.devices)
        .detail("check_ins", calls)
        .detail("statements", statements)
        .detail("counted_by", product.statements_source())
        .detail("postgres_cpu_us_per_check_in", round(database_cpu * 1e6 / calls as f64))
        .print()?;
    product.stop().await?;
    ensure!(per_call < STATEMENTS_PER_CHECK_IN, "check-ins query the database: {statements} statements for {calls}");
    Ok(())
}

fn print(options: &Options, ours: &[Round], theirs: &[Round]) -> anyhow::Result<()> {
    let of = |rounds: &[Round], value: fn(&Round) -> f64| rounds.iter().map(value).collect::<Vec<_>>();
    let p50 = |round: &Round| percentile(&round.latencies, 0.5);
    let p99 = |round: &Round| percentile(&round.latencies, 0.99);
    let bare = "bare tonic unary";
    Figure::beside("check_in", "req/s", &of(ours, |r| r.per_second), bare, &of(theirs, |r| r.per_second))
        .target("ratio >= 0.70")
        .detail("devices", options.devices)
        .detail("connections", CONNECTIONS)
        .detail("in_flight", options.in_flight)
        .detail("p50_us", round(median(&of(ours, p50))))
        .detail("p99_us", round(median(&of(ours, p99))))
        .detail("baseline_p50_us", round(median(&of(theirs, p50))))
        .detail("baseline_p99_us", round(median(&of(theirs, p99))))
        .print()?;
    let cpu = |round: &Round| round.server_cpu_us;
    Figure::beside("check_in_server_cpu", "us/req", &of(ours, cpu), bare, &of(theirs, cpu))
        .detail("devices", options.devices)
        .print()
}

async fn measured(load: &Load, server: &Child, limit: Option<Duration>) -> anyhow::Result<Round> {
    let before = server.cpu_seconds()?;
    let mut round = load.call(usize::MAX, limit).await?;
    round.server_cpu_us = (server.cpu_seconds()? - before) * 1e6 / round.calls as f64;
    Ok(round)
}

/// Callers that keep a number of calls in flight.
struct Load {
    channels: Vec<Channel>,
    devices: Arc<[Device]>,
    in_flight: usize,
    next: Arc<AtomicUsize>,
    /// Whether they send their sessions along.
    sessions: bool,
}

impl Load {
    async fn connect(url: &str, devices: &Arc<[Device]>, in_flight: usize) -> anyhow::Result<Self> {
        let mut channels = Vec::with_capacity(CONNECTIONS);
        for _ in 0..CONNECTIONS {
            channels.push(product::connect(url).await?);
        }
        Ok(Self { channels, devices: Arc::clone(devices), in_flight, next: Arc::default(), sessions: true })
    }

    /// Calls until `calls` were begun or the time is over, device after device.
    async fn call(&self, calls: usize, limit: Option<Duration>) -> anyhow::Result<Round> {
        let began = Instant::now();
        let last = self.next.load(Ordering::Relaxed).saturating_add(calls);
        let mut callers = JoinSet::new();
        for caller in 0..self.in_flight {
            let mut client = UpdateServiceClient::new(self.channels[caller % CONNECTIONS].clone());
            let (devices, next) = (Arc::clone(&self.devices), Arc::clone(&self.next));
            let sessions = self.sessions;
            callers.spawn(async move {
                let mut latencies = Vec::new();
                while limit.is_none_or(|limit| began.elapsed() < limit) {
                    let turn = next.fetch_add(1, Ordering::Relaxed);
                    if turn >= last {
                        break;
                    }
                    let mut request = Request::new(request());
                    if sessions {
                        let authorization = devices[turn % devices.len()].authorization.clone();
                        request.metadata_mut().insert("authorization", authorization);
                    }
                    let asked = Instant::now();
                    client.check_in(request).await?;
                    latencies.push(asked.elapsed().as_secs_f64() * 1e6);
                }
                anyhow::Ok(latencies)
            });
        }
        let mut latencies = Vec::new();
        while let Some(done) = callers.join_next().await {
            latencies.extend(done.context("a caller panicked")?.context("a check-in failed")?);
        }
        let seconds = began.elapsed().as_secs_f64();
        latencies.sort_by(f64::total_cmp);
        let calls = latencies.len();
        Ok(Round { per_second: calls as f64 / seconds, calls, latencies, server_cpu_us: 0.0 })
    }
}

/// The signed documents that a device holds to which nothing is new.
const HELD: MetadataVersions =
    MetadataVersions { image_root: 1, image_timestamp: 1, image_snapshot: 1, director_root: 1, director: 1 };

/// What a device says that runs what it should.
pub(crate) fn request() -> CheckInRequest {
    let (package, version, payload) = fleet::RUNNING;
    CheckInRequest {
        running: vec![RunningRelease {
            package: package.to_owned(),
            version: version.to_owned(),
            payload_sha256: payload.to_vec().into(),
        }],
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        boot_id: "6f1d7c1e-6d5b-4c6e-9b1e-0a7d1c2b3a49".to_owned(),
        // Who holds none is sent all, which is another matter.
        metadata: Some(HELD),
        ..CheckInRequest::default()
    }
}
