//! More than was asked for, and slower than anybody waits: documents and payloads without an end.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::StreamExt as _;
use ota_e2e::{
    eventually,
    impostor::Answers,
    operator::{crc32c, unique_payload},
};
use ota_proto::{
    admin::v1::{DeploymentState, Repository},
    device::v1::{
        self as wire, CheckInResponse, DownloadResponse, MetadataUpdate, ReportProgressResponse, TargetsDocument,
        TrustFault, Verdict, WatchResponse,
    },
};
use ota_trust::{
    key::Signer,
    metadata::{Role, Root, read, sign},
    verify::MAX_ROOT_STEPS,
};
use tokio::{
    sync::mpsc,
    time::{interval, timeout},
};
use tokio_stream::wrappers::IntervalStream;
use tonic::Status;

use crate::fleet::Fleet;

/// More memory than this the agent never takes.
const MEMORY_BYTES: u64 = 64 << 20;

/// What the device's folder may grow by, beside what it downloads.
const SLACK_BYTES: u64 = 1 << 20;

/// Large enough to be fetched in many pieces.
const PAYLOAD_BYTES: usize = 4 << 20;

/// How long a broken test takes to fail.
const LIMIT: Duration = Duration::from_secs(60);

/// Pieces of zeros without an end.
fn zeros(offset: i64, piece_bytes: usize) -> Answers<DownloadResponse> {
    let data = Bytes::from(vec![0; piece_bytes]);
    let crc32c = crc32c(&data);
    let piece = move |number: usize| {
        let offset = offset + i64::try_from(number * piece_bytes).expect("less than a test can send");
        Ok(DownloadResponse { offset, crc32c, data: data.clone() })
    };
    Box::pin(tokio_stream::iter((0..).map(piece)))
}

/// The largest that a folder ever was, as far as it was looked at.
#[derive(Clone)]
struct Growth {
    folder: PathBuf,
    most: Arc<AtomicU64>,
}

impl Growth {
    fn of(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), most: Arc::default() }
    }

    fn look(&self) -> u64 {
        let now = size(&self.folder);
        self.most.fetch_max(now, Ordering::Relaxed).max(now)
    }
}

/// Returns how many bytes the files in a folder have. What disappears meanwhile has none.
fn size(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    let sizes = entries.filter_map(Result::ok).map(|entry| match entry.file_type() {
        Ok(kind) if kind.is_dir() => size(&entry.path()),
        Ok(kind) if kind.is_file() => entry.metadata().map_or(0, |file| file.len()),
        Ok(_) | Err(_) => 0,
    });
    sizes.sum()
}

fn assert_small(fleet: &mut Fleet) {
    let most = fleet.agent.process().memory_bytes("VmHWM").expect("a process that runs");
    println!("the agent took {} KiB at most", most / 1024);
    assert!(most < MEMORY_BYTES, "{most} bytes");
}

/// Answers each download with zeros without an end, in pieces of the next of these sizes, and looks how the folder grows.
fn flood(fleet: &Fleet, growth: &Growth, mut sizes: impl Iterator<Item = usize> + Send + 'static) {
    let growth = growth.clone();
    fleet.impostor.lies().download.tell(move |asked, _| {
        let size = sizes.next().ok_or_else(|| Status::internal("the agent asks more often than it should"))?;
        let growth = growth.clone();
        Ok(Box::pin(zeros(asked.request.offset, size).inspect(move |_| assert!(growth.look() > 0))))
    });
    // The genuine server would call off a download of so many bytes.
    fleet.impostor.lies().report_progress.tell(|asked, truth| match asked.request.state() {
        wire::DeploymentState::Downloading => Ok(ReportProgressResponse { verdict: Verdict::Continue.into() }),
        wire::DeploymentState::Unspecified
        | wire::DeploymentState::Installing
        | wire::DeploymentState::Rebooting
        | wire::DeploymentState::Verifying
        | wire::DeploymentState::Succeeded
        | wire::DeploymentState::Failed
        | wire::DeploymentState::RolledBack
        | wire::DeploymentState::Rejected => truth,
    });
}

