//! What trust costs a check-in with nothing new: devices that are known by the certificates of their connections, beside
//! the same server over the same TLS that believes who calls (see [`crate::plain_tls`]).

use std::{path::Path, process::Command, sync::Arc, time::Duration};

use anyhow::{Context as _, ensure};
use ota_domain::DeviceId;
use ota_proto::device::v1::{
    CheckInRequest, RenewCertificateRequest, enrollment_service_client::EnrollmentServiceClient,
    update_service_client::UpdateServiceClient,
};
use ota_tls::Identity;
use tonic::{Request, metadata::AsciiMetadataKey};

use super::{Load, Options, Round, STATEMENTS_TARGET, check_counts, measured, print_signatures, request};
use crate::{
    child::Child,
    figure::{Figure, median, percentile, round},
    fleet::{self, Device},
    plain_tls,
    product::{self, Product},
};

/// The baseline, and the least share of its rate.
const PLAIN: &str = "the same server over TLS without the trust layer";
const PLAIN_BAR: f64 = 0.85;
const PLAIN_TARGET: &str = "ratio >= 0.85";

/// Every device calls hundreds of times a second here, which the limit for one device is not made for. It is counted all
/// the same.
const CALL_RATE: [&str; 2] = ["--call-rate", "100000000/10s"];

/// Measures and prints.
pub(super) async fn run(scratch: &Path, options: &Options) -> anyhow::Result<()> {
    let product = Product::encrypted(scratch, &CALL_RATE).await?;
    let connections = options.in_flight.min(options.devices);
    let mut keys = fleet::insert(&product.database, options.devices).await?;
    keys.truncate(connections);
    let devices = fleet::begin_all(&product, keys).await?;
    let ours = certified(&product, &devices, options.in_flight).await?;
    asked_for_a_signature(&product, &ours).await?;

    let (database, database_url) = product.another_database("plain").await?;
    let trusted = fleet::insert(&database, options.devices).await?;
    let mut plain = Command::new(std::env::current_exe()?);
    plain.args(["plain-tls", "--listen", "127.0.0.1:0", "--database-url", &database_url, "--data-dir"]);
    plain.arg(product.folder().join("plain"));
    let (plain, plain_url) = Child::start_listening("the server without the trust layer", &mut plain)?;
    let trusted: Vec<DeviceId> = trusted.into_iter().map(|(device, _)| device).take(connections).collect();
    let theirs = nameless(&plain_url, &trusted, options.in_flight).await?;

    ours.call(4 * connections, None).await?;
    theirs.call(4 * connections, None).await?;
    let limit = Some(Duration::from_secs(options.seconds));
    let (mut our_rounds, mut their_rounds) = (Vec::new(), Vec::new());
    let (mut statements, mut signatures) = (0, 0);
    for number in 1..=options.rounds {
        their_rounds.push(measured(&theirs, &plain, limit).await?);
        let (statements_before, signatures_before) = (product.statements().await?, product.signatures()?);
        our_rounds.push(measured(&ours, &product.server, limit).await?);
        statements += product.statements().await? - statements_before;
        signatures += product.signatures()? - signatures_before;
        if let (Some(ours), Some(theirs)) = (our_rounds.last(), their_rounds.last()) {
            eprintln!("check_in --tls: round {number}: {:.0} beside {:.0} req/s", ours.per_second, theirs.per_second);
        }
    }
    plain.stop()?;
    database.close().await;

    let calls: usize = our_rounds.iter().map(|round| round.calls).sum();
    let ratio = print(options, connections, &our_rounds, &their_rounds)?;
    print_signatures("check_in_tls_signatures", signatures, calls)?;
    Figure::alone("check_in_tls_statements", statements as f64 / calls as f64, "statements/check-in")
        .target(STATEMENTS_TARGET)
        .detail("check_ins", calls)
        .detail("statements", statements)
        .detail("counted_by", product.statements_source())
        .print()?;
    product.stop().await?;
    check_counts(statements, signatures, calls)?;
    ensure!(ratio >= PLAIN_BAR, "check-ins come to {ratio} of {PLAIN}, and {PLAIN_BAR} is the least");
    Ok(())
}

