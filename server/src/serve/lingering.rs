//! Closes a connection without taking back what was sent on it.
//!
//! A socket that is closed while something from the other side lies unread in it is reset, and with that the system
//! throws away what it had still to deliver: the end of a download, as the other side keeps sending window updates
//! and pings (RFC 9112 §9.6 tells the same of HTTP/1.1). So the writing half is closed first, and the rest of what
//! comes is read and dropped until the other side has closed too.

use std::{
    io,
    mem::MaybeUninit,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};

/// A connection that is closed in this way.
#[derive(Debug)]
pub(super) struct Lingering<S> {
    stream: S,
    /// How long the other side may take to read what the system holds for it, and to close.
    patience: Duration,
    /// Set as soon as the writing half is closed.
    end: Option<Pin<Box<Sleep>>>,
}

impl<S> Lingering<S> {
    pub(super) const fn new(stream: S, patience: Duration) -> Self {
        Self { stream, patience, end: None }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Lingering<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.end.is_none() {
            ready!(Pin::new(&mut this.stream).poll_shutdown(context))?;
        }
        let end = this.end.get_or_insert_with(|| Box::pin(sleep(this.patience)));
        let mut bytes = [MaybeUninit::uninit(); 4096];
        loop {
            if end.as_mut().poll(context).is_ready() {
                return Poll::Ready(Ok(()));
            }
            let mut unread = ReadBuf::uninit(&mut bytes);
            // An error is an end too: everything that could be done for the other side is done.
            if ready!(Pin::new(&mut this.stream).poll_read(context, &mut unread)).is_err() || unread.filled().is_empty()
            {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Lingering<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(context, buffer)
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::{TcpListener, TcpStream},
    };

    use super::*;

    async fn connection() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let far = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (listener.accept().await.unwrap().0, far)
    }

    /// Writes until the system takes no more, and returns how many bytes it took.
    async fn fill(near: &TcpStream) -> usize {
        near.writable().await.unwrap();
        let mut sent = 0;
        loop {
            match near.try_write(&[7; 64 * 1024]) {
                Ok(written) => sent += written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return sent,
                Err(error) => panic!("{error}"),
            }
        }
    }

    #[tokio::test]
    async fn closing_takes_nothing_back_although_something_is_unread() {
        let (near, mut far) = connection().await;
        far.write_all(b"a window update that nobody reads").await.unwrap();
        near.readable().await.unwrap();
        let sent = fill(&near).await;
        let closed = tokio::spawn(async move { Lingering::new(near, Duration::from_secs(30)).shutdown().await });
        let mut received = vec![0; sent];
        far.read_exact(&mut received).await.unwrap();
        assert_eq!(far.read(&mut [0]).await.unwrap(), 0);
        drop(far);
        closed.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn who_never_closes_is_not_waited_for_forever() {
        let (near, _far) = tokio::io::duplex(16);
        Lingering::new(near, Duration::from_millis(1)).shutdown().await.unwrap();
    }
}
