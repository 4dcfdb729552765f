//! A connection without TLS, opened so that a server which speaks only TLS is told from one that is not there.
//!
//! Such a server takes the client's preface for a broken handshake, sends an alert and hangs up; the alert is often lost
//! with the connection. What `tonic` makes of that says nothing to anybody. So the preface is sent before `tonic` gets the
//! connection, which must be answered with a frame (RFC 9113, section 3.4); who hangs up instead is asked in TLS.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tower::BoxError;

use crate::error::ConnectError;

/// What every HTTP/2 client sends first.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The first byte of a TLS alert. The first frame of an HTTP/2 server begins with its length, which would have to be more
/// than a megabyte.
const ALERT: u8 = 0x15;

/// How long a server's first frame is waited for. One that wants to hear more first is left to `tonic`.
const FIRST_FRAME: Duration = Duration::from_secs(2);

/// A connection on which the preface has been sent.
#[derive(Debug)]
pub(crate) struct Plain<T> {
    inner: T,
    /// How much of the preface the user of the connection has still to send, which is then dropped.
    preface: usize,
}

/// Sends the preface and waits until the server has said something.
///
/// # Errors
/// [`ConnectError::OnlyTls`] when the server hung up and `speaks_tls`; else the system's, which is `ConnectionAborted` for a
/// server that hung up without a word.
pub(crate) async fn open(
    mut stream: TcpStream,
    speaks_tls: impl Future<Output = bool>,
) -> Result<Plain<TcpStream>, BoxError> {
    let mut first = [0];
    let talk = async {
        stream.write_all(PREFACE).await?;
        stream.peek(&mut first).await
    };
    let hung_up = match timeout(FIRST_FRAME, talk).await {
        Ok(Ok(1..)) if first[0] == ALERT => return Err(ConnectError::OnlyTls.into()),
        Ok(Ok(1..)) | Err(_) => return Ok(Plain { inner: stream, preface: PREFACE.len() }),
        Ok(Ok(0)) => io::ErrorKind::ConnectionAborted.into(),
        Ok(Err(error)) => error,
    };
    Err(if speaks_tls.await { ConnectError::OnlyTls.into() } else { hung_up.into() })
}

impl<T: AsyncRead + Unpin> AsyncRead for Plain<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buffer)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Plain<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.preface > 0 && !bytes.is_empty() {
            let dropped = bytes.len().min(self.preface);
            self.preface -= dropped;
            return Poll::Ready(Ok(dropped));
        }
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.preface > 0 {
            let first = slices.iter().find(|slice| !slice.is_empty()).map_or(&[][..], |slice| slice);
            return self.poll_write(cx, first);
        }
        Pin::new(&mut self.inner).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::ready;

    use tokio::io::AsyncReadExt as _;
    use tokio::net::TcpListener;

    use super::*;

    /// Returns both ends of a connection.
    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (listener.accept().await.unwrap().0, client)
    }

    fn is_only_tls(error: &BoxError) -> bool {
        ConnectError::find(error.as_ref()) == Some(ConnectError::OnlyTls)
    }

    #[tokio::test]
    async fn the_preface_arrives_once_however_it_is_sent() {
        for pieces in [&[PREFACE, b"rest"][..], &[b"PRI * ", &PREFACE[6..], b"rest"], &[&[PREFACE, b"rest"].concat()]] {
            let (mut server, client) = pair().await;
            server.write_all(&[0, 0, ALERT]).await.unwrap();
            let mut client = open(client, ready(true)).await.unwrap();
            for piece in pieces {
                client.write_all(piece).await.unwrap();
            }
            let mut frame = [1; 3];
            client.read_exact(&mut frame).await.unwrap();
            assert_eq!(frame, [0, 0, ALERT], "what was looked at is still there");
            drop(client);
            let mut arrived = Vec::new();
            server.read_to_end(&mut arrived).await.unwrap();
            assert_eq!(arrived, [PREFACE, b"rest"].concat());
        }
    }

    #[tokio::test]
    async fn an_alert_says_that_the_server_speaks_tls() {
        let (mut server, client) = pair().await;
        server.write_all(&[ALERT, 3, 3, 0, 2, 2, 10]).await.unwrap();
        assert!(is_only_tls(&open(client, ready(false)).await.unwrap_err()));
    }

    #[tokio::test]
    async fn who_hangs_up_without_a_word_is_asked() {
        for speaks_tls in [true, false] {
            let (server, client) = pair().await;
            drop(server);
            assert_eq!(is_only_tls(&open(client, ready(speaks_tls)).await.unwrap_err()), speaks_tls);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_waits_for_more_gets_it() {
        let (_server, client) = pair().await;
        assert!(open(client, ready(true)).await.is_ok());
    }
}
