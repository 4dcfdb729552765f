//! Makes connections to one server, with TLS or without, for the channels of `tonic`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use rustls::time_provider::DefaultTimeProvider;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint, Uri};
use tower::{BoxError, Service, service_fn};

use crate::error::{ConnectError, Error};
use crate::identity::IdentitySlot;
use crate::trust::{SeenCertificates, ServerTrust};
use crate::{H2, TimeProvider, client_config, plain};

/// How long a server that hung up without a word may take to say whether it speaks TLS.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(5);

/// The way to one server.
#[derive(Debug, Clone)]
pub struct Connector {
    /// The address as callers know it.
    origin: Uri,
    /// Where to connect to. Always `http:`, because `tonic` must not look for a TLS of its own.
    target: Uri,
    tls: Option<(TlsSettings, ServerName<'static>)>,
}

#[derive(Clone)]
struct TlsSettings(Arc<ClientConfig>);

impl std::fmt::Debug for TlsSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TlsSettings(..)")
    }
}

/// What a connection carries bytes over.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl Connector {
    /// Makes the way to a server at `http://host[:port]`, in plain text.
    ///
    /// # Errors
    /// When the address names no host.
    pub fn plain(server: &Uri) -> Result<Self, Error> {
        Ok(Self { origin: server.clone(), target: target(server, 80)?, tls: None })
    }

    /// Makes the way to a server at `https://host[:port]`. Each connection shows the identity that is in the slot then.
    ///
    /// # Errors
    /// When the address names no host, or the trust no usable certificate.
    pub fn tls(
        server: &Uri,
        trust: ServerTrust,
        identity: IdentitySlot,
        clock: Arc<dyn TimeProvider>,
    ) -> Result<Self, Error> {
        let config = client_config(trust, identity, clock)?;
        let host = server.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = ServerName::try_from(host).map_err(|_| Error::Address { address: server.to_string() })?;
        let tls = Some((TlsSettings(Arc::new(config)), name));
        Ok(Self { origin: server.clone(), target: target(server, 443)?, tls })
    }

    /// Returns an endpoint to put settings on, for [`channel`](Self::channel) and [`connect`](Self::connect). What it
    /// says of TCP is not looked at: there is no delay in sending, always.
    #[must_use]
    pub fn endpoint(&self) -> Endpoint {
        Endpoint::from(self.target.clone()).origin(self.origin.clone())
    }

    /// Returns a channel that connects with the first call, and again whenever it has to.
    #[must_use]
    pub fn channel(&self, endpoint: &Endpoint) -> Channel {
        endpoint.connect_with_connector_lazy(self.service())
    }

    /// Returns a channel that is connected.
    ///
    /// # Errors
    /// When there is no connection; [`ConnectError::find`] finds what TLS has to say.
    pub async fn connect(&self, endpoint: &Endpoint) -> Result<Channel, tonic::transport::Error> {
        endpoint.connect_with_connector(self.service()).await
    }

    fn service(
        &self,
    ) -> impl Service<Uri, Response = TokioIo<Box<dyn Stream>>, Error = BoxError, Future: Send> + Send + use<> {
        let mut tcp = HttpConnector::new();
        tcp.set_nodelay(true);
        let tls = self.tls.clone();
        service_fn(move |uri: Uri| {
            let (mut tcp, tls) = (tcp.clone(), tls.clone());
            async move {
                let stream = tcp.call(uri).await?.into_inner();
                let stream: Box<dyn Stream> = match tls {
                    Some((TlsSettings(config), name)) => Box::new(handshake(stream, config, name).await?),
                    None => {
                        let address = stream.peer_addr()?;
                        Box::new(plain::open(stream, speaks_tls(address)).await?)
                    }
                };
                Ok(TokioIo::new(stream))
            }
        })
    }
}

async fn handshake(
    stream: TcpStream,
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
) -> Result<impl Stream, ConnectError> {
    let stream = TlsConnector::from(config).connect(name, stream).await;
    let stream = stream.map_err(|error| ConnectError::of_handshake(&error))?;
    match stream.get_ref().1.alpn_protocol() {
        Some(H2) => Ok(stream),
        Some(_) | None => Err(ConnectError::NotHttp2),
    }
}

/// Tells whether something at this address answers in TLS, whoever it is. Says nothing to it.
async fn speaks_tls(address: SocketAddr) -> bool {
    let trust = ServerTrust::Pinning(SeenCertificates::default());
    let Ok(config) = client_config(trust, IdentitySlot::default(), Arc::new(DefaultTimeProvider)) else { return false };
    let ask = async {
        let stream = TcpStream::connect(address).await.ok()?;
        Some(handshake(stream, Arc::new(config), address.ip().into()).await)
    };
    match tokio::time::timeout(QUESTION_TIMEOUT, ask).await {
        Ok(Some(Ok(_) | Err(ConnectError::Refused { .. } | ConnectError::NotHttp2))) => true,
        Ok(Some(Err(_)) | None) | Err(_) => false,
    }
}

fn target(server: &Uri, default_port: u16) -> Result<Uri, Error> {
    let bad = || Error::Address { address: server.to_string() };
    let host = server.host().filter(|host| !host.is_empty()).ok_or_else(bad)?;
    let port = server.port_u16().unwrap_or(default_port);
    Uri::builder().scheme("http").authority(format!("{host}:{port}")).path_and_query("/").build().map_err(|_| bad())
}
