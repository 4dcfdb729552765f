//! The same against a real server and a real agent: the attacker owns the server's disk and database.

use std::{fs, path::PathBuf};

use crate::fleet::{Fleet, payload};

/// Finds the file in which a blob store keeps these bytes.
fn blob(folder: PathBuf, content: &[u8]) -> Option<PathBuf> {
    fs::read_dir(folder).ok()?.filter_map(Result::ok).find_map(|entry| {
        let path = entry.path();
        if path.is_dir() { blob(path, content) } else { (fs::read(&path).ok()? == content).then_some(path) }
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payload_changed_in_the_store_is_not_installed() {
    let fleet = Fleet::start().await;
    let release = fleet.publish("2.0.0").await;
    let signed = payload("2.0.0");
    let path = blob(fleet.server.blob_store(), &signed).expect("the payload is in the store");
    fs::write(&path, vec![b'x'; signed.len()]).expect("the attacker owns the disk");
    fleet.update_to(&release).await;
    let code = fleet.failure().await;
    assert!(code == "CHECKSUM" || code == "DOWNLOAD", "{code}");
    fleet.assert_runs("1.0.0").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_that_the_database_gives_another_payload_is_not_installed() {
    let fleet = Fleet::start().await;
    let release = fleet.publish("2.0.0").await;
    fleet.admin.upload(&payload("malware")).await;
    fleet
        .tamper(
            "UPDATE release SET payload_sha256 = (SELECT sha256 FROM payload ORDER BY created_at DESC LIMIT 1)
             WHERE version = '2.0.0'",
        )
        .await;
    fleet.update_to(&release).await;
    assert_eq!(fleet.failure().await, "TRUST");
    fleet.assert_runs("1.0.0").await;
}
