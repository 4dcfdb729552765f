//! Fetches a repository's files over plain HTTP. Nothing that comes from here is believed before it is verified, so that
//! neither the transport nor the host needs to be trusted.

use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http::{StatusCode, Uri};
use http_body_util::{BodyExt as _, Empty};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

use super::escape;

/// How long nothing may come before the mirror counts as gone.
const SILENCE: Duration = Duration::from_secs(30);
/// How long one file may take, whatever comes.
const PATIENCE: Duration = Duration::from_secs(60);
/// The slowest that a mirror may be over a long file: it may not take longer than [`PATIENCE`] and this allow.
const BYTES_PER_SECOND: u64 = 1024;

/// The two places where a repository's files are.
pub(super) struct Mirror {
    metadata: String,
    targets: Option<String>,
    client: Client<HttpConnector, Empty<Bytes>>,
}

impl Mirror {
    /// Fetches from these URLs.
    pub(super) fn new(metadata: &str, targets: Option<&str>) -> anyhow::Result<Self> {
        for url in [Some(metadata), targets].into_iter().flatten() {
            let parsed: Uri = url.parse().with_context(|| format!("{url} is no URL"))?;
            anyhow::ensure!(parsed.scheme_str() == Some("http"), "{url} does not begin with http://");
        }
        let base = |url: &str| url.trim_end_matches('/').to_owned();
        Ok(Self {
            metadata: base(metadata),
            targets: targets.map(base),
            client: Client::builder(TokioExecutor::new()).build_http(),
        })
    }

    /// Fetches a file of metadata, of no more than `limit` bytes. None when there is none.
    pub(super) async fn metadata(&self, name: &str, limit: usize) -> anyhow::Result<Option<Vec<u8>>> {
        let mut bytes = Vec::new();
        let is_there = self
            .get(&format!("{}/{name}", self.metadata), PATIENCE, |piece| {
                anyhow::ensure!(bytes.len() + piece.len() <= limit, "{name} has more than {limit} bytes");
                bytes.extend_from_slice(piece);
                Ok(())
            })
            .await?;
        Ok(is_there.then_some(bytes))
    }

    /// Fetches an artifact of `length` bytes, piece by piece. `take` says when there are more.
    pub(super) async fn target(
        &self,
        path: &str,
        length: u64,
        take: impl FnMut(&[u8]) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let targets = self.targets.as_deref().context("no place of artifacts is known")?;
        let path = path.split('/').map(escape).collect::<Vec<_>>().join("/");
        let patience = PATIENCE + Duration::from_secs(length / BYTES_PER_SECOND);
        let is_there = self.get(&format!("{targets}/{path}"), patience, take).await?;
        anyhow::ensure!(is_there, "the mirror does not have {path}");
        Ok(())
    }

    /// Fetches a file and says whether it is there. Stores of objects say 403 of what they do not have.
    async fn get(
        &self,
        url: &str,
        patience: Duration,
        mut take: impl FnMut(&[u8]) -> anyhow::Result<()>,
    ) -> anyhow::Result<bool> {
        let fetched = async {
            let uri: Uri = url.parse()?;
            let mut response = tokio::time::timeout(SILENCE, self.client.get(uri)).await??;
            match response.status() {
                StatusCode::OK => {}
                StatusCode::NOT_FOUND | StatusCode::FORBIDDEN => return Ok(false),
                other => anyhow::bail!("the mirror answered {other}"),
            }
            while let Some(frame) = tokio::time::timeout(SILENCE, response.frame()).await? {
                if let Some(piece) = frame?.data_ref() {
                    take(piece)?;
                }
            }
            Ok(true)
        };
        let fetched = tokio::time::timeout(patience, fetched).await.map_err(anyhow::Error::from).flatten();
        fetched.with_context(|| format!("cannot fetch {url}"))
    }
}
