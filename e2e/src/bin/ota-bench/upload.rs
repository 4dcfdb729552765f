//! An upload of a large payload, beside one process that hashes the same bytes and writes them to the same disk.

use std::{
    fs::{self, File},
    io::{Read as _, Write as _},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Instant,
};

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use ota_domain::release::Payload;
use ota_e2e::operator::{Operator, PIECE_BYTES};
use ota_proto::admin::v1::{
    CreateUploadRequest, DeletePayloadRequest, Upload, UploadPayloadRequest, create_upload_response::Presence,
};
use sha2::{Digest as _, Sha256};
use tokio::{sync::mpsc, task::spawn_blocking};
use tokio_stream::wrappers::ReceiverStream;

use crate::{
    figure::Figure,
    product::Product,
    source::{self, MIB},
};

/// Pieces read ahead, as otactl does.
const AHEAD: usize = 8;

/// What to measure.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// Size of the payload in MiB.
    #[arg(long, value_name = "N", default_value_t = 1024)]
    pub(crate) mib: u64,
    /// Rounds of each side.
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub(crate) rounds: usize,
}

/// Measures and prints.
pub(crate) async fn run(scratch: &Path, options: &Options) -> anyhow::Result<()> {
    let folder = crate::scratch_folder(scratch)?;
    let (from, to) = (folder.path().join("payload"), folder.path().join("copy"));
    source::create(&from, options.mib * MIB)?;
    let product = Product::start(scratch, &[]).await?;
    let operator = product.operator();
    let megabytes = (options.mib * MIB) as f64 / 1e6;
    let (mut ours, mut theirs, mut cpu) = (Vec::new(), Vec::new(), Vec::new());
    for round in 1..=options.rounds {
        let seconds = hash_and_write_elsewhere(&from, &to)?;
        theirs.push(megabytes / seconds);

        let payload = source::vary(&from)?;
        let (cpu_before, began) = (product.server.cpu_seconds()?, Instant::now());
        send(&operator, &from, payload).await?;
        ours.push(megabytes / began.elapsed().as_secs_f64());
        cpu.push((product.server.cpu_seconds()? - cpu_before) * 1e6 / megabytes);

        let name = format!("payloads/{}", payload.sha256);
        operator.packages().delete_payload(DeletePayloadRequest { name }).await?;
        eprintln!("upload: round {round}: {:.0} beside {:.0} MB/s", ours[round - 1], theirs[round - 1]);
    }
    Figure::beside("upload", "MB/s", &ours, "hashing and writing in one process", &theirs)
        .target("ratio >= 0.5")
        .detail("payload_mib", options.mib)
        .print()?;
    Figure::alone("upload_server_cpu", crate::figure::median(&cpu), "us/MB")
        .detail("payload_mib", options.mib)
        .print()?;
    product.stop().await
}

/// Uploads a file as otactl does: announced by its hash, then streamed in pieces that each have a checksum.
pub(crate) async fn send(operator: &Operator, from: &Path, payload: Payload) -> anyhow::Result<()> {
    let upload = Upload {
        sha256: payload.sha256.to_string(),
        size_bytes: i64::try_from(payload.size_bytes)?,
        ..Upload::default()
    };
    let made = operator.packages().create_upload(CreateUploadRequest { upload: Some(upload) }).await?.into_inner();
    let Some(Presence::Upload(upload)) = made.presence else { bail!("the server has the payload already") };
    let file = Arc::new(File::open(from)?);
    let (sender, receiver) = mpsc::channel(AHEAD);
    let reading = spawn_blocking(move || {
        let mut name = upload.name;
        let mut at = 0;
        while at < payload.size_bytes {
            let mut data = vec![0; PIECE_BYTES.min(usize::try_from(payload.size_bytes - at)?)];
            file.read_exact_at(&mut data, at)?;
            let piece = UploadPayloadRequest {
                name: std::mem::take(&mut name),
                offset: i64::try_from(at)?,
                crc32c: crc_fast::crc32_iscsi(&data),
                data: data.into(),
            };
            at += piece.data.len() as u64;
            if sender.blocking_send(piece).is_err() {
                break;
            }
        }
        anyhow::Ok(())
    });
    operator.packages().upload_payload(ReceiverStream::new(receiver)).await.context("the upload failed")?;
    reading.await?
}

/// Runs the baseline in a process of its own and returns the seconds it says it took.
fn hash_and_write_elsewhere(from: &Path, to: &Path) -> anyhow::Result<f64> {
    let mut command = Command::new(std::env::current_exe()?);
    let output = command.arg("hash-and-write").arg(from).arg(to).output()?;
    fs::remove_file(to)?;
    ensure!(output.status.success(), "the baseline failed: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().parse().context("the baseline said no number")
}

/// The baseline: reads, hashes and writes block by block, makes it durable, and says how many seconds that took.
pub(crate) fn hash_and_write(from: &PathBuf, to: &PathBuf) -> anyhow::Result<()> {
    let (mut source, mut target) = (File::open(from)?, File::create(to)?);
    let began = Instant::now();
    let mut hash = Sha256::new();
    let mut block = vec![0; MIB as usize];
    loop {
        let read = source.read(&mut block)?;
        if read == 0 {
            break;
        }
        hash.update(&block[..read]);
        target.write_all(&block[..read])?;
    }
    target.sync_all()?;
    ensure!(hash.finalize().len() == 32);
    println!("{}", began.elapsed().as_secs_f64());
    Ok(())
}
