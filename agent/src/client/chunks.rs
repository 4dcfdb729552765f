//! The pieces of a download, each checked for its place and its checksum.

use std::time::Duration;

use bytes::Bytes;
use ota_proto::device::v1::DownloadResponse;
use tokio::time::timeout;
use tonic::Streaming;

use super::Error;

/// Largest piece that the API allows.
pub const MAX_PIECE_BYTES: usize = 256 * 1024;

/// A stream of pieces in order, without gaps.
#[derive(Debug)]
pub struct Chunks {
    stream: Streaming<DownloadResponse>,
    next: u64,
}

impl Chunks {
    pub(super) fn new(stream: Streaming<DownloadResponse>, offset: u64) -> Self {
        Self { stream, next: offset }
    }

    /// Returns the next bytes, `None` at the end of the stream. A piece may take so long; it is given up with the stream.
    pub async fn next(&mut self, patience: Duration) -> Result<Option<Bytes>, Error> {
        let Ok(piece) = timeout(patience, self.stream.message()).await else {
            return Err(Error::Unreachable { reason: format!("no piece within {} s", patience.as_secs()) });
        };
        let Some(piece) = piece? else { return Ok(None) };
        let data = check(&piece, self.next)?;
        self.next += data.len() as u64;
        Ok(Some(data))
    }
}

/// Returns the bytes of a piece that is due at this offset.
///
/// # Errors
/// When it is due elsewhere, is empty or too large, or does not match its checksum.
pub fn check(piece: &DownloadResponse, expected: u64) -> Result<Bytes, Error> {
    if u64::try_from(piece.offset) != Ok(expected) {
        return Err(Error::nonsense(format!("a piece at {} where {expected} was due", piece.offset)));
    }
    if piece.data.is_empty() || piece.data.len() > MAX_PIECE_BYTES {
        return Err(Error::nonsense(format!("a piece of {} bytes", piece.data.len())));
    }
    if crc_fast::crc32_iscsi(&piece.data) != piece.crc32c {
        return Err(Error::nonsense(format!("a piece at {expected} that does not match its checksum")));
    }
    Ok(piece.data.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(offset: i64, data: &'static [u8]) -> DownloadResponse {
        DownloadResponse { offset, crc32c: crc_fast::crc32_iscsi(data), data: Bytes::from_static(data) }
    }

    #[test]
    fn only_the_right_bytes_in_the_right_place_are_taken() {
        assert_eq!(check(&piece(7, b"data"), 7).unwrap(), &b"data"[..]);
        for (piece, expected) in [(piece(7, b"data"), 8), (piece(-1, b"data"), 0), (piece(0, b""), 0)] {
            assert!(check(&piece, expected).is_err(), "{piece:?}");
        }
        static LARGE: [u8; MAX_PIECE_BYTES + 1] = [0; MAX_PIECE_BYTES + 1];
        assert!(check(&piece(0, &LARGE), 0).is_err());
        let damaged = DownloadResponse { crc32c: 1, ..piece(0, b"data") };
        assert!(check(&damaged, 0).is_err());
    }

    #[test]
    fn the_checksum_is_castagnolis() {
        // The check value that RFC 3720 and the CRC catalogue give for "123456789".
        assert_eq!(crc_fast::crc32_iscsi(b"123456789"), 0xe306_9283);
    }
}
