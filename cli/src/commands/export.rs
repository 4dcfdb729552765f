//! `export`: what devices should run, in one file that can be carried to them.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    time::Duration,
};

use clap::Args;
use ota_bundle::{DeviceEntry, Manifest};
use ota_domain::{DeviceId, Sha256Digest};
use ota_proto::admin::v1::{
    DownloadPayloadRequest, ExportDeviceMetadataRequest, ExportDeviceMetadataResponse, GetPayloadRequest,
};
use serde_json::json;
use tonic::Status;

use crate::{
    backoff::{Backoff, patiently},
    client::Client,
    commands::{assign::parse_selector, device},
    error::{Failure, is_transient, promised},
    export::{Part, PayloadWriter},
    listing,
    output::{Document, Fact},
    progress::Progress,
    reference::short,
    session::Session,
    text, time,
};

const EXAMPLES: &str = "\
The file holds what each device should run at this moment, signed by the server for that device and good for as long as \
--valid says, and the payloads. `ota-agent install FILE` checks it like an answer of the server's and installs it, \
without a network. Nothing secret is in it, and nobody can change it unnoticed.

An export that was interrupted leaves FILE.part; the same command goes on from there.

Examples:
  otactl export --device 4f21a0c3 pump-7.bundle
  otactl export -l 'site=mine-3' --valid 30d mine-3.bundle";

/// Arguments of `export`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
#[command(
    override_usage = "otactl export [OPTIONS] --device DEVICE FILE\n       otactl export [OPTIONS] -l SELECTOR FILE"
)]
#[command(group = clap::ArgGroup::new("target").args(["devices", "selector"]).required(true))]
pub struct Export {
    /// For this device: a UUID, or its beginning or end; may be repeated
    #[arg(long = "device", value_name = "DEVICE")]
    devices: Vec<String>,
    /// For all accepted devices whose labels match
    #[arg(short = 'l', long, value_name = "SELECTOR", value_parser = parse_selector)]
    selector: Option<String>,
    /// How long the devices accept the file; at most 90d
    #[arg(long, value_name = "SPAN", default_value = "30d", value_parser = time::parse_span)]
    valid: Duration,
    /// The file; one that is there is replaced
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

impl Export {
    /// Fetches and writes.
    pub async fn run(self, session: &mut Session) -> Result<(), Failure> {
        let client = session.client().await?;
        let devices = self.find(&client).await?;
        let plan = Plan::make(session, &client, &devices, self.valid).await?;
        let mut part = Part::open(&self.file, &plan.payloads)?;
        fetch_payloads(session, &client, &mut part, &plan.payloads).await?;
        let created = session.now();
        let mut manifest = Manifest { payloads: plan.payloads, ..Manifest::new(created, created + self.valid) };
        for device in devices {
            // Signed again, now that the slow part is over; what it should run may be another release by now.
            let answer = export(session, &client, &device, self.valid).await?;
            let entry = DeviceEntry { payloads: payloads_of(&answer)? };
            for sha256 in &entry.payloads {
                if !part.has(*sha256) {
                    let late = BTreeMap::from([(*sha256, size_of(&client, *sha256).await?)]);
                    fetch_payloads(session, &client, &mut part, &late).await?;
                    manifest.payloads.extend(late);
                }
            }
            let id = device_id(&device)?;
            part.check_in(id, &answer.check_in_response)?;
            manifest.devices.insert(id, entry);
        }
        let used: BTreeSet<_> = manifest.devices.values().flat_map(|entry| &entry.payloads).copied().collect();
        if used.is_empty() {
            session.messages.say("no device has a release to install; the file renews their metadata alone");
        }
        part.finish(&manifest)?;
        self.report(session, &manifest)
    }

    async fn find(&self, client: &Client) -> Result<Vec<String>, Failure> {
        let mut names = match &self.selector {
            None => device::resolve_all(client, &self.devices).await?,
            Some(selector) => {
                let fetch = async |page| device::list(client, selector, "state=accepted", page).await;
                listing::fetch_all(None, fetch).await?.into_iter().map(|device| device.name).collect()
            }
        };
        names.sort();
        names.dedup();
        if names.is_empty() {
            return Err(Failure::failed("no accepted device matches")
                .hint("see which devices match with `otactl device list -l SELECTOR`"));
        }
        Ok(names)
    }

