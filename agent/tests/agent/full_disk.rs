//! The agent, as a program, on a disk that becomes full: a small memory file system in a namespace of its own.

use std::fs;
use std::process::Command;

use ota_proto::device::v1::{DeploymentState, FailureCode};

use crate::{release, updated};

/// Tells whether this machine lets a test mount a file system. Where it should and does not, the test fails.
fn can_mount() -> bool {
    let can = Command::new("unshare").args(["-rm", "true"]).status().is_ok_and(|status| status.success());
    if !can {
        assert!(std::env::var("CI").is_err(), "unshare -rm does not work here");
        eprintln!("NOT RUN: a full disk, because unshare -rm does not work here");
    }
    can
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_becomes_full_leaves_the_old_release_and_nothing_else() {
    if !can_mount() {
        return;
    }
    let (peer, device) = updated().await;
    // Says that it unpacks to less than it does, so that the space check lets it through.
    peer.offer(2, &release("two", 2_000_000, &[]), |deployment| deployment.unpacked_size_bytes = 1);
    let outer = tempfile::tempdir().unwrap();
    let config = outer.path().join("agent.toml");
    fs::write(&config, "[limits]\nreserve_bytes = 0\n").unwrap();
    let script = "mount -t tmpfs -o size=3m tmpfs $0/disk && cp -a $1/. $0/disk && \
                  ! $2 once --config $0/agent.toml --data-dir $0/disk >&2 && \
                  cat $0/disk/packages/app/current/version && ls -A $0/disk/packages/app/releases | wc -l";
    fs::create_dir(outer.path().join("disk")).unwrap();
    let (folder, data) = (outer.path().to_owned(), device.config.data_dir.clone());
    let run = move || {
        let mut command = Command::new("unshare");
        command.args(["-rm", "sh", "-c", script]).arg(folder).arg(data).arg(env!("CARGO_BIN_EXE_ota-agent"));
        command.output().unwrap()
    };
    let output = tokio::task::spawn_blocking(run).await.unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), "one3\n", "the old release, its tree, its record and its metadata");
    assert_eq!(peer.ends()[1], (DeploymentState::Failed, Some(FailureCode::NoSpace)));
    assert_eq!(peer.downloads().len(), 2, "it became full while unpacking");
}