async fn has_failed(fleet: &Fleet) -> Option<()> {
    let deployments = fleet.admin.deployments(&fleet.agent.name()).await;
    deployments.iter().any(|one| one.state() == DeploymentState::Failed).then_some(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payload_without_an_end_takes_its_signed_length_and_no_more() {
    let mut fleet = Fleet::start().await;
    let release = fleet.admin.publish("app", "2.0.0", &unique_payload(PAYLOAD_BYTES)).await;
    let growth = Growth::of(fleet.agent.data_dir());
    let before = growth.look();
    flood(&fleet, &growth, std::iter::repeat(256 * 1024));
    fleet.agent.start();
    fleet.assign(&release).await;
    eventually("the deployment has failed", LIMIT, async || has_failed(&fleet).await).await;
    assert_eq!(fleet.failure().await, "CHECKSUM");
    let most = growth.look();
    assert!(most <= before + PAYLOAD_BYTES as u64 + SLACK_BYTES, "{before} bytes grew to {most}");
    assert_small(&mut fleet);
    fleet.assert_runs("1.0.0").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pieces_beyond_every_size_are_not_taken() {
    let mut fleet = Fleet::start().await;
    let release = fleet.admin.publish("app", "2.0.0", &unique_payload(PAYLOAD_BYTES)).await;
    let growth = Growth::of(fleet.agent.data_dir());
    let before = growth.look();
    // After the last, the agent gives up.
    flood(&fleet, &growth, [200_000, 3 << 20, 32 << 20].into_iter());
    fleet.assign(&release).await;
    fleet.agent.start();
    eventually("the deployment has failed", LIMIT, async || has_failed(&fleet).await).await;
    let most = growth.look();
    assert!(most <= before + PAYLOAD_BYTES as u64 + SLACK_BYTES, "{before} bytes grew to {most}");
    assert_small(&mut fleet);
    fleet.assert_runs("1.0.0").await;
}

/// A piece of one byte now and then, for ever.
fn trickle(offset: i64, every: Duration) -> Answers<DownloadResponse> {
    let data = Bytes::from_static(b"x");
    let crc32c = crc32c(&data);
    let piece = move |(number, _)| Ok(DownloadResponse { offset: offset + number, crc32c, data: data.clone() });
    let numbers = tokio_stream::iter(0..);
    Box::pin(numbers.zip(IntervalStream::new(interval(every))).map(piece))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sender_that_trickles_is_given_up_for_another() {
    let fleet = Fleet::start().await;
    // Long enough for a busy machine to take what comes at once.
    fleet.agent.limit("slow_for = \"3s\"");
    let release = fleet.publish("2.0.0").await;
    let (sender, mut offsets) = mpsc::unbounded_channel();
    let mut slow = Some(Duration::from_millis(300));
    fleet.impostor.lies().download.tell(move |asked, truth| {
        sender.send(asked.request.offset).ok();
        match slow.take() {
            Some(every) => Ok(trickle(asked.request.offset, every)),
            None => truth,
        }
    });
    timeout(LIMIT, fleet.update_to(&release)).await.expect("the agent gives up who trickles");
    let offsets: Vec<_> = std::iter::from_fn(|| offsets.try_recv().ok()).collect();
    // What came is kept; as it was the attacker's, the payload is fetched again.
    assert!(matches!(offsets[..], [0, 1..30, 0]), "{offsets:?}");
    fleet.assert_runs("2.0.0").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_piece_that_trickles_in_is_given_up() {
    let fleet = Fleet::start().await;
    fleet.agent.limit("slow_for = \"1s\"\nleast_bytes_per_second = 1048576");
    let release = fleet.publish("2.0.0").await;
    let (sender, mut downloads) = mpsc::unbounded_channel();
    let slowness = fleet.impostor.slowness();
    let mut slow = Some(Duration::from_secs(10));
    fleet.impostor.lies().download.tell(move |_, truth| {
        sender.send(()).ok();
        slowness.send_replace(slow.take());
        truth
    });
    timeout(LIMIT, fleet.update_to(&release)).await.expect("the agent gives up a piece that trickles in");
    for _ in 0..2 {
        downloads.try_recv().expect("a download, and another");
    }
    fleet.assert_runs("2.0.0").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_never_ends_is_given_up() {
    let mut fleet = Fleet::start().await;
    fleet.agent.limit("check_in = \"1s\"");
    let release = fleet.publish("2.0.0").await;
    fleet.assign(&release).await;
    fleet.impostor.slowness().send_replace(Some(Duration::from_secs(1)));
    let (sender, mut check_ins) = mpsc::unbounded_channel();
    fleet.impostor.lies().check_in.tell(move |_, truth| {
        sender.send(()).ok();
        truth
    });
    fleet.agent.start();
    for _ in 0..2 {
        timeout(LIMIT, check_ins.recv()).await.expect("the agent gives up an answer").expect("the agent asks");
    }
    fleet.impostor.slowness().send_replace(None);
    eventually("the release runs", LIMIT, async || {
        let device = fleet.admin.device(&fleet.agent.name()).await;
        device.running.iter().any(|running| running.version == "2.0.0").then_some(())
    })
    .await;
}

/// Documents that are no better the larger they are, and what is said of them.
fn attacks(honest: &CheckInResponse, roots: (Vec<Bytes>, Vec<Bytes>)) -> Vec<(CheckInResponse, TrustFault)> {
    let changed = |change: &dyn Fn(&mut MetadataUpdate)| {
        let mut answer = honest.clone();
        change(answer.metadata.as_mut().expect("metadata with an order"));
        answer
    };
    let (image_roots, director_roots) = roots;
    // A string that does not end, if anybody parsed it as JSON.
    let endless = |role: Role| Bytes::from([b"{\"signed\":\"".as_slice(), &vec![b'x'; role.max_bytes()]].concat());
    // JSON that takes many times its length when it is parsed.
    let bomb = |role: Role| {
        let (begin, end) = ("{\"signatures\":[],\"signed\":[0", "]}");
        let zeros = (role.max_bytes() - begin.len() - end.len()) / 2;
        Bytes::from([begin, &",0".repeat(zeros), end].concat())
    };
    let flood = Bytes::from(vec![b' '; 17 << 20]);
    let mut attacks = vec![
        (changed(&|sent| sent.image_roots.clone_from(&image_roots)), TrustFault::Endless),
        (changed(&|sent| sent.director_roots.clone_from(&director_roots)), TrustFault::Endless),
        (
            changed(&|sent| sent.image_targets = sent.image_targets.iter().cycle().take(10_000).cloned().collect()),
            TrustFault::Endless,
        ),
        // Beyond what is taken off the wire: nothing new is said.
        (changed(&|sent| sent.freshness = flood.clone()), TrustFault::Endless),
    ];
    // The bomb of a timestamp is too small to hurt, and is looked at.
    let makers: [(&dyn Fn(Role) -> Bytes, _); 2] = [(&endless, TrustFault::Endless), (&bomb, TrustFault::Arbitrary)];
    for (make, of_timestamp) in makers {
        attacks.extend([
            (changed(&|sent| sent.image_timestamp = make(Role::Timestamp)), of_timestamp),
            (changed(&|sent| sent.image_snapshot = make(Role::Snapshot)), TrustFault::Endless),
            (changed(&|sent| sent.image_targets[0].document = make(Role::Targets)), TrustFault::Endless),
            (changed(&|sent| sent.director_timestamp = make(Role::Timestamp)), of_timestamp),
            (changed(&|sent| sent.director_snapshot = make(Role::Snapshot)), TrustFault::Endless),
            (changed(&|sent| sent.director_targets = make(Role::Targets)), TrustFault::Endless),
            (changed(&|sent| sent.image_roots = vec![make(Role::Root)]), TrustFault::Endless),
            (changed(&|sent| sent.director_roots = vec![make(Role::Root)]), TrustFault::Endless),
            (
                changed(&|sent| {
                    let list = TargetsDocument { role: "bin-00".to_owned(), document: make(Role::Targets) };
                    sent.image_targets.push(list);
                }),
                TrustFault::Endless,
            ),
        ]);
    }
    attacks
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_beyond_their_size_or_number_are_refused_in_little_memory() {
    let mut fleet = Fleet::start().await;
    let honest = fleet.withhold(&fleet.publish("2.0.0").await).await;
    let keys = fleet.keys().await;
    let roots = async |repository, signer: Option<&dyn Signer>| {
        let first = fleet.admin.document(repository, "root", 0).await.expect("anybody reads a root");
        let mut root: Root = read(&first).expect("a root");
        let signer = signer.expect("a server that was not adopted");
        let next = |_| {
            root = root.next(root.expires);
            Bytes::from(sign(&root, &[signer]).expect("a root"))
        };
        (0..=MAX_ROOT_STEPS).map(next).collect::<Vec<_>>()
    };
    let roots = (
        roots(Repository::Image, keys.image_root.as_ref().map(|key| key as _)).await,
        roots(Repository::Director, keys.director_root.as_ref().map(|key| key as _)).await,
    );
    let attacks = attacks(&honest, roots);
    let before = size(fleet.agent.data_dir());

    // It rings and rings, so that no attack has to wait for the next check-in.
    fleet.impostor.lies().watch.tell(|_, _| {
        let rings = IntervalStream::new(interval(Duration::from_millis(100)));
        Ok(Box::pin(rings.map(|_| Ok(WatchResponse { delay: None }))))
    });
    let (sender, mut faults) = mpsc::unbounded_channel();
    let mut answers = attacks.clone().into_iter().map(|(answer, _)| answer).chain(std::iter::repeat(honest.clone()));
    fleet.impostor.lies().check_in.tell(move |asked, _| {
        sender.send(asked.request.trust_fault()).ok();
        let answer = answers.next().expect("it ends with the honest one");
        Ok(CheckInResponse { deployments: Vec::new(), ..answer })
    });
    fleet.agent.start();
    let first = faults.recv().await.expect("the agent checks in");
    assert_eq!(first, TrustFault::Unspecified);
    for (number, (_, expected)) in attacks.iter().enumerate() {
        let fault = timeout(LIMIT, faults.recv()).await.expect("the agent checks in again");
        assert_eq!(fault, Some(*expected), "attack {number}");
    }
    assert_small(&mut fleet);
    let after = size(fleet.agent.data_dir());
    assert!(after <= before + SLACK_BYTES, "{before} bytes grew to {after}");
    fleet.assert_runs("1.0.0").await;
}
