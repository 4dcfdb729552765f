//! A range of a payload as a stream of checksummed pieces.
//!
//! `Download` is served beside tonic rather than through it: tonic would copy every piece into a buffer of its own, and
//! this is the one call where that shows. A piece leaves here as two buffers, the little that stands before its bytes and
//! the bytes as the store gave them. On the wire the two are one message like any other.
//!
//! Nothing is read before the connection asks for it, so a slow download holds no more than the connection buffers.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll},
};

use axum::body::Body;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use crc_fast::{CrcAlgorithm, checksum};
use http::{HeaderMap, HeaderValue, Request, Response, header};
use http_body::Frame;
use http_body_util::{BodyExt, Limited};
use ota_domain::{DeviceId, Sha256Digest, Violations};
use ota_proto::device::v1::{DownloadRequest, EncodingKind};
use prost::{
    Message,
    encoding::{WireType, encode_key, encode_varint},
};
use tonic::Status;

use crate::{
    app::{self, App, Error, Reason, download::Download},
    blobs::Reader,
    fleet::Fleet,
    grpc::device::record,
    metrics::Metrics,
};

/// Where the call is served.
pub const PATH: &str = "/ota.device.v1.UpdateService/Download";

/// Bytes in a piece: what a device loses at most when the stream breaks in the middle of one.
const PIECE_BYTES: usize = 256 * 1024;
/// Largest request taken: a hash, two numbers, and room for fields to come.
const MAX_REQUEST_BYTES: usize = 4 * 1024;
/// What gRPC puts before a message: whether it is compressed, and its length.
const PREFIX_BYTES: usize = 5;
/// Most bytes before a piece's own: the prefix and three fields.
const MAX_HEAD_BYTES: usize = PREFIX_BYTES + 11 + 5 + 6;

/// Serves one call. The gate has let it through.
pub async fn serve(app: App, request: Request<Body>) -> Result<Response<Body>, Infallible> {
    let device = Device { fleet: Arc::clone(&app.fleet), id: record(request.extensions()).id };
    Ok(match open(&app, request).await {
        Ok(download) => {
            let mut response = Response::new(Body::new(Pieces::new(download, device, Arc::clone(&app.metrics))));
            response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
            response
        }
        Err(status) => status.into_http(),
    })
}

async fn open(app: &App, request: Request<Body>) -> Result<Download, Status> {
    let record = record(request.extensions());
    let wanted = message(request.into_body()).await?;
    let mut violations = Violations::default();
    let sha256 = violations.take("sha256", Sha256Digest::try_from(wanted.sha256.as_ref()));
    let sha256 = violations.finish(sha256).map_err(Error::Invalid)?;
    match EncodingKind::try_from(wanted.encoding) {
        Ok(EncodingKind::Unspecified | EncodingKind::Identity) => {}
        Ok(EncodingKind::Zstd | EncodingKind::Patch) | Err(_) => {
            return Err(Error::refused(Reason::EncodingUnavailable, "the payload is served as it is").into());
        }
    }
    Ok(app::download::open(app, &record, sha256, wanted.offset, wanted.length).await?)
}

/// Who downloads.
#[derive(Clone)]
struct Device {
    fleet: Arc<Fleet>,
    id: DeviceId,
}

/// Reads the one message of a request.
async fn message(body: Body) -> Result<DownloadRequest, Status> {
    let limited = Limited::new(body, PREFIX_BYTES + MAX_REQUEST_BYTES).collect().await;
    let mut bytes = limited.map_err(|_| Status::out_of_range("the request is too long or did not arrive"))?.to_bytes();
    if bytes.len() < PREFIX_BYTES {
        return Err(Status::internal("the request has no message"));
    }
    let (compressed, length) = (bytes.get_u8(), bytes.get_u32());
    if compressed != 0 {
        return Err(Status::unimplemented("the request is compressed, which this call does not take"));
    }
    if usize::try_from(length) != Ok(bytes.len()) {
        return Err(Status::internal("the request is not one message"));
    }
    DownloadRequest::decode(bytes).map_err(|error| Status::internal(format!("the request cannot be read: {error}")))
}

type Reading = Pin<Box<dyn Future<Output = app::Result<Bytes>> + Send>>;

/// The body of a response: pieces, then the status.
struct Pieces {
    device: Device,
    metrics: Arc<Metrics>,
    reader: Arc<Reader>,
    /// Where the next reading starts.
    next: u64,
    end: u64,
    reading: Option<Reading>,
    /// What was read and is not sent.
    rest: Bytes,
    /// Where `rest` starts.
    offset: u64,
    /// The bytes of a piece whose head is sent.
    data: Option<Bytes>,
    done: bool,
}

impl Pieces {
    fn new(Download { reader, range }: Download, device: Device, metrics: Arc<Metrics>) -> Self {
        Self {
            device,
            metrics,
            reader: Arc::new(reader),
            next: range.start,
            end: range.end,
            reading: None,
            rest: Bytes::new(),
            offset: range.start,
            data: None,
            done: false,
        }
    }

