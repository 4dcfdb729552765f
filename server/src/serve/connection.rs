//! One connection, from its first byte to its last.

use std::{
    convert::Infallible,
    io,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::body::Body;
use http::{Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::OwnedSemaphorePermit,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tower::{ServiceExt as _, service_fn};

use super::{Services, Settings, batched::Batched, delivered::Delivered, lingering::Lingering, paced::Paced};
use crate::{
    auth::{Connection, PeerAddress},
    ca::PeerIdentity,
    tls::Tls,
};

/// HTTP/2 flow control, in bytes. A stream window of one reading keeps a download busy; the connection's holds several.
const STREAM_WINDOW: u32 = 1024 * 1024;
const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;
/// What waits to be sent in a stream before its source is asked for more; bounds the memory of a slow download.
const SEND_BUFFER: usize = 512 * 1024;
/// Calls in progress on one connection. Each may hold a send buffer.
const MAX_STREAMS: u32 = 256;
/// Bytes of all headers of a request. A bearer token of an identity provider has a few thousand.
const MAX_HEADER_BYTES: u32 = 32 * 1024;
/// A client that answers no ping within this time is gone, whatever TCP believes.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a client may take to read what was sent before its connection closed.
const LINGER: Duration = Duration::from_secs(60);
/// How long a handshake may take, and then how long the first request may let wait for itself.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
const FIRST_REQUEST_LIMIT: Duration = Duration::from_secs(30);
/// What every TLS connection begins with: a handshake record (RFC 8446 §5.1).
const TLS_HANDSHAKE: u8 = 22;

/// Serves a connection that was just accepted, until it ends. `handshaking` is given back when its handshake is over.
pub(super) async fn run<S>(
    stream: TcpStream,
    peer: PeerAddress,
    settings: Arc<Settings<S>>,
    stopping: CancellationToken,
    handshaking: OwnedSemaphorePermit,
) where
    S: Services,
{
    let Some(tls) = settings.tls.clone() else {
        drop(handshaking);
        return serve(stream, peer, PeerIdentity::None, &settings, &stopping).await;
    };
    let begun = stopping.run_until_cancelled(timeout(HANDSHAKE_LIMIT, begin(stream, &tls))).await;
    drop(handshaking);
    match begun {
        None => {}
        Some(Ok(Ok(Begun::Tls(stream, identity)))) => serve(*stream, peer, identity, &settings, &stopping).await,
        Some(Ok(Ok(Begun::Plain(stream)))) => {
            timeout(HANDSHAKE_LIMIT, refuse_plain(stream)).await.ok();
        }
        Some(Ok(Err(error))) => tracing::debug!(%error, ?peer, "a handshake failed"),
        Some(Err(_)) => tracing::debug!(?peer, "a handshake took too long"),
    }
}

enum Begun {
    Tls(Box<tokio_rustls::server::TlsStream<TcpStream>>, PeerIdentity),
    Plain(TcpStream),
}

async fn begin(stream: TcpStream, tls: &Tls) -> io::Result<Begun> {
    let mut first = [0];
    if stream.peek(&mut first).await? == 1 && first != [TLS_HANDSHAKE] {
        return Ok(Begun::Plain(stream));
    }
    let (stream, identity) = tls.accept(stream).await?;
    Ok(Begun::Tls(Box::new(stream), identity))
}

/// Tells somebody who does not speak TLS that they should, in their own language.
async fn refuse_plain(stream: TcpStream) {
    const TEXT: &str = "This address speaks TLS: write https:// instead of http://.";
    let refuse = service_fn(async |request: Request<Incoming>| {
        let is_grpc = request
            .headers()
            .get(header::CONTENT_TYPE)
            .is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
        let mut response = if is_grpc {
            Status::failed_precondition(TEXT).into_http()
        } else {
            let mut response = Response::new(Body::from(format!("{TEXT}\n")));
            *response.status_mut() = StatusCode::BAD_REQUEST;
            response
        };
        if request.version() < http::Version::HTTP_2 {
            response.headers_mut().insert(header::CONNECTION, http::HeaderValue::from_static("close"));
        }
        Ok::<_, Infallible>(response)
    });
    let builder = auto::Builder::new(TokioExecutor::new());
    let stream = TokioIo::new(Lingering::new(stream, HANDSHAKE_LIMIT));
    if let Err(error) = builder.serve_connection(stream, TowerToHyperService::new(refuse)).await {
        tracing::debug!(error, "a connection without TLS broke");
    }
}

/// Speaks HTTP until the connection ends.
async fn serve<S>(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    peer: PeerAddress,
    identity: PeerIdentity,
    settings: &Settings<S>,
    stopping: &CancellationToken,
) where
    S: Services,
{
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(FIRST_REQUEST_LIMIT)
        .max_buf_size(MAX_HEADER_BYTES as usize);
    builder
        .http2()
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEADER_BYTES)
        .keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT);
    let (identity, ends, used) = (Arc::new(identity), Connection::new(stopping), Arc::new(AtomicBool::new(false)));
    // Fired by whatever is answered and not taken. It ends everything that is in progress.
    let cut = CancellationToken::new();
    let service = {
        let (ends, used, pace) = (ends.clone(), Arc::clone(&used), settings.pace);
        let cut = cut.clone();
        let gate = settings.service.clone().map_request(move |mut request: Request<Incoming>| {
            used.store(true, Ordering::Relaxed);
            let extensions = request.extensions_mut();
            extensions.insert(peer);
            extensions.insert(Arc::clone(&identity));
            extensions.insert(ends.clone());
            request.map(|body| Body::new(Paced::new(body, pace)))
        });
        gate.map_response(move |response| response.map(|body| Body::new(Delivered::new(body, pace, cut.clone()))))
    };
    let stream = TokioIo::new(Batched::new(Lingering::new(stream, LINGER)));
    let mut connection = pin!(builder.serve_connection(stream, TowerToHyperService::new(service)));
    let mut old = pin!(sleep(age(settings.max_connection_age, rand::random())));
    let mut first_request = pin!(sleep(FIRST_REQUEST_LIMIT));
    let (mut waiting, mut told) = (true, false);
    loop {
        tokio::select! {
            ended = &mut connection => {
                if let Err(error) = ended {
                    tracing::debug!(error, "a connection broke");
                }
                return;
            }
            () = &mut first_request, if waiting => {
                waiting = false;
                if !used.load(Ordering::Relaxed) {
                    return;
                }
            }
            () = cut.cancelled() => {
                tracing::info!(?peer, "a connection that takes too little is cut");
                return;
            }
            () = ends.retiring.cancelled(), if !told => {
                told = true;
                connection.as_mut().graceful_shutdown();
            }
            // The first time it is told to end. What is still in progress as long again after that ends with it.
            () = &mut old => {
                if ends.retiring.is_cancelled() {
                    return;
                }
                ends.retiring.cancel();
                old.set(sleep(settings.max_connection_age));
            }
        }
    }
}

/// A tenth more or less, so that connections that began together do not end together. `chance` is uniform in 0 to 1.
fn age(max: Duration, chance: f64) -> Duration {
    max.mul_f64(0.9 + chance.clamp(0.0, 1.0) * 0.2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_differ_by_a_tenth() {
        let hour = Duration::from_secs(3600);
        assert_eq!([0.0, 0.5, 1.0].map(|chance| age(hour, chance).as_secs()), [3240, 3600, 3960]);
    }
}