/// Prints the rates and what they cost. Returns the ratio of the rates.
fn print(options: &Options, connections: usize, ours: &[Round], theirs: &[Round]) -> anyhow::Result<f64> {
    let of = |rounds: &[Round], value: fn(&Round) -> f64| rounds.iter().map(value).collect::<Vec<_>>();
    let p50 = |round: &Round| percentile(&round.latencies, 0.5);
    let p99 = |round: &Round| percentile(&round.latencies, 0.99);
    let rate = |rounds: &[Round]| of(rounds, |round| round.per_second);
    let rates = Figure::beside("check_in_tls", "req/s", &rate(ours), PLAIN, &rate(theirs))
        .target(PLAIN_TARGET)
        .detail("devices", options.devices)
        .detail("connections", connections)
        .detail("in_flight", options.in_flight)
        .detail("p50_us", round(median(&of(ours, p50))))
        .detail("p99_us", round(median(&of(ours, p99))))
        .detail("baseline_p50_us", round(median(&of(theirs, p50))))
        .detail("baseline_p99_us", round(median(&of(theirs, p99))));
    rates.print()?;
    let cpu = |rounds: &[Round]| of(rounds, |round| round.server_cpu_us);
    Figure::beside("check_in_tls_server_cpu", "us/req", &cpu(ours), PLAIN, &cpu(theirs)).print()?;
    Ok(rates.ratio())
}

/// One connection for each device, which shows the device's certificate.
async fn certified(product: &Product, devices: &[Device], in_flight: usize) -> anyhow::Result<Load> {
    let mut client = EnrollmentServiceClient::new(product.channel().await?);
    let mut channels = Vec::with_capacity(devices.len());
    for device in devices {
        let mut renewal = Request::new(RenewCertificateRequest { certificate_request: device.key.request() });
        renewal.metadata_mut().insert("authorization", device.authorization.clone());
        let chain = client.renew_certificate(renewal).await?.into_inner().certificate_chain;
        let chain = chain.into_iter().map(|certificate| certificate.to_vec().into()).collect();
        let identity = Identity::new(chain, device.key.to_pkcs8().into()).context("a certificate and its key")?;
        channels.push(product::connect_as(&product.url, Some(identity)).await?);
    }
    let callers = devices.iter().map(|_| None).collect();
    Ok(Load { channels, callers, request: request(), in_flight, next: Arc::default(), at_rest: true })
}

/// One connection for each device, which shows nothing; the calls say whose they are, and nothing of signed documents.
async fn nameless(url: &str, devices: &[DeviceId], in_flight: usize) -> anyhow::Result<Load> {
    let mut channels = Vec::with_capacity(devices.len());
    let mut callers = Vec::with_capacity(devices.len());
    for device in devices {
        channels.push(product::connect(url).await?);
        let header = AsciiMetadataKey::from_static(plain_tls::DEVICE);
        callers.push(Some((header, device.to_string().parse().context("an id is no header value")?)));
    }
    let request = CheckInRequest { metadata: None, ..request() };
    Ok(Load { channels, callers: callers.into(), request, in_flight, next: Arc::default(), at_rest: true })
}

/// Sees that signatures are counted: a device that asks for a proof of freshness costs one at least.
async fn asked_for_a_signature(product: &Product, load: &Load) -> anyhow::Result<()> {
    const LOOKS: usize = 100;
    let before = product.signatures()?;
    let channel = load.channels.first().context("a device")?;
    let asking = CheckInRequest { nonce: vec![7; 16].into(), ..request() };
    let answer = UpdateServiceClient::new(channel.clone()).check_in(asking).await?.into_inner();
    ensure!(answer.metadata.is_some_and(|documents| !documents.freshness.is_empty()), "no proof of freshness came");
    for _ in 0..LOOKS {
        if product.signatures()? > before {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    anyhow::bail!("a signature was made and not counted")
}