    fn report(&self, session: &mut Session, manifest: &Manifest) -> Result<(), Failure> {
        let size = std::fs::metadata(&self.file).map(|file| file.len()).unwrap_or_default();
        let size = i64::try_from(size).unwrap_or(i64::MAX);
        let expires = Some(time::timestamp(manifest.expires));
        let document = Document::plain(json!({
            "file": self.file,
            "sizeBytes": size,
            "devices": manifest.devices.keys().collect::<Vec<_>>(),
            "payloads": manifest.payloads.keys().collect::<Vec<_>>(),
            "expireTime": time::exact(expires.as_ref()),
        }));
        let count = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        let facts = [
            Fact::new("Written", self.file.display().to_string()),
            Fact::new("Size", text::bytes(size)),
            Fact::new("Devices", count(manifest.devices.len()).to_string()),
            Fact::new("Payloads", count(manifest.payloads.len()).to_string()),
            Fact::new("Good until", time::exact(expires.as_ref())),
        ];
        session.printer.answer(&document, &self.file.display().to_string(), &facts)
    }
}

/// What has to be fetched.
struct Plan {
    payloads: BTreeMap<Sha256Digest, u64>,
}

impl Plan {
    async fn make(session: &Session, client: &Client, devices: &[String], valid: Duration) -> Result<Self, Failure> {
        let mut wanted = BTreeSet::new();
        for device in devices {
            wanted.extend(payloads_of(&export(session, client, device, valid).await?)?);
        }
        let mut payloads = BTreeMap::new();
        for sha256 in wanted {
            payloads.insert(sha256, size_of(client, sha256).await?);
        }
        Ok(Self { payloads })
    }
}

async fn export(
    session: &Session,
    client: &Client,
    device: &str,
    valid: Duration,
) -> Result<ExportDeviceMetadataResponse, Failure> {
    let lifetime = prost_types::Duration::try_from(valid)
        .map_err(|_| Failure::usage("--valid is too long").hint("at most 90d"))?;
    let call = async || {
        let request = ExportDeviceMetadataRequest { device: device.to_owned(), lifetime: Some(lifetime) };
        client.trust().export_device_metadata(request).await
    };
    Ok(patiently(session.messages, "the export", call).await?.into_inner())
}

fn payloads_of(answer: &ExportDeviceMetadataResponse) -> Result<Vec<Sha256Digest>, Failure> {
    answer.payloads.iter().map(|name| promised(short(name).parse().ok())).collect()
}

fn device_id(name: &str) -> Result<DeviceId, Failure> {
    promised(short(name).parse().ok())
}

fn payload_name(sha256: Sha256Digest) -> String {
    format!("payloads/{sha256}")
}

async fn size_of(client: &Client, sha256: Sha256Digest) -> Result<u64, Failure> {
    let request = GetPayloadRequest { name: payload_name(sha256) };
    let payload = promised(client.packages().get_payload(request).await?.into_inner().payload)?;
    promised(u64::try_from(payload.size_bytes).ok())
}

/// Fetches the payloads that the file lacks, the one that was begun first.
async fn fetch_payloads(
    session: &Session,
    client: &Client,
    part: &mut Part,
    wanted: &BTreeMap<Sha256Digest, u64>,
) -> Result<(), Failure> {
    let begun = part.begun();
    let mut missing: Vec<_> = wanted.iter().filter(|(sha256, _)| !part.has(**sha256)).collect();
    missing.sort_by_key(|(sha256, _)| begun.is_none_or(|(first, _)| first != **sha256));
    let total = missing.iter().map(|(_, size)| **size).sum();
    let progress = Progress::bytes(session.messages, "downloading", total);
    progress.set(begun.map_or(0, |(_, written)| written));
    for (sha256, size) in missing {
        let mut writer = part.payload(*sha256, *size)?;
        fetch(session, client, *sha256, *size, &mut writer, &progress).await?;
        writer.finish()?;
    }
    progress.finish();
    Ok(())
}

/// Fetches the rest of one payload, over as many connections as it takes.
async fn fetch(
    session: &Session,
    client: &Client,
    sha256: Sha256Digest,
    size: u64,
    writer: &mut PayloadWriter<'_>,
    progress: &Progress,
) -> Result<(), Failure> {
    let mut backoff = Backoff::default();
    while writer.written() < size {
        backoff.reached(writer.written());
        let status = match stream(client, sha256, writer, progress).await? {
            Ok(()) if writer.written() == size => return Ok(()),
            Ok(()) => Status::unavailable("the server ended the download early"),
            Err(status) => status,
        };
        let wait = if is_transient(&status) { backoff.wait(&status, &mut rand::rng()) } else { None };
        let failure = Failure::from(status);
        let Some(wait) = wait else {
            progress.finish();
            return Err(failure.hint("what was fetched is kept: the same command goes on from there"));
        };
        let text = format!(
            "the download was interrupted ({}); trying again in {} s",
            failure.what(),
            wait.as_secs_f64().ceil()
        );
        progress.note(session.messages, &text);
        tokio::time::sleep(wait).await;
    }
    Ok(())
}

/// Writes pieces until the stream ends. The outer error is of this machine, the inner of the server or the way to it.
async fn stream(
    client: &Client,
    sha256: Sha256Digest,
    writer: &mut PayloadWriter<'_>,
    progress: &Progress,
) -> Result<Result<(), Status>, Failure> {
    let offset = i64::try_from(writer.written()).unwrap_or(i64::MAX);
    let request = DownloadPayloadRequest { name: payload_name(sha256), offset };
    let mut pieces = match client.packages().download_payload(request).await {
        Ok(answer) => answer.into_inner(),
        Err(status) => return Ok(Err(status)),
    };
    loop {
        let piece = match pieces.message().await {
            Ok(Some(piece)) => piece,
            Ok(None) => return Ok(Ok(())),
            Err(status) => return Ok(Err(status)),
        };
        if u64::try_from(piece.offset) != Ok(writer.written()) || crc_fast::crc32_iscsi(&piece.data) != piece.crc32c {
            return Ok(Err(Status::unavailable("a piece was damaged on the way")));
        }
        writer.write(&piece.data, progress)?;
    }
}
