//! What the certificates cost a check-in with nothing new: devices that are known by them beside devices with sessions,
//! both over TLS.

use std::{path::Path, sync::Arc, time::Duration};

use anyhow::Context as _;
use ota_proto::device::v1::{RenewCertificateRequest, enrollment_service_client::EnrollmentServiceClient};
use ota_tls::Identity;
use tonic::Request;

use super::{CONNECTIONS, Load, Options, Round, measured};
use crate::{
    figure::{Figure, round},
    fleet::{self, Device},
    product::{self, Product},
};

/// Measures and prints.
pub(super) async fn run(scratch: &Path, options: &Options) -> anyhow::Result<()> {
    let product = Product::encrypted(scratch).await?;
    let devices: Arc<[Device]> = fleet::register(&product, CONNECTIONS).await?.into();
    let without = Load::connect(&product.url, &devices, options.in_flight).await?;
    let with = certified(&product, &devices, options.in_flight).await?;
    with.call(devices.len(), None).await?;
    without.call(devices.len(), None).await?;

    let limit = Some(Duration::from_secs(options.seconds));
    let (mut with_rounds, mut without_rounds) = (Vec::new(), Vec::new());
    let statements = product.statements().await?;
    for number in 1..=options.rounds {
        without_rounds.push(measured(&without, &product.server, limit).await?);
        with_rounds.push(measured(&with, &product.server, limit).await?);
        if let (Some(with), Some(without)) = (with_rounds.last(), without_rounds.last()) {
            eprintln!("check_in --tls: round {number}: {:.0} beside {:.0} req/s", with.per_second, without.per_second);
        }
    }
    let statements = product.statements().await? - statements;
    let calls: usize = with_rounds.iter().chain(&without_rounds).map(|round| round.calls).sum();
    let of = |rounds: &[Round], value: fn(&Round) -> f64| rounds.iter().map(value).collect::<Vec<_>>();
    let beside = "over TLS, by session";
    let rate = |rounds: &[Round]| of(rounds, |round| round.per_second);
    Figure::beside("check_in_trusted", "req/s", &rate(&with_rounds), beside, &rate(&without_rounds))
        .target("ratio >= 0.85")
        .detail("connections", CONNECTIONS)
        .detail("in_flight", options.in_flight)
        .detail("statements_per_check_in", round(statements as f64 / calls as f64))
        .print()?;
    let cpu = |rounds: &[Round]| of(rounds, |round| round.server_cpu_us);
    Figure::beside("check_in_trusted_server_cpu", "us/req", &cpu(&with_rounds), beside, &cpu(&without_rounds))
        .print()?;
    product.stop().await
}

/// One connection for each device, which shows the device's certificate.
async fn certified(product: &Product, devices: &Arc<[Device]>, in_flight: usize) -> anyhow::Result<Load> {
    let mut load = Load::connect(&product.url, devices, in_flight).await?;
    let mut client = EnrollmentServiceClient::new(product.channel().await?);
    load.channels.clear();
    for device in devices.iter() {
        let mut renewal = Request::new(RenewCertificateRequest { certificate_request: device.key.request() });
        renewal.metadata_mut().insert("authorization", device.authorization.clone());
        let chain = client.renew_certificate(renewal).await?.into_inner().certificate_chain;
        let chain = chain.into_iter().map(|certificate| certificate.to_vec().into()).collect();
        let identity = Identity::new(chain, device.key.to_pkcs8().into()).context("a certificate and its key")?;
        load.channels.push(product::connect_as(&product.url, Some(identity)).await?);
    }
    load.sessions = false;
    Ok(load)
}
