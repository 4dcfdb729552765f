//! TLS on the port: what the server shows, and who the other end is.
//!
//! A client may show a certificate, and any is let through whose key it holds: callers who are refused shall hear why, and
//! a failed handshake says nothing. Who it is is decided once for each connection ([`PeerIdentity`]), whether they are
//! welcome call by call.

mod certificate;
mod options;
mod verifier;

use std::{
    io,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use chrono::{DateTime, Utc};
use rustls::{
    ServerConfig,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, pem},
    server::NoServerSessionStorage,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::sync::CancellationToken;

use crate::{
    ca::{CaError, PeerIdentity, PeerJudge, ProxyJudge, ProxyJudgeError},
    keys::Keyring,
};

pub use options::Options;

use certificate::{Shown, Source};
use verifier::AnyClient;

/// How often files are looked at and the server's own certificate's age is.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// Why TLS is not to be had.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{} cannot be read", .0.display())]
    Read(PathBuf, #[source] io::Error),
    /// A file holds no PEM of the kind it should.
    #[error("{} holds no {what} in PEM", .path.display())]
    Pem {
        /// Which file.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
        /// What was found.
        source: pem::Error,
    },
    /// The certificate and the key do not belong together, or are of a kind that TLS does not know.
    #[error("the certificate and the key cannot be used together")]
    Pair(#[source] rustls::Error),
    /// The server's own certificate cannot be made.
    #[error("the server's own certificate cannot be made")]
    Own(#[from] CaError),
    /// The authorities of the trusted proxies cannot be read.
    #[error("the authorities of the trusted proxies cannot be read")]
    ProxyAuthorityFile(#[source] ota_tls::Error),
    /// The authorities of the trusted proxies cannot be used.
    #[error("no proxy can be trusted for what {} holds", .0.display())]
    ProxyAuthority(PathBuf, #[source] ProxyJudgeError),
    /// The settings are refused.
    #[error("TLS cannot be set up")]
    Setup(#[source] rustls::Error),
}

impl TlsError {
    /// What the operator can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Read(..) | Self::Pem { .. } => Some(
                "--tls-cert takes the certificate with its intermediates, --tls-key its unencrypted key, both in PEM",
            ),
            Self::Pair(_) => Some("give the key that the certificate is for, ECDSA, Ed25519 or RSA"),
            Self::Own(_) => Some("--tls-name takes host names and addresses"),
            Self::ProxyAuthorityFile(_) | Self::ProxyAuthority(..) => {
                Some("--trusted-proxy-ca takes the certificates of the authorities that sign proxies and nothing else")
            }
            Self::Setup(_) => None,
        }
    }
}

/// TLS as this server speaks it.
pub struct Tls {
    acceptor: TlsAcceptor,
    judge: PeerJudge,
    proxies: Option<ProxyJudge>,
    shown: Arc<Shown>,
    source: Mutex<Source>,
    keys: Arc<Keyring>,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").field("shown", &self.shown).finish_non_exhaustive()
    }
}

impl Tls {
    /// Reads the certificate or makes one.
    ///
    /// # Errors
    /// When the files are no good.
    pub fn start(options: &Options, keys: Arc<Keyring>, now: DateTime<Utc>) -> Result<Self, TlsError> {
        let provider = provider();
        let mut source = Source::of(options);
        let first = source.load(keys.authority(), now)?;
        let shown = Arc::new(Shown::new(first));
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Setup)?
            .with_client_cert_verifier(Arc::new(AnyClient::new(&provider)))
            .with_cert_resolver(Arc::clone(&shown) as _);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        // A resumed connection would go on with what was shown on an earlier one.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        let judge = PeerJudge::new(keys.authority().certificate())?;
        let proxies = options.proxies(keys.authority())?;
        let acceptor = TlsAcceptor::from(Arc::new(config));
        Ok(Self { acceptor, judge, proxies, shown, source: Mutex::new(source), keys })
    }

    /// When the certificate runs out that connections are shown.
    #[must_use]
    pub fn expires_at(&self) -> Option<DateTime<Utc>> {
        self.shown.expires_at()
    }

    /// Does the handshake, and says who is at the other end.
    ///
    /// # Errors
    /// When the other end does not speak TLS as it should, or breaks off.
    pub async fn accept<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
    ) -> io::Result<(TlsStream<S>, PeerIdentity)> {
        let stream = self.acceptor.accept(stream).await?;
        let (_, connection) = stream.get_ref();
        let peer = self.peer(connection.peer_certificates().unwrap_or_default(), Utc::now());
        Ok((stream, peer))
    }

    /// Says who shows these certificates, leaf first. A device is a device, whatever the proxies' authorities sign.
    fn peer(&self, chain: &[CertificateDer<'_>], now: DateTime<Utc>) -> PeerIdentity {
        match (self.judge.judge(chain), &self.proxies) {
            (PeerIdentity::Foreign(reason), Some(proxies)) => match proxies.judge(chain, now) {
                Ok(()) => PeerIdentity::Proxy,
                Err(why) => PeerIdentity::Foreign(format!("{reason}; nor is it a trusted proxy's: {why}")),
            },
            (peer, _) => peer,
        }
    }

    /// Looks for changed files, and makes the server's own certificate anew before it grows old. What cannot be used changes
    /// nothing.
    pub async fn keep_fresh(self: Arc<Self>, stopping: CancellationToken) {
        let mut ticks = tokio::time::interval(LOOK_INTERVAL);
        loop {
            tokio::select! {
                () = stopping.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let tls = Arc::clone(&self);
            // Files may lie on a slow disk.
            if tokio::task::spawn_blocking(move || tls.refresh(Utc::now())).await.is_err() {
                tracing::error!("looking for another certificate failed");
            }
        }
    }

    fn refresh(&self, now: DateTime<Utc>) {
        let mut source = self.source.lock().unwrap_or_else(PoisonError::into_inner);
        match source.reload(self.keys.authority(), now) {
            Ok(None) => {}
            Ok(Some(key)) => {
                self.shown.show(key);
                tracing::info!("connections are shown another certificate from now on");
            }
            Err(error) => {
                let source = std::error::Error::source(&error).map(ToString::to_string);
                tracing::error!(%error, source, "the certificate stays as it is");
            }
        }
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

#[cfg(test)]
mod tests;
