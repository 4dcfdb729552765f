//! Two servers on one database and one object store: where most tests of this binary begin.

use std::{path::PathBuf, time::Duration};

use ota_e2e::{
    ObjectStore, Operator,
    database::{self, TestDatabase},
    process::ServerProcess,
};
use tempfile::TempDir;

/// How long a broken test takes to fail.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// Two servers, and what they share.
pub(crate) struct Replicas {
    pub(crate) a: ServerProcess,
    pub(crate) b: ServerProcess,
    pub(crate) store: ObjectStore,
    _shared: Shared,
}

/// What all servers of a cluster are given.
pub(crate) struct Shared {
    database: TestDatabase,
    keys: TempDir,
}

impl Shared {
    pub(crate) async fn fresh() -> Self {
        Self { database: database::fresh().await, keys: TempDir::with_prefix("ota-keys-").expect("a scratch folder") }
    }

    pub(crate) fn key_file(&self) -> PathBuf {
        self.keys.path().join("key-encryption-key")
    }

    /// Starts a server on the store.
    pub(crate) async fn server(&self, store: &ObjectStore, arguments: &[&str]) -> ServerProcess {
        ServerProcess::start_in(&self.environment(store), arguments).await
    }

    /// Returns what servers are told.
    pub(crate) fn environment(&self, store: &ObjectStore) -> Vec<(String, String)> {
        let shared = [
            ("DATABASE_URL", self.database.url()),
            ("OTA_KEY_FILE", self.key_file().display().to_string()),
            ("OTA_BLOB_STORE", store.url()),
        ];
        let shared = shared.map(|(name, value)| (name.to_owned(), value));
        store.environment().into_iter().chain(shared).collect()
    }
}

/// Starts a single server on a store. `None` where there is no object store to be had.
pub(crate) async fn alone() -> Option<(ServerProcess, ObjectStore, Shared)> {
    let store = ObjectStore::start().await?;
    let shared = Shared::fresh().await;
    Some((shared.server(&store, &[]).await, store, shared))
}

impl Replicas {
    /// Starts them. `None` where there is no object store to be had.
    pub(crate) async fn start(arguments: &[&str]) -> Option<Self> {
        let store = ObjectStore::start().await?;
        let shared = Shared::fresh().await;
        let a = shared.server(&store, arguments).await;
        let b = shared.server(&store, arguments).await;
        Some(Self { a, b, store, _shared: shared })
    }

    /// Calls the first server as the first admin.
    pub(crate) fn at_a(&self) -> Operator {
        self.a.admin()
    }

    /// Calls the second server as the first admin.
    pub(crate) fn at_b(&self) -> Operator {
        self.a.admin().at(&self.b.url())
    }
}
