//! Downloads of one payload by one device and by many at once, beside nginx serving the same file.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use bytes::{BufMut as _, Bytes, BytesMut};
use clap::Args;
use http::{Method, Request};
use ota_domain::release::Payload;
use ota_proto::device::v1::{DownloadRequest, update_service_client::UpdateServiceClient};
use prost::Message as _;
use sha2::{Digest as _, Sha256};
use tokio::task::JoinSet;

use crate::{
    child::Child,
    figure::{Figure, median},
    fleet::{self, Device},
    nginx::{Nginx, Sending},
    product::Product,
    raw_stream::{Connection, Flow},
    source::{self, MIB},
};

const METHOD: &str = "/ota.device.v1.UpdateService/Download";

/// What to measure.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// Size of the payload in MiB.
    #[arg(long, value_name = "N", default_value_t = 256)]
    pub(crate) mib: u64,
    /// Numbers of downloads at once.
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_values_t = [1, 64])]
    pub(crate) streams: Vec<usize>,
    /// Rounds of each side.
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub(crate) rounds: usize,
    /// The client's flow-control window for a stream, in KiB. The default is the agent's.
    #[arg(long, value_name = "KIB", default_value_t = 512)]
    pub(crate) stream_window: u32,
    /// The client's flow-control window for a connection, in KiB. The default is the agent's.
    #[arg(long, value_name = "KIB", default_value_t = 1024)]
    pub(crate) connection_window: u32,
    /// The largest frame that the client takes, in KiB. The default is the agent's.
    #[arg(long, value_name = "KIB", default_value_t = 16)]
    pub(crate) frame: u32,
}

impl Options {
    fn flow(&self) -> Flow {
        Flow {
            stream_window: self.stream_window * 1024,
            connection_window: self.connection_window * 1024,
            frame: (self.frame * 1024).min((1 << 24) - 1),
        }
    }
}

/// One side's downloads in one round.
struct Round {
    mb_per_second: f64,
    cpu_us_per_mb: f64,
}

/// Measures and prints.
pub(crate) async fn run(scratch: &Path, options: &Options) -> anyhow::Result<()> {
    let product = Product::start(scratch, &[]).await?;
    let most = options.streams.iter().copied().max().unwrap_or(1);
    let devices = fleet::register(&product, most).await?;
    let payload = store(&product, options.mib * MIB)?;
    fleet::deploy(&product.database, &devices, payload).await?;
    let first = devices.first().context("a download needs a device")?;
    verify(&product, first, payload).await?;

    let mut baselines = Vec::new();
    if Nginx::is_installed() {
        for sending in [Sending::Sendfile, Sending::Buffers] {
            let nginx = Nginx::start(scratch, &product.blobs(), options.frame * 1024, sending).await?;
            baselines.push((sending, nginx));
        }
    } else {
        eprintln!("download: nginx is not installed, so there is no baseline: scripts/setup.sh nginx");
    }
    for &streams in &options.streams {
        let ours = Side {
            process: &product.server,
            authority: product.authority(),
            payload,
            flow: options.flow(),
            devices: &devices[..streams],
            grpc: true,
        };
        let mut our_rounds = Vec::new();
        let mut their_rounds: Vec<_> = baselines.iter().map(|(sending, _)| (*sending, Vec::new())).collect();
        for round in 1..=options.rounds {
            for ((_, nginx), (_, rounds)) in baselines.iter().zip(&mut their_rounds) {
                let theirs = Side { process: &nginx.process, authority: &nginx.authority, grpc: false, ..ours };
                rounds.push(theirs.round().await?);
            }
            our_rounds.push(ours.round().await?);
            eprintln!("download: {streams} streams, round {round} of {}", options.rounds);
        }
        if their_rounds.is_empty() {
            figure(options, streams, "", "MB/s", |(name, unit)| Figure::alone(name, median(&speed(&our_rounds)), unit))
                .print()?;
        }
        for (sending, their_rounds) in &their_rounds {
            print(options, streams, &our_rounds, *sending, their_rounds)?;
        }
    }
    drop(baselines);
    product.stop().await
}

fn print(options: &Options, streams: usize, ours: &[Round], sending: Sending, theirs: &[Round]) -> anyhow::Result<()> {
    let version = Nginx::version()?;
    let beside = |ours: Vec<f64>, theirs: Vec<f64>| {
        move |(name, unit)| Figure::beside(name, unit, &ours, sending.name(), &theirs)
    };
    figure(options, streams, "", "MB/s", beside(speed(ours), speed(theirs)))
        .target("ratio >= 1.0")
        .detail("baseline_version", version.clone())
        .print()?;
    figure(options, streams, "_server_cpu", "us/MB", beside(cpu(ours), cpu(theirs)))
        .target("ratio <= 1.0")
        .detail("baseline_version", version)
        .print()
}

