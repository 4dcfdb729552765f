//! Any range of a payload, for a device that needs it; and the rest of one, for an operator.

use std::ops::Range;

use ota_domain::{Sha256Digest, release::Payload};

use super::{App, Error, Reason, Result, payloads};
use crate::{auth::Caller, blobs::Reader, fleet::Record};

/// A range of a payload that is open for reading.
#[derive(Debug)]
pub struct Download {
    /// Reads the payload.
    pub reader: Reader,
    /// The bytes wanted.
    pub range: Range<u64>,
}

/// Opens `length` bytes from `offset` of a payload that one of the device's deployments needs; a length of 0 means up to
/// the end.
///
/// # Errors
/// `PayloadNotAssigned` and `RangeInvalid`; when the blob store does not answer.
pub async fn open(app: &App, record: &Record, sha256: Sha256Digest, offset: i64, length: i64) -> Result<Download> {
    let payload =
        record.work.iter().map(|work| work.payload).find(|payload| payload.sha256 == sha256).ok_or_else(|| {
            Error::refused(
                Reason::PayloadNotAssigned,
                format!("no deployment of this device needs the payload {sha256}"),
            )
        })?;
    open_range(app, payload, offset, length).await
}

/// Opens a payload from `offset` to its end, for an operator.
///
/// # Errors
/// `PayloadNotFound` and `RangeInvalid`; when the database or the blob store does not answer.
pub async fn open_rest(app: &App, caller: &Caller, sha256: Sha256Digest, offset: i64) -> Result<Download> {
    let payload = payloads::get(app, caller, sha256).await?.payload;
    open_range(app, payload, offset, 0).await
}

async fn open_range(app: &App, payload: Payload, offset: i64, length: i64) -> Result<Download> {
    let range = range(payload, offset, length).ok_or_else(|| {
        let size = payload.size_bytes;
        Error::refused(
            Reason::RangeInvalid,
            format!("offset {offset} and length {length} do not lie in the {size} bytes"),
        )
    })?;
    Ok(Download { reader: app.blobs.reader(payload).await?, range })
}

fn range(payload: Payload, offset: i64, length: i64) -> Option<Range<u64>> {
    let (offset, length) = (u64::try_from(offset).ok()?, u64::try_from(length).ok()?);
    let end = if length == 0 { payload.size_bytes } else { offset.checked_add(length)? };
    (offset <= end && end <= payload.size_bytes).then_some(offset..end)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PAYLOAD: Payload = Payload { sha256: Sha256Digest([0; 32]), size_bytes: 10 };

    #[test]
    fn a_range_lies_in_the_payload() {
        assert_eq!(range(PAYLOAD, 0, 0), Some(0..10));
        assert_eq!(range(PAYLOAD, 3, 7), Some(3..10));
        assert_eq!(range(PAYLOAD, 10, 0), Some(10..10));
        for (offset, length) in [(-1, 0), (0, -1), (11, 0), (3, 8), (i64::MAX, i64::MAX)] {
            assert_eq!(range(PAYLOAD, offset, length), None, "{offset} {length}");
        }
    }

    proptest! {
        #[test]
        fn no_request_reaches_beyond_the_payload(offset: i64, length: i64) {
            if let Some(range) = range(PAYLOAD, offset, length) {
                prop_assert!(range.start <= range.end && range.end <= PAYLOAD.size_bytes);
            }
        }
    }
}