    /// Starts to read what follows, unless there is nothing.
    fn read_on(&mut self) {
        let length = (self.end - self.next).min(self.reader.reading_bytes() as u64);
        if length == 0 {
            return;
        }
        let (reader, offset) = (Arc::clone(&self.reader), self.next);
        self.next += length;
        let device = self.device.clone();
        let read = async move {
            device.fleet.still_admitted(device.id).await?;
            reader.read(offset, length as usize).await
        };
        self.reading = Some(if self.reader.is_remote() {
            // Goes on while the piece before it is sent.
            let ahead = tokio::spawn(read);
            Box::pin(async move { ahead.await.map_err(Error::internal)? })
        } else {
            Box::pin(read)
        });
    }

    fn end(&mut self, status: &Status) -> Frame<Bytes> {
        self.done = true;
        let mut trailers = HeaderMap::new();
        if status.add_header(&mut trailers).is_err() {
            trailers.insert(Status::GRPC_STATUS, HeaderValue::from(i32::from(tonic::Code::Internal)));
        }
        Frame::trailers(trailers)
    }
}

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = self.get_mut();
        if this.done {
            return Poll::Ready(None);
        }
        if let Some(data) = this.data.take() {
            this.metrics.artifact_bytes.fetch_add(data.len() as u64, Ordering::Relaxed);
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        if this.rest.is_empty() {
            if this.reading.is_none() {
                this.read_on();
            }
            let Some(reading) = &mut this.reading else {
                return Poll::Ready(Some(Ok(this.end(&Status::ok("")))));
            };
            let Poll::Ready(read) = reading.as_mut().poll(context) else {
                return Poll::Pending;
            };
            this.reading = None;
            match read {
                Ok(bytes) => this.rest = bytes,
                Err(error) => return Poll::Ready(Some(Ok(this.end(&Status::from(error))))),
            }
            if this.reader.is_remote() {
                this.read_on();
            }
        }
        let data = this.rest.split_to(this.rest.len().min(PIECE_BYTES));
        let head = head(this.offset, &data);
        this.offset += data.len() as u64;
        this.data = Some(data);
        Poll::Ready(Some(Ok(Frame::data(head))))
    }
}

/// What stands before the bytes of a piece: the prefix of gRPC, the fields `offset` and `crc32c`, and the beginning of
/// `data`, its last field.
fn head(offset: u64, data: &[u8]) -> Bytes {
    let mut fields = BytesMut::with_capacity(MAX_HEAD_BYTES);
    fields.put_bytes(0, PREFIX_BYTES);
    if offset != 0 {
        encode_key(1, WireType::Varint, &mut fields);
        encode_varint(offset, &mut fields);
    }
    let crc32c = checksum(CrcAlgorithm::Crc32Iscsi, data) as u32;
    if crc32c != 0 {
        encode_key(2, WireType::ThirtyTwoBit, &mut fields);
        fields.put_u32_le(crc32c);
    }
    encode_key(3, WireType::LengthDelimited, &mut fields);
    encode_varint(data.len() as u64, &mut fields);
    let length = u32::try_from(fields.len() - PREFIX_BYTES + data.len()).unwrap_or(u32::MAX);
    fields[1..PREFIX_BYTES].copy_from_slice(&length.to_be_bytes());
    fields.freeze()
}

#[cfg(test)]
mod tests {
    use ota_proto::device::v1::DownloadResponse;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_head_and_its_bytes_are_what_prost_writes(
            offset in prop_oneof![Just(0), any::<u64>().prop_map(|offset| offset >> 1)],
            data in proptest::collection::vec(any::<u8>(), 1..600),
        ) {
            let data = Bytes::from(data);
            let head = head(offset, &data);
            let message = DownloadResponse {
                offset: i64::try_from(offset).unwrap(),
                crc32c: crc_fast::crc32_iscsi(&data),
                data: data.clone(),
            };
            let mut expected = BytesMut::new();
            expected.put_u8(0);
            expected.put_u32(u32::try_from(message.encoded_len()).unwrap());
            message.encode(&mut expected).unwrap();
            prop_assert!(head.len() <= MAX_HEAD_BYTES);
            prop_assert_eq!([head, data].concat(), expected.to_vec());
        }
    }

    #[tokio::test]
    async fn a_request_that_is_not_one_message_is_refused() {
        let wanted = DownloadRequest { offset: 7, ..DownloadRequest::default() };
        let mut good = vec![0, 0, 0, 0, 2];
        good.extend(wanted.encode_to_vec());
        assert_eq!(message(Body::from(good.clone())).await.unwrap(), wanted);
        let (mut compressed, mut longer, huge) = (good.clone(), good.clone(), vec![0; 1 << 20]);
        compressed[0] = 1;
        longer.push(0);
        for bad in [vec![], good[..6].to_vec(), compressed, longer, huge] {
            assert!(message(Body::from(bad)).await.is_err());
        }
    }
}
