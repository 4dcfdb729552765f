//! The product under measurement: the released server on a Postgres of its own, in processes of their own.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read},
    path::Path,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use anyhow::{Context as _, ensure};
use ota_e2e::operator::Operator;
use ota_server::{
    db::MIGRATOR,
    postgres::{Cluster, Durability},
};
use ota_tls::{Connector, DefaultTimeProvider, Identity, IdentitySlot, SeenCertificates, ServerTrust};
use sqlx::{AssertSqlSafe, PgPool};
use tempfile::TempDir;
use tonic::transport::Channel;

use crate::child::{self, Child};

/// The filter that makes the server's log tell each signature that it makes over metadata.
const TELLS_SIGNATURES: &str = "warn,ota_server::keys::signing=trace";
/// What such a line has in it, and no other.
const SIGNATURE: &str = "ota_server::keys::signing";

/// A running server with its database.
#[derive(Debug)]
pub(crate) struct Product {
    /// Where it listens, as a URL.
    pub(crate) url: String,
    /// The server's process.
    pub(crate) server: Child,
    /// The server's database, for what no API does: thousands of devices at once.
    pub(crate) database: PgPool,
    admin_token: String,
    counts_statements: bool,
    signatures: Arc<AtomicU64>,
    cluster: Cluster,
    folder: TempDir,
}

impl Product {
    /// Starts both in a fresh folder beneath `scratch`. `flags` go to the server.
    pub(crate) async fn start(scratch: &Path, flags: &[&str]) -> anyhow::Result<Self> {
        Self::launch(scratch, &[&["--no-tls"], flags].concat()).await
    }

    /// The same with TLS.
    pub(crate) async fn encrypted(scratch: &Path, flags: &[&str]) -> anyhow::Result<Self> {
        Self::launch(scratch, flags).await
    }

    async fn launch(scratch: &Path, flags: &[&str]) -> anyhow::Result<Self> {
        let folder = crate::scratch_folder(scratch)?;
        let postgres = folder.path().join("postgres");
        let counting = [("shared_preload_libraries", "pg_stat_statements")];
        // Without the contributed modules there is still the count of transactions.
        let (cluster, counts_statements) = match Cluster::start_with(&postgres, Durability::Full, &counting).await {
            Ok(cluster) => (cluster, true),
            Err(_) => (Cluster::start(&postgres, Durability::Full).await?, false),
        };
        let database = PgPool::connect_with(cluster.connect_options()).await?;
        MIGRATOR.run(&database).await?;
        if counts_statements {
            sqlx::query("CREATE EXTENSION pg_stat_statements").execute(&database).await?;
        }
        let data = folder.path().join("server");
        let mut command = Command::new(program("ota-server")?);
        command
            .args([
                "--log",
                TELLS_SIGNATURES,
                "--listen",
                "127.0.0.1:0",
                "--database-url",
                &cluster.url(),
                "--data-dir",
            ])
            .arg(&data)
            .args(flags)
            .stderr(Stdio::piped());
        let (mut server, url) = Child::start_listening("ota-server", &mut command)?;
        let signatures = Arc::default();
        let log = server.stderr().context("the log is piped")?;
        let counter = Arc::clone(&signatures);
        std::thread::spawn(move || count_signatures(log, &counter));
        let token = fs::read_to_string(data.join("admin-token")).context("the server left no admin token")?;
        let admin_token = token.trim().to_owned();
        Ok(Self { url, server, database, admin_token, counts_statements, signatures, cluster, folder })
    }

    /// The folder of the blob store.
    pub(crate) fn blobs(&self) -> std::path::PathBuf {
        self.folder.path().join("server/blobs")
    }

    /// The address without the scheme.
    pub(crate) fn authority(&self) -> &str {
        self.url.strip_prefix("http://").unwrap_or(&self.url)
    }

    /// The first admin.
    pub(crate) fn operator(&self) -> Operator {
        Operator::new(&self.url, &self.admin_token)
    }

