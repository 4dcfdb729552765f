//! Check-ins of a fleet at rest: 1 % of the devices have something open, of which they know; for the others there is nothing
//! to do at all.

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
use tonic::{
    Request,
    metadata::{AsciiMetadataKey, AsciiMetadataValue},
    transport::Channel,
};

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
/// What [`STATEMENTS_PER_CHECK_IN`] says, as a target.
const STATEMENTS_TARGET: &str = "value < 0.01";

/// The baseline, and the least share of its rate.
const BARE: &str = "bare tonic unary";
const BARE_BAR: f64 = 0.70;
const BARE_TARGET: &str = "ratio >= 0.70";

/// What to measure.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// Registered devices.
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    pub(crate) devices: usize,
    /// Calls in flight, over 8 connections; with --tls over as many connections too.
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub(crate) in_flight: usize,
    /// Seconds of each round.
    #[arg(long, value_name = "SECONDS", default_value_t = 5)]
    pub(crate) seconds: u64,
    /// Rounds of each side.
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub(crate) rounds: usize,
    /// Compare with the same server over the same TLS without the trust layer: each device on a connection of its own, known
    /// by its certificate.
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

    let mut ours = Load::connect(&product.url, &devices, options.in_flight).await?;
    let theirs = Load::connect(&bare_url, &devices, options.in_flight).await?;

    // The rest that is measured begins when every device has called once, and holds what it was sent.
    let warmed_up = ours.call(devices.len(), None).await?;
    eprintln!("check_in: first check-ins of {} devices at {:.0}/s", devices.len(), warmed_up.per_second);
    theirs.call(devices.len(), None).await?;
    ours.rest();

    let limit = Some(Duration::from_secs(options.seconds));
    let (mut product_rounds, mut bare_rounds) = (Vec::new(), Vec::new());
    let mut database_cpu = 0.0;
    let (mut statements, mut signatures) = (0, 0);
    for round in 1..=options.rounds {
        bare_rounds.push(measured(&theirs, &bare, limit).await?);
        let (before, cpu_before) = (product.statements().await?, product.database_cpu_seconds()?);
        let signatures_before = product.signatures()?;
        product_rounds.push(measured(&ours, &product.server, limit).await?);
        statements += product.statements().await? - before;
        signatures += product.signatures()? - signatures_before;
        database_cpu += product.database_cpu_seconds()? - cpu_before;
        let (ours, theirs) = (product_rounds.last(), bare_rounds.last());
        if let (Some(ours), Some(theirs)) = (ours, theirs) {
            eprintln!("check_in: round {round}: {:.0} beside {:.0} req/s", ours.per_second, theirs.per_second);
        }
    }
    drop(bare);

    let calls: usize = product_rounds.iter().map(|round| round.calls).sum();
    let per_call = statements as f64 / calls as f64;
    let ratio = print(options, &product_rounds, &bare_rounds)?;
    print_signatures("check_in_signatures", signatures, calls)?;
    Figure::alone("check_in_statements", per_call, "statements/check-in")
        .target(STATEMENTS_TARGET)
        .detail("devices", options.devices)
        .detail("check_ins", calls)
        .detail("statements", statements)
        .detail("counted_by", product.statements_source())
        .detail("postgres_cpu_us_per_check_in", round(database_cpu * 1e6 / calls as f64))
        .print()?;
    product.stop().await?;
    check_counts(statements, signatures, calls)?;
    ensure!(ratio >= BARE_BAR, "check-ins come to {ratio} of {BARE}, and {BARE_BAR} is the least");
    Ok(())
}

/// Prints how many signatures the check-ins cost.
fn print_signatures(name: &str, signatures: u64, calls: usize) -> anyhow::Result<()> {
    Figure::alone(name, signatures as f64 / calls as f64, "signatures/check-in")
        .target("value = 0")
        .detail("check_ins", calls)
        .detail("signatures", signatures)
        .print()
}

/// Refuses check-ins with nothing new that cost what they must not.
fn check_counts(statements: i64, signatures: u64, calls: usize) -> anyhow::Result<()> {
    let per_call = statements as f64 / calls as f64;
    ensure!(per_call < STATEMENTS_PER_CHECK_IN, "check-ins query the database: {statements} statements for {calls}");
    ensure!(signatures == 0, "check-ins with nothing new cost {signatures} signatures");
    Ok(())
}

