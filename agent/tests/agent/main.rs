//! The agent against a server that follows a script: what it leaves on the disk and what it tells.

#![expect(clippy::unwrap_used, reason = "a test ends at what it did not expect")]

mod device;
mod full_disk;
mod gate;
mod identity;
mod peer;
#[expect(unreachable_pub, reason = "elsewhere it is the module of a library")]
#[path = "../../../e2e/src/signed.rs"]
mod signed;

use std::fs;
use std::time::Duration;

use device::Device;
use ota_agent::identity::Enrollment;
use ota_domain::device::State;
use ota_proto::device::v1::{DeploymentState, FailureCode, Installer};
use peer::{Fault, Peer};
use tokio_util::sync::CancellationToken;
use tonic::Code;

/// Packs a release: a file with its version, files that fill it, and hooks.
fn release(version: &str, fill_bytes: usize, hooks: &[(&str, &str)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut append = |name: &str, content: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o755);
        builder.append_data(&mut header, name, content).unwrap();
    };
    append("version", version.as_bytes());
    append("fill", &(0..fill_bytes).map(|n| (n % 253) as u8).collect::<Vec<_>>());
    for (name, script) in hooks {
        append(&format!("ota/hooks/{name}"), format!("#!/bin/sh\n{script}\n").as_bytes());
    }
    builder.into_inner().unwrap()
}

/// How long a release that never becomes healthy is tried: its health hook runs once however busy the machine is.
const TRIAL: Duration = Duration::from_secs(3);