    /// A connection of its own.
    pub(crate) async fn channel(&self) -> anyhow::Result<Channel> {
        connect(&self.url).await
    }

    /// Processor time of Postgres.
    pub(crate) fn database_cpu_seconds(&self) -> anyhow::Result<f64> {
        let file = self.folder.path().join("postgres/data/postmaster.pid");
        let pid = fs::read_to_string(&file)?.lines().next().and_then(|line| line.trim().parse().ok());
        child::tree_cpu_seconds(pid.context("Postgres left no process id")?)
    }

    /// Signatures over metadata that the server has made since it started. It made some with its first start: a count of
    /// none would mean that the log tells nothing.
    pub(crate) fn signatures(&self) -> anyhow::Result<u64> {
        let count = self.signatures.load(Ordering::Relaxed);
        ensure!(count > 0, "the server's log tells nothing of signatures");
        Ok(count)
    }

    /// Another, empty database in the same Postgres, with the schema.
    pub(crate) async fn another_database(&self, name: &str) -> anyhow::Result<(PgPool, String)> {
        sqlx::query(AssertSqlSafe(format!("CREATE DATABASE {name}"))).execute(&self.database).await?;
        let pool = PgPool::connect_with(self.cluster.connect_options().database(name)).await?;
        MIGRATOR.run(&pool).await?;
        let url = self.cluster.url();
        let (server, query) = url.split_once('?').context("the URL of the cluster names its socket")?;
        let (server, _) = server.rsplit_once('/').context("the URL of the cluster names its database")?;
        Ok((pool, format!("{server}/{name}?{query}")))
    }

    /// A folder that goes with the product.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Statements that Postgres has executed in the server's database, those of this function left out.
    pub(crate) async fn statements(&self) -> anyhow::Result<i64> {
        let query = if self.counts_statements {
            "SELECT coalesce(sum(calls), 0)::bigint
             FROM pg_stat_statements
             JOIN pg_database ON pg_database.oid = dbid
             WHERE datname = current_database() AND query NOT LIKE '%pg_stat_%'"
        } else {
            "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()"
        };
        Ok(sqlx::query_scalar(query).fetch_one(&self.database).await?)
    }

    /// What [`Product::statements`] counts.
    pub(crate) fn statements_source(&self) -> &'static str {
        if self.counts_statements { "pg_stat_statements" } else { "pg_stat_database" }
    }

    /// Stops the server, then its database.
    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        self.server.stop()?;
        self.database.close().await;
        self.cluster.stop().await?;
        Ok(())
    }
}

/// Counts what the log tells of signatures, and hands on what else it tells.
fn count_signatures(log: impl Read, count: &AtomicU64) {
    for line in BufReader::new(log).lines().map_while(Result::ok) {
        if line.contains(SIGNATURE) {
            count.fetch_add(1, Ordering::Relaxed);
        } else {
            eprintln!("{line}");
        }
    }
}

/// A connection to a server, as a device makes it.
pub(crate) async fn connect(url: &str) -> anyhow::Result<Channel> {
    connect_as(url, None).await
}

/// A connection over TLS that shows a certificate, when there is one to show.
pub(crate) async fn connect_as(url: &str, identity: Option<Identity>) -> anyhow::Result<Channel> {
    let (server, slot) = (url.parse()?, IdentitySlot::default());
    if let Some(identity) = identity {
        slot.set(identity);
    }
    let connector = if url.starts_with("https:") {
        let any = ServerTrust::Pinning(SeenCertificates::default());
        Connector::tls(&server, any, slot, Arc::new(DefaultTimeProvider))?
    } else {
        Connector::plain(&server)?
    };
    connector.connect(&connector.endpoint()).await.with_context(|| format!("cannot connect to {url}"))
}

/// One of the project's programs, as built beside this one.
pub(crate) fn program(name: &str) -> anyhow::Result<std::path::PathBuf> {
    let program = std::env::current_exe()?.with_file_name(name);
    ensure!(program.exists(), "{} is not there: scripts/bench.sh builds it", program.display());
    Ok(program)
}
