//! A mirror that changes what it passes on, where TLS ends: a content delivery network, a proxy, a server taken over. It
//! can keep a device from a release and nothing else.

mod mutation;

use std::{
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use chrono::Utc;
use futures_util::future::join_all;
use ota_agent::{
    client::{Access, Answer, Client, Credentials, Offer},
    clock::Clock,
    config::Config,
    download::{Download, End, Slow},
    identity::{Certificate, DeviceKey, Enrollment, load_authority},
    install::{SingleFile, install},
    release::Job,
    releases::Releases,
    tree::Mode,
};
use ota_domain::deployment::FailureCode;
use ota_e2e::operator::{crc32c, unique_payload};
use ota_proto::device::v1::DownloadResponse;
use ota_tls::ServerTrust;
use prost::Message as _;
use tempfile::TempDir;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::fleet::{Fleet, payload};
use mutation::Mirror;

const DOWNLOADS: usize = 10_000;
const ONE_IN: f64 = 10_000.0;

/// Small, so that many fit into the time; large enough that one in four is changed.
const PAYLOAD_BYTES: usize = 3_000;

/// Downloads at the same time.
const LANES: usize = 8;

/// How long a broken test takes to fail.
const STALL: Duration = Duration::from_secs(60);

/// The agent's own way to the server, with the identity that its program got.
fn client(data: &Path) -> Client {
    let enrollment = Enrollment::load(data).expect("a folder that can be read").expect("an enrolled agent");
    let authority = load_authority(data).expect("a folder that can be read").expect("an enrolled agent");
    let key = DeviceKey::load(data).expect("a folder that can be read").expect("an enrolled agent");
    let certificate = Certificate::load(data).expect("a folder that can be read").expect("an enrolled agent");
    let credentials = Credentials { data: data.to_owned(), device: enrollment.device, key, certificate };
    let trust = ServerTrust::Authority(authority);
    let access = Access::new(&enrollment.server, trust, credentials, Clock::system()).expect("an address");
    Client::new(Arc::new(access), Config::default().limits.check_in)
}

/// Publishes a release and returns the order for it, which the agent's program does not get.
async fn ordered(fleet: &Fleet, content: &Bytes) -> Job {
    let release = fleet.admin.publish("app", "2.0.0", content).await;
    let order = fleet.withhold(&release).await;
    match Answer::read(&order.encode_to_vec()).expect("an answer").offers.pop() {
        Some(Offer::Job { job, .. }) => *job,
        other @ (Some(Offer::Unusable { .. }) | None) => panic!("{other:?}"),
    }
}

/// What came of the downloads of one lane.
#[derive(Debug, Default)]
struct Counts {
    installed: AtomicUsize,
    denied: AtomicUsize,
}

/// Downloads and installs, as the agent does, until there were enough.
async fn lane(client: &Client, job: &Job, content: &Bytes, mirror: &Mirror, counts: &Counts) {
    let memory = Path::new("/dev/shm");
    let folder = if memory.is_dir() { TempDir::with_prefix_in("ota-mirror-", memory) } else { TempDir::new() };
    let folder = folder.expect("a scratch folder");
    let releases = Releases::new(folder.path(), &job.release.package);
    let payload = job.release.payload.sha256;
    let unpack = SingleFile { name: "app".to_owned(), mode: Mode::Plain };
    let (stop, (progress, _)) = (CancellationToken::new(), watch::channel(0));
    while mirror.downloads() < DOWNLOADS {
        let download = Download {
            client,
            releases: &releases,
            job,
            reserve_bytes: 0,
            bandwidth: None,
            slow: Slow::default(),
            stall: STALL,
            stop: &stop,
            progress: &progress,
        };
        match download.run().await {
            End::Complete => {
                install(&releases, &job.release, &unpack, Utc::now()).expect("what was checked is installed");
                let installed = fs::read(releases.tree(payload).join("app")).expect("what was installed");
                assert!(installed == *content, "other bytes than the signed ones were installed");
                releases.remove(payload).expect("a scratch folder");
                counts.installed.fetch_add(1, Ordering::Relaxed);
            }
            End::Failed(failure) => {
                assert_eq!(failure.code, FailureCode::Checksum, "{failure:?}");
                assert!(!releases.tree(payload).exists());
                releases.remove_download(payload).expect("a scratch folder");
                counts.denied.fetch_add(1, Ordering::Relaxed);
            }
            End::Stopped => panic!("nobody stopped it"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_ten_thousand_downloads_through_a_mirror_that_changes_bytes_none_is_installed_wrong() {
    let fleet = Fleet::start().await;
    let content = unique_payload(PAYLOAD_BYTES);
    let job = ordered(&fleet, &content).await;
    let seed = rand::random();
    let mirror = Mirror::new(ONE_IN, seed);
    mirror.install(fleet.impostor.lies());
    let counts = Counts::default();
    let (client, begin) = (client(fleet.agent.data_dir()), Instant::now());
    let lanes = (0..LANES).map(|_| lane(&client, &job, &content, &mirror, &counts));
    join_all(lanes).await;

    let (installed, denied) = (counts.installed.load(Ordering::Relaxed), counts.denied.load(Ordering::Relaxed));
    println!(
        "seed {seed}: {} downloads, {} of them changed, {installed} installed, {denied} given up, {:?}",
        mirror.downloads(),
        mirror.mutated(),
        begin.elapsed()
    );
    assert!(mirror.downloads() >= DOWNLOADS);
    // A quarter is to be expected.
    assert!(mirror.mutated() > DOWNLOADS / 8, "the mirror changed nothing to speak of");
    assert!(installed > DOWNLOADS / 2 && denied > 0);
    fleet.assert_runs("1.0.0").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_behind_a_mirror_runs_what_was_signed_or_what_it_ran() {
    let fleet = Fleet::start().await;
    // Some byte of every download.
    Mirror::new(4.0, 1).install(fleet.impostor.lies());
    fleet.update_to(&fleet.publish("2.0.0").await).await;
    assert_eq!(fleet.failure().await, "CHECKSUM");
    fleet.assert_runs("1.0.0").await;

    // Another release's bytes, signed and of the same length.
    fleet.impostor.lies().download.tell(|_, truth| {
        drop(truth?);
        let data = payload("1.0.0");
        let piece = DownloadResponse { offset: 0, crc32c: crc32c(&data), data };
        Ok(Box::pin(tokio_stream::iter([Ok(piece)])))
    });
    fleet.update_to(&fleet.publish("3.0.0").await).await;
    assert_eq!(fleet.failure().await, "CHECKSUM");
    fleet.assert_runs("1.0.0").await;

    fleet.impostor.lies().download.stop();
    fleet.update_to(&fleet.publish("4.0.0").await).await;
    fleet.assert_runs("4.0.0").await;
}
