//! Reads a response body as HTTP/2 brings it, and counts. The same code, windows and frame size for every server, so that
//! what differs is the server.

use std::future::poll_fn;

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use h2::client;
use http::{HeaderMap, Request, StatusCode};
use tokio::{net::TcpStream, task::AbortHandle};

/// How the client lets the server send.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Flow {
    /// Bytes on their way in one stream.
    pub(crate) stream_window: u32,
    /// Bytes on their way in one connection.
    pub(crate) connection_window: u32,
    /// Largest frame.
    pub(crate) frame: u32,
}

/// An open connection.
pub(crate) struct Connection {
    sender: client::SendRequest<Bytes>,
    driver: AbortHandle,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Connection {
    /// Connects without encryption and with prior knowledge.
    pub(crate) async fn open(authority: &str, flow: Flow) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(authority).await.with_context(|| format!("cannot connect to {authority}"))?;
        stream.set_nodelay(true)?;
        let (sender, connection) = client::Builder::new()
            .initial_window_size(flow.stream_window)
            .initial_connection_window_size(flow.connection_window)
            .max_frame_size(flow.frame)
            .handshake(stream)
            .await?;
        // Its error shows in the stream that it carries.
        let driver = tokio::spawn(async move { connection.await.unwrap_or_default() }).abort_handle();
        Ok(Self { sender, driver })
    }

    /// Sends a request and reads the whole response. Returns the number of bytes in the body, and the trailers.
    pub(crate) async fn read(&mut self, request: Request<()>, body: Bytes) -> anyhow::Result<(u64, Option<HeaderMap>)> {
        poll_fn(|context| self.sender.poll_ready(context)).await?;
        let is_empty = body.is_empty();
        let (response, mut stream) = self.sender.send_request(request, is_empty)?;
        if !is_empty {
            stream.send_data(body, true)?;
        }
        let response = response.await?;
        ensure!(response.status() == StatusCode::OK, "the server answered {}", response.status());
        if let Some(status) = response.headers().get("grpc-status") {
            bail!("the server refused: {status:?} {:?}", response.headers().get("grpc-message"));
        }
        let mut body = response.into_body();
        let mut bytes = 0;
        while let Some(data) = body.data().await {
            let length = data?.len();
            bytes += length as u64;
            body.flow_control().release_capacity(length)?;
        }
        Ok((bytes, body.trailers().await?))
    }
}
