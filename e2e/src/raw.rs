//! Calls by path and bytes, for tests that go over every RPC there is, known to the generated clients or not.

use bytes::{Buf as _, BufMut as _, Bytes};
use http::uri::PathAndQuery;
use prost::Message as _;
use prost_types::{FileDescriptorSet, MethodDescriptorProto};
use tonic::{
    Request, Status, Streaming,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
};

use crate::credential::{Authorized, Bearer, connect};

/// Lists every RPC of encoded descriptors, as `/package.Service/Method`.
///
/// # Panics
/// When they are no descriptors.
#[must_use]
pub fn paths(descriptors: &[u8]) -> Vec<String> {
    methods(descriptors).into_iter().map(|(path, _)| path).collect()
}

/// Lists those that stream, to the server or from it.
///
/// # Panics
/// When they are no descriptors.
#[must_use]
pub fn streams(descriptors: &[u8]) -> Vec<String> {
    let streaming =
        methods(descriptors).into_iter().filter(|(_, method)| method.client_streaming() || method.server_streaming());
    streaming.map(|(path, _)| path).collect()
}

fn methods(descriptors: &[u8]) -> Vec<(String, MethodDescriptorProto)> {
    let set = FileDescriptorSet::decode(descriptors).expect("an encoded descriptor set");
    let mut methods = Vec::new();
    for file in set.file {
        for service in &file.service {
            for method in &service.method {
                let path = format!("/{}.{}/{}", file.package(), service.name(), method.name());
                methods.push((path, method.clone()));
            }
        }
    }
    methods
}

/// Calls whatever RPC as somebody.
#[derive(Debug, Clone)]
pub struct RawClient(Authorized);

impl RawClient {
    /// Calls the server at `url` with a credential.
    #[must_use]
    pub fn new(url: &str, bearer: Bearer) -> Self {
        Self(Authorized::new(connect(url), bearer))
    }

    /// Sends one message and returns the answers, once the server has let the call through.
    ///
    /// Works for RPCs of all four kinds: on the wire, one message and one answer are streams of one.
    ///
    /// # Errors
    /// When refused.
    ///
    /// # Panics
    /// When the path is none.
    pub async fn open(&self, path: &str, message: Bytes) -> Result<Streaming<Bytes>, Status> {
        let path: PathAndQuery = path.parse().expect("a path");
        let mut grpc = Grpc::new(self.0.clone());
        grpc.ready().await.map_err(|error| Status::unknown(error.to_string()))?;
        Ok(grpc.server_streaming(Request::new(message), path, Opaque).await?.into_inner())
    }

    /// Opens a stream to the server and sends nothing, until there is an answer or an end.
    ///
    /// # Errors
    /// When refused, or broken off.
    ///
    /// # Panics
    /// When the path is none.
    pub async fn stall(&self, path: &str) -> Result<Option<Bytes>, Status> {
        let path: PathAndQuery = path.parse().expect("a path");
        let mut grpc = Grpc::new(self.0.clone());
        grpc.ready().await.map_err(|error| Status::unknown(error.to_string()))?;
        grpc.streaming(Request::new(tokio_stream::pending()), path, Opaque).await?.into_inner().message().await
    }

    /// Sends one message and waits for the first answer.
    ///
    /// # Errors
    /// When refused.
    pub async fn call(&self, path: &str, message: Bytes) -> Result<Option<Bytes>, Status> {
        self.open(path, message).await?.message().await
    }
}

/// Passes bytes through.
#[derive(Debug, Clone, Copy)]
struct Opaque;

impl Codec for Opaque {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Opaque {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(message);
        Ok(())
    }
}

impl Decoder for Opaque {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}