/// Prints the rates and what they cost. Returns the ratio of the rates.
fn print(options: &Options, ours: &[Round], theirs: &[Round]) -> anyhow::Result<f64> {
    let of = |rounds: &[Round], value: fn(&Round) -> f64| rounds.iter().map(value).collect::<Vec<_>>();
    let p50 = |round: &Round| percentile(&round.latencies, 0.5);
    let p99 = |round: &Round| percentile(&round.latencies, 0.99);
    let rates = Figure::beside("check_in", "req/s", &of(ours, |r| r.per_second), BARE, &of(theirs, |r| r.per_second))
        .target(BARE_TARGET)
        .detail("devices", options.devices)
        .detail("connections", CONNECTIONS)
        .detail("in_flight", options.in_flight)
        .detail("p50_us", round(median(&of(ours, p50))))
        .detail("p99_us", round(median(&of(ours, p99))))
        .detail("baseline_p50_us", round(median(&of(theirs, p50))))
        .detail("baseline_p99_us", round(median(&of(theirs, p99))));
    rates.print()?;
    let cpu = |round: &Round| round.server_cpu_us;
    Figure::beside("check_in_server_cpu", "us/req", &of(ours, cpu), BARE, &of(theirs, cpu))
        .detail("devices", options.devices)
        .print()?;
    Ok(rates.ratio())
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
    callers: Arc<[Caller]>,
    request: CheckInRequest,
    in_flight: usize,
    next: Arc<AtomicUsize>,
    /// Whether an answer may bring no documents.
    at_rest: bool,
}

/// By what a call is known to be a device's, besides its connection.
type Caller = Option<(AsciiMetadataKey, AsciiMetadataValue)>;

impl Load {
    /// Devices with sessions, over a few connections.
    async fn connect(url: &str, devices: &[Device], in_flight: usize) -> anyhow::Result<Self> {
        let mut channels = Vec::with_capacity(CONNECTIONS);
        for _ in 0..CONNECTIONS {
            channels.push(product::connect(url).await?);
        }
        let authorization = AsciiMetadataKey::from_static("authorization");
        let callers =
            devices.iter().map(|device| Some((authorization.clone(), device.authorization.clone()))).collect();
        Ok(Self { channels, callers, request: request(), in_flight, next: Arc::default(), at_rest: false })
    }

    /// From now on the devices hold what they were sent.
    fn rest(&mut self) {
        self.request.metadata = Some(MetadataVersions { director: HELD.director + 1, ..HELD });
        self.at_rest = true;
    }

    /// Calls until `calls` were begun or the time is over, device after device.
    async fn call(&self, calls: usize, limit: Option<Duration>) -> anyhow::Result<Round> {
        let began = Instant::now();
        let last = self.next.load(Ordering::Relaxed).saturating_add(calls);
        let mut running = JoinSet::new();
        for number in 0..self.in_flight {
            let mut client = UpdateServiceClient::new(self.channels[number % self.channels.len()].clone());
            let (callers, next, message) = (Arc::clone(&self.callers), Arc::clone(&self.next), self.request.clone());
            // One connection for each caller is the caller's own.
            let at_rest = self.at_rest;
            let own = (callers.len() == self.channels.len()).then_some(number % self.channels.len());
            running.spawn(async move {
                let mut latencies = Vec::new();
                while limit.is_none_or(|limit| began.elapsed() < limit) {
                    let turn = next.fetch_add(1, Ordering::Relaxed);
                    if turn >= last {
                        break;
                    }
                    let mut request = Request::new(message.clone());
                    if let Some((name, value)) = &callers[own.unwrap_or(turn % callers.len())] {
                        request.metadata_mut().insert(name.clone(), value.clone());
                    }
                    let asked = Instant::now();
                    let answer = client.check_in(request).await?;
                    latencies.push(asked.elapsed().as_secs_f64() * 1e6);
                    ensure!(
                        !at_rest || answer.get_ref().metadata.is_none(),
                        "a check-in with nothing new brought documents"
                    );
                }
                anyhow::Ok(latencies)
            });
        }
        let mut latencies = Vec::new();
        while let Some(done) = running.join_next().await {
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
