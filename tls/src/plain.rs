//! A connection without TLS that notices when the other side speaks it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::error::ConnectError;

/// First byte of an alert, which is what a TLS server answers to plain text with. HTTP/2 never starts with it: it would
/// announce a first frame of more than a megabyte.
const ALERT: u8 = 0x15;

/// Looks at the first byte that arrives.
#[derive(Debug)]
pub(crate) struct Plain<T> {
    inner: T,
    is_checked: bool,
}

impl<T> Plain<T> {
    pub(crate) fn new(inner: T) -> Self {
        Self { inner, is_checked: false }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Plain<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(cx, buffer))?;
        if !self.is_checked
            && let Some(&first) = buffer.filled().get(before)
        {
            self.is_checked = true;
            if first == ALERT {
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, ConnectError::OnlyTls)));
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Plain<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
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
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test]
    async fn an_alert_is_told_from_what_plain_servers_say() {
        let (mut server, client) = duplex(64);
        server.write_all(&[ALERT, 3, 3, 0, 2, 2, 10]).await.unwrap();
        let error = Plain::new(client).read_u8().await.unwrap_err();
        assert_eq!(ConnectError::find(&error), Some(ConnectError::OnlyTls));

        let (mut server, client) = duplex(64);
        let mut client = Plain::new(client);
        server.write_all(&[0, 0, ALERT]).await.unwrap();
        let mut read = [0; 3];
        client.read_exact(&mut read).await.unwrap();
        server.write_all(&[ALERT]).await.unwrap();
        assert_eq!((read, client.read_u8().await.unwrap()), ([0, 0, ALERT], ALERT));
    }
}
