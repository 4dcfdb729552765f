//! Archives made by an attacker, published by somebody whose credential was stolen: no device unpacks them.

use std::path::Path;

use bytes::Bytes;
use ota_e2e::{Operator, process::ServerProcess, tree};
use ota_proto::admin::v1::{DeploymentState, Installer, Release};
use tar::{EntryType, Header};

use crate::fleet::{MIB, assert_installed, assign, ended, enroll, make_folder, publish, succeeded};

/// One entry, with whatever name and size the attacker wants.
fn entry(kind: EntryType, name: &str, target: &str, size: u64, content: &[u8]) -> Vec<u8> {
    let mut header = Header::new_gnu();
    let bytes = &mut header.as_old_mut().name;
    bytes[..name.len()].copy_from_slice(name.as_bytes());
    header.as_old_mut().linkname[..target.len()].copy_from_slice(target.as_bytes());
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(0o644);
    header.set_cksum();
    let mut archive = header.as_bytes().to_vec();
    archive.extend_from_slice(content);
    archive.resize(archive.len().next_multiple_of(512), 0);
    archive
}

fn file(name: &str) -> Vec<u8> {
    entry(EntryType::Regular, name, "", 5, b"owned")
}

/// An honest file, what the attacker wants, and the end of the archive.
fn archive(hostile: &[u8]) -> Bytes {
    [&file("honest"), hostile, &[0; 1024]].concat().into()
}

/// The archives, by what is hostile about them. `outside` is where a file must never appear.
fn archives(outside: &Path) -> Vec<(&'static str, Bytes)> {
    let outside = outside.to_str().expect("a scratch folder's path is text");
    let folder = Path::new(outside).parent().and_then(Path::to_str).expect("a file lies in a folder");
    let up = format!("{}{}", "../".repeat(12), outside.trim_start_matches('/'));
    let through_link = [entry(EntryType::Symlink, "link", folder, 0, b""), file("link/owned")].concat();
    vec![
        ("an absolute path", archive(&file(outside))),
        ("a path with ..", archive(&file(&up))),
        ("a path with .. in the middle", archive(&file("share/../../../../owned"))),
        ("a symbolic link that leads out", archive(&entry(EntryType::Symlink, "link", "/etc/passwd", 0, b""))),
        ("a file through a symbolic link", archive(&through_link)),
        ("a hard link that leads out", archive(&entry(EntryType::Link, "link", "/etc/passwd", 0, b""))),
        ("a character device", archive(&entry(EntryType::Char, "null", "", 0, b""))),
        ("a block device", archive(&entry(EntryType::Block, "disk", "", 0, b""))),
        ("a pipe", archive(&entry(EntryType::Fifo, "pipe", "", 0, b""))),
        ("a file of a tebibyte", archive(&entry(EntryType::Regular, "huge", "", 1 << 40, b"owned"))),
        ("a file that ends early", archive(&entry(EntryType::Regular, "short", "", 1 << 20, b"owned"))),
        ("the same file twice", archive(&file("honest"))),
    ]
}

async fn publish_archive(operator: &Operator, version: &str, archive: &Bytes) {
    let payload = format!("payloads/{}", operator.upload(archive).await);
    let release = Release { installer: Installer::Directory.into(), payload, ..Default::default() };
    operator.create_release("app", version, release).await.expect("the server takes any bytes");
}

#[tokio::test]
async fn hostile_archives_are_refused_and_the_old_release_runs_on() {
    let server = ServerProcess::start().await;
    let operator = server.admin();
    let agent = enroll(&server, &server.url()).await;
    let good = make_folder(server.scratch(), MIB, 1);
    publish(&server, &good, "1.0.0").await;
    assign(&server, "1.0.0", &agent.name()).await;
    assert!(agent.once().await.status.success());

    let outside = server.scratch().join("owned");
    for (number, (what, archive)) in (2..).zip(archives(&outside)) {
        let version = format!("{number}.0.0");
        publish_archive(&operator, &version, &archive).await;
        assign(&server, &version, &agent.name()).await;
        agent.once().await;
        let deployment = ended(&operator, &agent.name()).await;
        let failure = deployment.failure.clone().unwrap_or_default();
        let told = (deployment.state(), failure.code.as_str());
        assert_eq!(told, (DeploymentState::Failed, "ARCHIVE"), "{what}: {deployment:?}");
        assert!(!failure.message.is_empty(), "nothing is said of {what}");
        assert!(!outside.exists(), "{what} got out");
        assert_installed(&agent, &good);
        let kept = tree::read(&agent.data_dir().join("packages/app"));
        let owned = |path: &Path| path.ends_with("owned") || path.ends_with("honest");
        assert!(!kept.keys().any(|path| owned(path)), "{what} left something behind: {kept:?}");
        assert_eq!(operator.device(&agent.name()).await.running[0].version, "1.0.0");
    }

    let next = make_folder(server.scratch(), MIB, 2);
    publish(&server, &next, "99.0.0").await;
    assign(&server, "99.0.0", &agent.name()).await;
    agent.once().await;
    succeeded(&operator, &agent.name()).await;
    assert_installed(&agent, &next);
}
