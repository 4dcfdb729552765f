//! `ota-server rotate-key-encryption-key`: the server's keys are sealed anew, wherever it is interrupted.

use std::fs;

use ota_e2e::{Binaries, binaries::run, process::ServerProcess};
use tokio::process::Command;

use super::{Scene, path, tells, text};

const KEY_FILE: &str = "key-encryption-key";

/// Runs it. Returns what it told.
async fn rotate(server: &ServerProcess, code: i32, arguments: &[&str]) -> String {
    let mut command = Command::new(&Binaries::get().server);
    command.env_remove("DATABASE_URL").arg("rotate-key-encryption-key").args(arguments);
    let output = run(command.arg("--data-dir").arg(server.data_dir())).await;
    assert_eq!(output.status.code(), Some(code), "{}", text(&output.stderr));
    text(&output.stderr)
}

#[tokio::test]
async fn a_new_key_encryption_key_seals_everything_and_the_fleet_goes_on() {
    let mut scene = Scene::start().await;
    scene.takes("1.0.0").await;
    let file = scene.server.data_dir().join(KEY_FILE);
    let fresh = scene.server.data_dir().join("key-encryption-key.new");
    let first = fs::read(&file).unwrap();
    // A server that runs would not open its keys any more.
    tells(&rotate(&scene.server, 1, &[]).await, &["error:"]);
    assert_eq!(fs::read(&file).unwrap(), first);

    // Interrupted after the database was changed, and before the files were.
    scene.server.terminate().await;
    tells(&rotate(&scene.server, 0, &["--new-key-file", path(&fresh)]).await, &["8 keys", "--key-file"]);
    let mut start = Command::new(&Binaries::get().server);
    start.env_remove("DATABASE_URL").args(["--listen", "127.0.0.1:0", "--data-dir"]).arg(scene.server.data_dir());
    let output = run(&mut start).await;
    assert_eq!(output.status.code(), Some(1));
    tells(&text(&output.stderr), &["sealed under the key-encryption key", "rotate-key-encryption-key", "again"]);
    let told = rotate(&scene.server, 0, &[]).await;
    tells(&told, &["0 keys", "backups of the database"]);
    assert!(!fresh.exists());
    let second = fs::read(&file).unwrap();
    assert_ne!(second, first);
    let kept: Vec<_> = fs::read_dir(scene.server.data_dir()).unwrap().map(|entry| entry.unwrap().path()).collect();
    let kept = kept.iter().filter(|kept| **kept != file && path(kept).contains(KEY_FILE));
    assert_eq!(kept.map(|kept| fs::read(kept).unwrap()).collect::<Vec<_>>(), [first]);
    scene.server.restart().await;
    scene.takes("2.0.0").await;

    // Once more, as people do it.
    scene.server.terminate().await;
    tells(&rotate(&scene.server, 0, &[]).await, &["8 keys", path(&file)]);
    assert_ne!(fs::read(&file).unwrap(), second);
    scene.server.restart().await;
    scene.otactl(&["keys", "rotate", "timestamp", "--yes"]).await;
    scene.takes("3.0.0").await;
}
