//! Writes several HTTP/2 frames with one call to the system.
//!
//! The HTTP/2 library writes and flushes every large frame by itself, and a frame has 16 KiB unless the client takes
//! larger ones: sixty-four calls and as many packets for a mebibyte. Here frames of that kind are put together first. A
//! flush waits for one more turn of the connection, which either brings further frames or writes what there is; so
//! nothing waits for the network, and small answers and large frames do not wait at all.

use std::{
    io::{self, IoSlice},
    mem,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What is smaller is written as it comes: answers to calls, which somebody waits for.
const SMALLEST: usize = 4 * 1024;
/// What is larger is written as it comes: to copy it would cost more than the call.
const LARGEST: usize = 64 * 1024;
/// Most bytes put together. Memory of this size is held only while something waits to be written.
const BATCH: usize = 256 * 1024;

/// A connection whose writes are put together.
#[derive(Debug)]
pub(super) struct Batched<S> {
    stream: S,
    batch: Vec<u8>,
    /// How much of the batch is written.
    written: usize,
    /// Whether the batch grew since the last flush.
    grew: bool,
}

impl<S> Batched<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, batch: Vec::new(), written: 0, grew: false }
    }
}

impl<S: AsyncWrite + Unpin> Batched<S> {
    fn poll_batch(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.batch.len() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(context, &self.batch[self.written..]))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += written;
        }
        self.batch.clear();
        self.written = 0;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Batched<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let length = slices.iter().map(|slice| slice.len()).sum::<usize>();
        if length > LARGEST || this.batch.len() + length > BATCH {
            ready!(this.poll_batch(context))?;
        }
        if this.batch.is_empty() && !(SMALLEST..=LARGEST).contains(&length) {
            return Pin::new(&mut this.stream).poll_write_vectored(context, slices);
        }
        if this.batch.capacity() == 0 {
            this.batch.reserve_exact(BATCH);
        }
        for slice in slices {
            this.batch.extend_from_slice(slice);
        }
        this.grew = true;
        Poll::Ready(Ok(length))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.batch.is_empty() {
            return Pin::new(&mut this.stream).poll_flush(context);
        }
        if mem::take(&mut this.grew) {
            // The connection is asked to come again, and flushes then whether or not there is more.
            context.waker().wake_by_ref();
            return Poll::Ready(Ok(()));
        }
        ready!(this.poll_batch(context))?;
        // An idle connection holds no memory.
        this.batch = Vec::new();
        Pin::new(&mut this.stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_batch(context))?;
        Pin::new(&mut this.stream).poll_shutdown(context)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Batched<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(context, buffer)
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, task::Waker};

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

    use super::*;

    fn now<T>(poll: impl FnOnce(&mut Context<'_>) -> Poll<io::Result<T>>) -> Option<T> {
        match poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(result) => Some(result.unwrap()),
            Poll::Pending => None,
        }
    }

    fn write(batched: &mut Batched<DuplexStream>, bytes: &[u8]) -> Option<usize> {
        now(|context| Pin::new(&mut *batched).poll_write(context, bytes))
    }

    fn flush(batched: &mut Batched<DuplexStream>) -> bool {
        now(|context| Pin::new(&mut *batched).poll_flush(context)).is_some()
    }

    async fn arrived(other: &mut DuplexStream) -> usize {
        let mut buffer = vec![0; 1 << 20];
        poll_fn(|context| {
            let mut read = ReadBuf::new(&mut buffer);
            let ready = Pin::new(&mut *other).poll_read(context, &mut read).is_ready();
            Poll::Ready(if ready { read.filled().len() } else { 0 })
        })
        .await
    }

    #[tokio::test]
    async fn frames_are_put_together_until_a_flush_finds_nothing_more() {
        let (near, mut far) = duplex(1 << 20);
        let mut batched = Batched::new(near);
        for _ in 0..3 {
            assert_eq!(write(&mut batched, &[7; 16 * 1024]), Some(16 * 1024));
            assert!(flush(&mut batched));
        }
        assert_eq!(arrived(&mut far).await, 0);
        assert!(flush(&mut batched));
        assert_eq!(arrived(&mut far).await, 48 * 1024);
        assert_eq!(batched.batch.capacity(), 0);
    }

    #[tokio::test]
    async fn small_and_large_writes_do_not_wait() {
        let (near, mut far) = duplex(1 << 20);
        let mut batched = Batched::new(near);
        for length in [100, 200 * 1024] {
            assert_eq!(write(&mut batched, &vec![7; length]), Some(length));
            assert_eq!(arrived(&mut far).await, length);
        }
    }

    #[tokio::test]
    async fn order_is_kept_and_a_slow_reader_holds_the_writer_up() {
        let (near, mut far) = duplex(10_000);
        let writer = tokio::spawn(async move {
            let mut batched = Batched::new(near);
            for number in 0..200_u8 {
                batched.write_all(&vec![number; 1 + usize::from(number) * 997]).await.unwrap();
                batched.flush().await.unwrap();
                assert!(batched.batch.len() <= BATCH);
            }
            batched.shutdown().await.unwrap();
        });
        let mut all = Vec::new();
        far.read_to_end(&mut all).await.unwrap();
        writer.await.unwrap();
        let expected = (0..200_u8).flat_map(|number| vec![number; 1 + usize::from(number) * 997]);
        assert!(all.into_iter().eq(expected));
    }
}