fn figure(
    options: &Options,
    streams: usize,
    what: &str,
    unit: &'static str,
    make: impl FnOnce((String, &'static str)) -> Figure,
) -> Figure {
    make((format!("download_{streams}{what}"), unit))
        .detail("streams", streams)
        .detail("payload_mib", options.mib)
        .detail("stream_window_kib", options.stream_window)
        .detail("connection_window_kib", options.connection_window)
        .detail("frame_kib", options.frame)
}

fn speed(rounds: &[Round]) -> Vec<f64> {
    rounds.iter().map(|round| round.mb_per_second).collect()
}

fn cpu(rounds: &[Round]) -> Vec<f64> {
    rounds.iter().map(|round| round.cpu_us_per_mb).collect()
}

/// One server, and who downloads from it.
#[derive(Clone, Copy)]
struct Side<'a> {
    process: &'a Child,
    authority: &'a str,
    payload: Payload,
    flow: Flow,
    devices: &'a [Device],
    grpc: bool,
}

impl Side<'_> {
    /// Downloads the payload once to every device, each on a connection of its own.
    async fn round(&self) -> anyhow::Result<Round> {
        let mut connections = Vec::with_capacity(self.devices.len());
        for _ in self.devices {
            connections.push(Connection::open(self.authority, self.flow).await?);
        }
        let (cpu_before, began) = (self.process.cpu_seconds()?, Instant::now());
        let mut downloads = JoinSet::new();
        for (mut connection, device) in connections.into_iter().zip(self.devices) {
            let (request, body) = if self.grpc { self.grpc_request(device)? } else { self.file_request()? };
            downloads.spawn(async move { connection.read(request, body).await });
        }
        while let Some(done) = downloads.join_next().await {
            let (bytes, trailers) = done.context("a download panicked")?.context("a download failed")?;
            let status = trailers.as_ref().and_then(|trailers| trailers.get("grpc-status"));
            ensure!(!self.grpc || status.is_some_and(|status| status == "0"), "a download ended with {trailers:?}");
            ensure!(bytes >= self.payload.size_bytes, "a download ended after {bytes} bytes");
        }
        let seconds = began.elapsed().as_secs_f64();
        // The last of the sending is still accounted for just after the last byte was read.
        tokio::time::sleep(Duration::from_millis(20)).await;
        let cpu = self.process.cpu_seconds()? - cpu_before;
        let megabytes = self.payload.size_bytes as f64 * self.devices.len() as f64 / 1e6;
        Ok(Round { mb_per_second: megabytes / seconds, cpu_us_per_mb: cpu * 1e6 / megabytes })
    }

    fn grpc_request(&self, device: &Device) -> anyhow::Result<(Request<()>, Bytes)> {
        let message = DownloadRequest { sha256: self.payload.sha256.0.to_vec().into(), ..DownloadRequest::default() };
        let mut body = BytesMut::new();
        body.put_u8(0);
        body.put_u32(u32::try_from(message.encoded_len())?);
        message.encode(&mut body)?;
        let request = Request::builder()
            .method(Method::POST)
            .uri(format!("http://{}{METHOD}", self.authority))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("authorization", device.authorization.to_str()?)
            .body(())?;
        Ok((request, body.freeze()))
    }

    fn file_request(&self) -> anyhow::Result<(Request<()>, Bytes)> {
        let name = self.payload.sha256.to_string();
        let uri = format!("http://{}/sha256/{}/{name}", self.authority, &name[..2]);
        Ok((Request::builder().method(Method::GET).uri(uri).body(())?, Bytes::new()))
    }
}

/// Puts a payload where the blob store keeps it.
fn store(product: &Product, size_bytes: u64) -> anyhow::Result<Payload> {
    let root = product.blobs().join("sha256");
    let file = root.join("new");
    let payload = source::create(&file, size_bytes)?;
    let name = payload.sha256.to_string();
    let folder = root.join(&name[..2]);
    fs::create_dir_all(&folder)?;
    fs::rename(file, folder.join(name))?;
    Ok(payload)
}

/// Downloads once as a device does, and checks every checksum.
async fn verify(product: &Product, device: &Device, payload: Payload) -> anyhow::Result<()> {
    let mut client = UpdateServiceClient::new(product.channel().await?);
    let mut request =
        tonic::Request::new(DownloadRequest { sha256: payload.sha256.0.to_vec().into(), ..DownloadRequest::default() });
    request.metadata_mut().insert("authorization", device.authorization.clone());
    let mut pieces = client.download(request).await?.into_inner();
    let mut hash = Sha256::new();
    let mut next = 0;
    while let Some(piece) = pieces.message().await? {
        ensure!(u64::try_from(piece.offset)? == next, "a piece at {} where {next} was due", piece.offset);
        ensure!(crc_fast::crc32_iscsi(&piece.data) == piece.crc32c, "the piece at {next} is damaged");
        hash.update(&piece.data);
        next += piece.data.len() as u64;
    }
    ensure!(next == payload.size_bytes, "the download ended after {next} bytes");
    ensure!(hash.finalize().as_slice() == payload.sha256.0.as_slice(), "the download does not hash to the payload");
    Ok(())
}
