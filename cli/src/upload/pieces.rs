//! A payload as a stream of checksummed pieces, read just ahead of the connection.

use std::{fs::File, os::unix::fs::FileExt, sync::Arc};

use futures_util::{Stream, StreamExt};
use ota_proto::admin::v1::UploadPayloadRequest;
use tokio::{sync::mpsc, task::JoinHandle};
use tokio_stream::wrappers::ReceiverStream;

use crate::{error::Failure, progress::Progress};

/// Bytes in a piece. The server takes up to 1 MiB; smaller pieces lose less when a connection breaks.
const PIECE_BYTES: u64 = 256 * 1024;

/// Pieces read ahead. The reader waits for the connection, so memory stays at a few of them.
const AHEAD: usize = 8;

/// The reader behind a stream.
pub(super) struct Reader(JoinHandle<Result<(), Failure>>);

impl Reader {
    /// Tells whether the reader ended.
    pub(super) fn is_finished(&self) -> bool {
        self.0.is_finished()
    }

    /// Waits for the reader, which ends when the stream is dropped, and returns its failure.
    pub(super) async fn finish(self) -> Result<(), Failure> {
        self.0.await.unwrap_or_else(|error| Err(Failure::because("cannot read the payload", &error)))
    }
}

/// Starts to read from `offset` to the end.
pub(super) fn stream(
    file: Arc<File>,
    upload: String,
    offset: u64,
    size: u64,
    progress: Progress,
) -> (impl Stream<Item = UploadPayloadRequest> + Send + 'static, Reader) {
    let (sender, receiver) = mpsc::channel(AHEAD);
    let reader = tokio::task::spawn_blocking(move || {
        let mut name = upload;
        let mut at = offset;
        loop {
            // Without a message the server would not know the upload, so that one it has all bytes of gets an empty one.
            let piece = read(&file, std::mem::take(&mut name), at, size)?;
            at += piece.data.len() as u64;
            // When the receiver is gone the call has ended, and its answer says why.
            if sender.blocking_send(piece).is_err() || at == size {
                return Ok(());
            }
        }
    });
    let stream = ReceiverStream::new(receiver).inspect(move |piece: &UploadPayloadRequest| {
        progress.add(piece.data.len() as u64);
    });
    (stream, Reader(reader))
}

/// Reads one piece. `name` is the upload's in the first message and empty in the others.
fn read(file: &File, name: String, at: u64, size: u64) -> Result<UploadPayloadRequest, Failure> {
    let length = usize::try_from(PIECE_BYTES.min(size - at)).unwrap_or(0);
    let mut data = vec![0; length];
    file.read_exact_at(&mut data, at).map_err(|error| {
        if error.kind() == std::io::ErrorKind::UnexpectedEof {
            Failure::failed("the file became shorter while it was sent").hint("upload a copy that nothing writes to")
        } else {
            Failure::because("cannot read the payload", &error)
        }
    })?;
    let crc32c = crc_fast::crc32_iscsi(&data);
    let offset = i64::try_from(at).unwrap_or(i64::MAX);
    Ok(UploadPayloadRequest { name, offset, crc32c, data: data.into() })
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::messages::Messages;

    fn file(bytes: &[u8]) -> Arc<File> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        Arc::new(file)
    }

    #[test]
    fn the_checksum_is_the_one_of_rfc_3720() {
        assert_eq!(crc_fast::crc32_iscsi(b"123456789"), 0xe306_9283);
    }

    #[tokio::test]
    async fn pieces_cover_the_rest_without_gaps_and_name_the_upload_once() {
        let bytes: Vec<u8> = (0..PIECE_BYTES as u32 * 3 + 77).map(|i| (i % 251) as u8).collect();
        let size = bytes.len() as u64;
        for offset in [0, 1, PIECE_BYTES, size - 1, size] {
            let progress = Progress::bytes(Messages::new(true), "uploading", size);
            let (stream, reader) = stream(file(&bytes), "uploads/u".to_owned(), offset, size, progress);
            let pieces: Vec<_> = stream.collect().await;
            reader.finish().await.unwrap();
            assert!(!pieces.is_empty());
            let mut at = offset;
            for (index, piece) in pieces.iter().enumerate() {
                assert_eq!(piece.name, if index == 0 { "uploads/u" } else { "" });
                assert_eq!(piece.offset as u64, at);
                assert_eq!(piece.crc32c, crc_fast::crc32_iscsi(&piece.data));
                assert_eq!(piece.data, bytes[at as usize..at as usize + piece.data.len()]);
                at += piece.data.len() as u64;
            }
            assert_eq!(at, size);
        }
    }

    #[tokio::test]
    async fn a_file_that_became_shorter_is_a_failure_and_not_a_short_upload() {
        let progress = Progress::bytes(Messages::new(true), "uploading", 100);
        let (stream, reader) = stream(file(b"short"), "uploads/u".to_owned(), 0, 100, progress);
        let pieces: Vec<_> = stream.collect().await;
        assert!(pieces.is_empty());
        assert!(reader.finish().await.unwrap_err().to_string().contains("became shorter"));
    }

    #[tokio::test]
    async fn a_dropped_stream_ends_its_reader() {
        let bytes = vec![1; PIECE_BYTES as usize * (AHEAD + 4)];
        let size = bytes.len() as u64;
        let progress = Progress::bytes(Messages::new(true), "uploading", size);
        let (stream, reader) = stream(file(&bytes), "uploads/u".to_owned(), 0, size, progress);
        drop(stream);
        reader.finish().await.unwrap();
    }
}