/// A device that runs release 1.
async fn updated() -> (Peer, Device) {
    let peer = Peer::start().await;
    let device = Device::enrolled(&peer).await;
    peer.offer(1, &release("one", 1000, &[]), |_| {});
    device.round().await;
    assert_eq!(device.current("version").as_deref(), Some("one"));
    (peer, device)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_is_applied_and_reported_with_what_runs() {
    let (peer, device) = updated().await;
    let payload = release("two", 2_000_000, &[]);
    peer.offer(2, &payload, |_| {});
    device.round().await;
    assert_eq!(device.current("version").as_deref(), Some("two"));
    assert_eq!(device.leftovers(), [""; 0]);
    let reports = peer.reports();
    assert!(reports.windows(2).all(|pair| pair[0].sequence < pair[1].sequence), "sequences rise, also across restarts");
    let last = reports.last().unwrap();
    assert_eq!(last.state(), DeploymentState::Succeeded);
    assert_eq!((last.running[0].package.as_str(), last.running[0].version.as_str()), ("app", "2.0.0"));
    let states: Vec<_> = reports.iter().filter(|report| report.deployment.ends_with('2')).map(|r| r.state()).collect();
    assert!(states.is_sorted(), "{states:?}");
    device.round().await;
    assert_eq!(peer.check_ins().last().unwrap().running[0].version, "2.0.0");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_inventory_is_sent_when_it_is_wanted() {
    let (peer, _device) = updated().await;
    let inventories = peer.inventories();
    assert_eq!(inventories.len(), 2, "the checksum first, the body when it is asked for");
    assert!(inventories[0].inventory.is_none() && inventories[1].inventory.is_some());
    assert_eq!(inventories[0].sha256, peer.check_ins()[0].inventory_sha256);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_installed_under_the_name_of_its_package() {
    let peer = Peer::start().await;
    let device = Device::enrolled(&peer).await;
    peer.offer(1, b"just a file", |deployment| deployment.installer = Installer::File.into());
    device.round().await;
    assert_eq!(device.current("app").as_deref(), Some("just a file"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_goes_on_where_it_broke() {
    let (peer, device) = updated().await;
    peer.offer(2, &release("two", 3_000_000, &[]), |_| {});
    peer.fault(Fault::BreakAfter(1_000_000));
    device.round().await;
    assert_eq!(device.current("version").as_deref(), Some("two"));
    assert_eq!(peer.downloads()[1..], [0, 3 * 256 * 1024], "no byte is fetched twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_goes_on_after_a_restart() {
    let (peer, device) = updated().await;
    peer.offer(2, &release("two", 3_000_000, &[]), |_| {});
    peer.fault(Fault::BreakAfter(2_000_000));
    let stop = CancellationToken::new();
    let mut agent = device.agent(&stop);
    let offer = agent.check_in().await.unwrap().offers.remove(0);
    let stopping = async {
        // The first stream breaks; the agent waits before the next and is stopped meanwhile.
        while peer.downloads().len() < 2 {
            tokio::task::yield_now().await;
        }
        stop.cancel();
    };
    let (worked, ()) = tokio::join!(agent.work_on(offer), stopping);
    worked.unwrap();
    assert!(agent.driver().is_busy());
    drop(agent);
    device.round().await;
    assert_eq!(device.current("version").as_deref(), Some("two"));
    let downloads = peer.downloads();
    let resumed = usize::try_from(*downloads.last().unwrap()).unwrap();
    assert!(resumed.is_multiple_of(256 * 1024), "whole blocks are kept: {downloads:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_do_not_belong_are_not_taken() {
    for fault in [Fault::BadChecksum, Fault::BadOffset, Fault::Surplus, Fault::OtherBytes] {
        let (peer, device) = updated().await;
        peer.offer(2, &release("two", 600_000, &[]), |_| {});
        peer.fault(fault.clone());
        device.round().await;
        assert_eq!(device.current("version").as_deref(), Some("two"), "{fault:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payload_that_never_hashes_to_its_name_is_given_up() {
    let (peer, device) = updated().await;
    peer.offer(2, &release("two", 1000, &[]), |_| {});
    for _ in 0..3 {
        peer.fault(Fault::OtherBytes);
    }
    device.round().await;
    assert_eq!(peer.ends()[1], (DeploymentState::Failed, Some(FailureCode::Checksum)));
    assert_eq!(device.current("version").as_deref(), Some("one"));
    assert_eq!(device.leftovers(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_download_fails_at_once() {
    let (peer, device) = updated().await;
    peer.offer(2, &release("two", 1000, &[]), |_| {});
    peer.fault(Fault::Refuse(Code::NotFound, "PAYLOAD_NOT_ASSIGNED"));
    device.round().await;
    assert_eq!(peer.ends()[1], (DeploymentState::Failed, Some(FailureCode::Download)));
    assert_eq!(peer.downloads().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unhealthy_release_is_undone_and_its_last_words_are_reported() {
    let (peer, mut device) = updated().await;
    device.config.hooks.health = TRIAL;
    let hooks = [("start", "echo started"), ("health", "echo no database; exit 1")];
    peer.offer(2, &release("two", 1000, &hooks), |_| {});
    device.round().await;
    assert_eq!(device.current("version").as_deref(), Some("one"));
    let report = peer.reports().pop().unwrap();
    assert_eq!(report.state(), DeploymentState::RolledBack);
    assert_eq!(report.running[0].version, "1.0.0");
    let failure = report.failure.unwrap();
    assert_eq!((failure.code(), failure.log_tail.as_str()), (FailureCode::Health, "no database\n"));
    assert_eq!(
        fs::read_dir(device.package().join("releases")).unwrap().count(),
        3,
        "tree, record and metadata of the old"
    );
    device.round().await;
    assert_eq!(peer.downloads().len(), 2, "the same attempt is not made again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_the_deadline_cuts_off_does_not_hide_what_the_one_before_said() {
    let (peer, mut device) = updated().await;
    device.config.hooks.health = TRIAL;
    let health = "[ -e ran ] && exec sleep 60; touch ran; echo no database; exit 1";
    peer.offer(2, &release("two", 1000, &[("health", health)]), |_| {});
    device.round().await;
    let failure = peer.reports().pop().unwrap().failure.unwrap();
    assert_eq!((failure.code(), failure.log_tail.as_str()), (FailureCode::Health, "no database\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn hooks_run_in_order_around_the_switch() {
    let peer = Peer::start().await;
    let device = Device::enrolled(&peer).await;
    let log = device.package().with_file_name("order");
    let say = |what: &str| {
        format!("echo $OTA_VERSION {what} $(cat {}/current/version) >> {}", device.package().display(), log.display())
    };
    for (number, version) in [(1, "one"), (2, "two")] {
        let (stop, start, health) = (say("stop"), say("start"), say("health"));
        let hooks = [("stop", stop.as_str()), ("start", start.as_str()), ("health", health.as_str())];
        peer.offer(number, &release(version, 10, &hooks), |_| {});
        device.round().await;
    }
    let expected = "1.0.0 start one\n1.0.0 health one\n1.0.0 stop one\n2.0.0 start two\n2.0.0 health two\n";
    assert_eq!(fs::read_to_string(&log).unwrap(), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_can_call_a_download_off() {
    let (peer, device) = updated().await;
    peer.offer(2, &release("two", 2_000_000, &[]), |_| {});
    // Breaks, so that the agent is still fetching when the verdict arrives.
    peer.fault(Fault::BreakAfter(300_000));
    peer.fault(Fault::Refuse(Code::Unavailable, "BLOB_STORE_UNAVAILABLE"));
    peer.abort();
    device.round().await;
    assert_eq!(device.current("version").as_deref(), Some("one"));
    assert_eq!(peer.ends().len(), 1, "no end is reported of what the server ended itself");
    assert_eq!(device.leftovers(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_that_does_not_fit_is_not_even_fetched() {
    let (peer, mut device) = updated().await;
    peer.offer(2, &release("two", 1000, &[]), |deployment| deployment.hardware = vec!["imx8".to_owned()]);
    device.round().await;
    peer.offer(3, &release("three", 1000, &[]), |deployment| deployment.installer = Installer::Mcu.into());
    device.round().await;
    device.config.limits.reserve_bytes = u64::MAX / 2;
    peer.offer(4, &release("four", 1000, &[]), |_| {});
    device.round().await;
    let failed = |code| (DeploymentState::Failed, Some(code));
    let expected = [failed(FailureCode::Hardware), failed(FailureCode::Installer), failed(FailureCode::NoSpace)];
    assert_eq!(peer.ends()[1..], expected);
    assert_eq!(peer.downloads().len(), 1);
    assert_eq!(device.current("version").as_deref(), Some("one"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_archive_changes_nothing() {
    let (peer, device) = updated().await;
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_size(0);
    builder.append_link(&mut header, "passwd", "/etc/passwd").unwrap();
    peer.offer(2, &builder.into_inner().unwrap(), |_| {});
    device.round().await;
    assert_eq!(peer.ends()[1], (DeploymentState::Failed, Some(FailureCode::Archive)));
    assert_eq!(device.current("version").as_deref(), Some("one"));
    assert_eq!(device.leftovers(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_is_told_until_it_is_heard_and_never_undone() {
    let (peer, device) = updated().await;
    peer.refuse_reports(2, Code::Unavailable, "DATABASE_UNAVAILABLE");
    peer.offer(2, &release("two", 1000, &[]), |_| {});
    device.round().await;
    assert_eq!(peer.ends()[1..], [(DeploymentState::Succeeded, None)]);
    assert_eq!(device.current("version").as_deref(), Some("two"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_is_kept_out_tells_its_end_when_it_is_let_in_again() {
    let (peer, device) = updated().await;
    peer.refuse_reports(1, Code::PermissionDenied, "DEVICE_REJECTED");
    peer.offer(2, &release("two", 1000, &[]), |_| {});
    device.round().await;
    assert_eq!(peer.ends().len(), 1);
    device.round().await;
    assert_eq!(peer.ends()[1], (DeploymentState::Succeeded, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_lost_journal_the_device_stays_with_what_runs_until_the_next_attempt() {
    let (peer, device) = updated().await;
    device.lose_journal();
    peer.offer(2, &release("two", 1000, &[]), |_| {});
    device.round().await;
    assert_eq!(peer.ends()[1], (DeploymentState::Failed, Some(FailureCode::JournalLost)));
    assert_eq!(device.current("version").as_deref(), Some("one"));
    peer.offer(2, &release("two", 1000, &[]), |deployment| deployment.attempt = 2);
    device.round().await;
    assert_eq!(device.current("version").as_deref(), Some("two"));
    let sequences: Vec<_> = peer.reports().iter().map(|report| report.sequence).collect();
    assert!(sequences.is_sorted(), "{sequences:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn going_back_to_the_previous_release_fetches_nothing() {
    let (peer, device) = updated().await;
    peer.offer(2, &release("two", 1000, &[]), |_| {});
    device.round().await;
    peer.offer(1, &release("one", 1000, &[]), |deployment| {
        deployment.deployment = "01890a5d-ac96-774b-bcce-000000000003".to_owned();
    });
    device.round().await;
    assert_eq!(device.current("version").as_deref(), Some("one"));
    assert_eq!(peer.downloads().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_device_remembers_its_admission() {
    let peer = Peer::start().await;
    let device = Device::enrolled(&peer).await;
    for (reason, state) in [("DEVICE_PENDING", State::Pending), ("DEVICE_REJECTED", State::Rejected)] {
        peer.refuse_check_in(reason);
        device.agent(&CancellationToken::new()).check_in().await.unwrap_err();
        let enrollment = Enrollment::load(&device.config.data_dir).unwrap().unwrap();
        assert_eq!(enrollment.state, state);
    }
    device.round().await;
    assert_eq!(Enrollment::load(&device.config.data_dir).unwrap().unwrap().state, State::Accepted);
}
