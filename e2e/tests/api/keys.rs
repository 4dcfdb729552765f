//! The server's own keys: one set for a database, whatever starts on it.

use std::{fs, path::Path};

use ota_e2e::{
    database::{self, TestDatabase},
    server::defaults,
};
use ota_server::{config::Config, keys::Keyring, server::Server};
use sqlx::PgPool;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

fn config(database: &TestDatabase, data_dir: &Path) -> Config {
    Config {
        database_url: Some(database.url()),
        data_dir: data_dir.to_owned(),
        listen: ([127, 0, 0, 1], 0).into(),
        database_connections: 4,
        ..defaults()
    }
}

async fn stored(pool: &PgPool) -> Vec<(String, Vec<u8>, Vec<u8>)> {
    sqlx::query_as("SELECT name, public_key, sealed FROM server_key ORDER BY name").fetch_all(pool).await.unwrap()
}

#[tokio::test]
async fn servers_that_start_at_once_end_with_one_set_of_keys() {
    let database = database::fresh().await;
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("key");
    let now = chrono::Utc::now();
    let opened = futures_util::future::join_all((0..4).map(|_| Keyring::open(database.pool(), &file, now))).await;
    let rings: Vec<_> = opened.into_iter().map(Result::unwrap).collect();
    for ring in &rings {
        assert_eq!(ring.authority().certificate(), rings[0].authority().certificate());
    }
    let keys = stored(database.pool()).await;
    let names: std::collections::BTreeSet<_> = keys.iter().map(|(name, ..)| name).collect();
    assert_eq!(names.len(), keys.len());
    assert!(keys.iter().any(|(_, public_key, _)| public_key == rings[0].authority().public_key()));
    // And with one set of documents: both roots, and the empty targets, snapshot and timestamp of the image repository.
    let statement = "SELECT repository::text, role, version FROM trust_metadata ORDER BY 1, 2";
    let documents: Vec<(String, String, i64)> = sqlx::query_as(statement).fetch_all(database.pool()).await.unwrap();
    let documents: Vec<_> = documents.iter().map(|(of, role, version)| format!("{of} {role} {version}")).collect();
    let image = ["image root 1", "image snapshot 1", "image targets 1", "image timestamp 1"];
    assert_eq!(documents, [&["director root 1"], &image[..]].concat());
}

#[tokio::test]
async fn a_restart_keeps_the_keys() {
    let database = database::fresh().await;
    let data_dir = TempDir::new().unwrap();
    let mut before = None;
    for _ in 0..2 {
        let server = Server::start(&config(&database, data_dir.path()), CancellationToken::new()).await.unwrap();
        let certificate = server.app.keys.authority().certificate().clone();
        server.stop().await;
        let now = (certificate, stored(database.pool()).await);
        assert_eq!(*before.get_or_insert_with(|| now.clone()), now);
    }
}

#[tokio::test]
async fn another_key_encryption_key_is_refused_with_a_hint() {
    let database = database::fresh().await;
    let (first, second) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    Server::start(&config(&database, first.path()), CancellationToken::new()).await.unwrap().stop().await;

    // Without a key, none is made: it could open nothing.
    let error = Server::start(&config(&database, second.path()), CancellationToken::new()).await.unwrap_err();
    assert!(error.hint().unwrap().contains("--key-file"), "{error:?}");
    assert!(!second.path().join("key-encryption-key").exists());

    let other = second.path().join("other");
    fs::write(&other, [7; 32]).unwrap();
    let config = Config { key_file: Some(other), ..config(&database, second.path()) };
    let error = Server::start(&config, CancellationToken::new()).await.unwrap_err();
    assert!(error.hint().unwrap().contains("--key-file"), "{error:?}");

    let config = Config { key_file: Some(first.path().join("key-encryption-key")), ..config };
    Server::start(&config, CancellationToken::new()).await.unwrap().stop().await;
}
