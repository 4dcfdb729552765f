//! Calls of each RPC: how many began, how they ended, and how long they took. Names and labels are those of the gRPC
//! middlewares for Prometheus, which dashboards know.

use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use ota_proto::FILE_DESCRIPTOR_SET;
use prometheus_client::{
    encoding::{DescriptorEncoder, NoLabelSet},
    metrics::MetricType,
    registry::Unit,
};
use prost::Message as _;
use prost_types::{FileDescriptorSet, MethodDescriptorProto};
use tonic::Code;

use crate::auth::policy;

/// Upper bounds of the classes of durations, in seconds: from a check-in out of memory to a long download.
const BOUNDS: [f64; 12] = [0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.1, 0.25, 1.0, 5.0, 30.0, 300.0];

/// Every status there is (gRPC core, statuscodes.md), by its number.
const CODES: [&str; 17] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];

/// The calls of every RPC that the policy has a row for, in the order of the rows.
pub struct Calls(Vec<Rpc>);

#[derive(Default)]
struct Rpc {
    service: String,
    method: String,
    kind: &'static str,
    started: AtomicU64,
    received: AtomicU64,
    sent: AtomicU64,
    ended: [AtomicU64; CODES.len()],
    durations: [AtomicU64; BOUNDS.len() + 1],
    nanoseconds: AtomicU64,
}

impl fmt::Debug for Calls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Calls").field(&self.0.len()).finish()
    }
}

impl Default for Calls {
    fn default() -> Self {
        let kinds = kinds();
        let rpc = |path: String| {
            let (service, method) = path.trim_start_matches('/').split_once('/').unwrap_or_default();
            let kind = kinds.iter().find(|(known, _)| *known == path).map_or("unary", |(_, kind)| kind);
            Rpc { service: service.to_owned(), method: method.to_owned(), kind, ..Rpc::default() }
        };
        Self(policy::rows().map(|(path, _)| rpc(path)).collect())
    }
}

/// Every RPC with its kind, as the label `grpc_type` has it.
fn kinds() -> Vec<(String, &'static str)> {
    let sets = [
        FILE_DESCRIPTOR_SET,
        tonic_health::pb::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
    ];
    let files = sets.into_iter().filter_map(|set| FileDescriptorSet::decode(set).ok()).flat_map(|set| set.file);
    files
        .flat_map(|file| {
            let package = file.package().to_owned();
            file.service.into_iter().flat_map(move |service| {
                let service_path = format!("/{package}.{}", service.name());
                service
                    .method
                    .into_iter()
                    .map(move |method| (format!("{service_path}/{}", method.name()), kind(&method)))
            })
        })
        .collect()
}

fn kind(method: &MethodDescriptorProto) -> &'static str {
    match (method.client_streaming(), method.server_streaming()) {
        (false, false) => "unary",
        (true, false) => "client_stream",
        (false, true) => "server_stream",
        (true, true) => "bidi_stream",
    }
}

/// The name of a family, its help, and what it counts of an RPC.
type Counter = (&'static str, &'static str, fn(&Rpc) -> &AtomicU64);

/// A call that has begun. Whoever holds it says how it ended.
#[derive(Debug, Clone, Copy)]
pub struct OpenCall {
    row: usize,
    /// When.
    pub began: Instant,
}

impl Calls {
    /// Counts the beginning of a call of the RPC in this row of the policy.
    pub fn begin(&self, row: usize) -> OpenCall {
        if let Some(rpc) = self.0.get(row) {
            rpc.started.fetch_add(1, Ordering::Relaxed);
        }
        OpenCall { row, began: Instant::now() }
    }

    /// Whether callers of the RPC in this row send a stream, and not one message.
    pub fn takes_stream(&self, row: usize) -> bool {
        self.0.get(row).is_some_and(|rpc| matches!(rpc.kind, "client_stream" | "bidi_stream"))
    }

    /// Counts messages that came.
    pub fn received(&self, row: usize, messages: u64) {
        if let Some(rpc) = self.0.get(row) {
            rpc.received.fetch_add(messages, Ordering::Relaxed);
        }
    }

    /// Counts messages that went.
    pub fn sent(&self, row: usize, messages: u64) {
        if let Some(rpc) = self.0.get(row) {
            rpc.sent.fetch_add(messages, Ordering::Relaxed);
        }
    }

    /// Counts the end of a call.
    pub fn end(&self, call: OpenCall, code: Code) {
        let Some(rpc) = self.0.get(call.row) else { return };
        let took = call.began.elapsed();
        rpc.ended[code as usize].fetch_add(1, Ordering::Relaxed);
        rpc.durations[class(took)].fetch_add(1, Ordering::Relaxed);
        rpc.nanoseconds.fetch_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

/// The place among the classes of durations.
fn class(took: Duration) -> usize {
    let seconds = took.as_secs_f64();
    BOUNDS.iter().position(|bound| seconds <= *bound).unwrap_or(BOUNDS.len())
}

impl Calls {
    /// Writes the families of calls.
    pub(super) fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let counters: [Counter; 3] = [
            ("grpc_server_started", "Calls that began.", |rpc| &rpc.started),
            ("grpc_server_msg_received", "Messages that callers sent.", |rpc| &rpc.received),
            ("grpc_server_msg_sent", "Messages that callers were sent.", |rpc| &rpc.sent),
        ];
        for (name, help, counter) in counters {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for rpc in &self.0 {
                let count = counter(rpc).load(Ordering::Relaxed);
                family.encode_family(&rpc.labels())?.encode_counter::<NoLabelSet, _, f64>(&count, None)?;
            }
        }
        let mut handled =
            encoder.encode_descriptor("grpc_server_handled", "Calls that ended.", None, MetricType::Counter)?;
        for rpc in &self.0 {
            for (code, count) in CODES.iter().zip(&rpc.ended) {
                let count = count.load(Ordering::Relaxed);
                if count > 0 {
                    let labels = (rpc.labels(), [("grpc_code", *code)]);
                    handled.encode_family(&labels)?.encode_counter::<NoLabelSet, _, f64>(&count, None)?;
                }
            }
        }
        let help = "How long calls took; a stream's until its end.";
        let mut handling =
            encoder.encode_descriptor("grpc_server_handling", help, Some(&Unit::Seconds), MetricType::Histogram)?;
        for rpc in self.0.iter().filter(|rpc| rpc.started.load(Ordering::Relaxed) > 0) {
            let bounds = BOUNDS.into_iter().chain([f64::INFINITY]);
            let classes: Vec<_> =
                bounds.zip(&rpc.durations).map(|(bound, count)| (bound, count.load(Ordering::Relaxed))).collect();
            let seconds = Duration::from_nanos(rpc.nanoseconds.load(Ordering::Relaxed)).as_secs_f64();
            let count = classes.iter().map(|(_, count)| count).sum();
            handling.encode_family(&rpc.labels())?.encode_histogram::<NoLabelSet>(seconds, count, &classes, None)?;
        }
        Ok(())
    }
}

impl Rpc {
    fn labels(&self) -> [(&'static str, &str); 3] {
        [("grpc_type", self.kind), ("grpc_service", &self.service), ("grpc_method", &self.method)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_stream_is_told() {
        let calls = Calls::default();
        let kind = |method: &str| calls.0.iter().find(|rpc| rpc.method == method).map(|rpc| rpc.kind);
        assert_eq!(kind("CheckIn"), Some("unary"));
        assert_eq!(kind("Download"), Some("server_stream"));
        assert_eq!(kind("UploadPayload"), Some("client_stream"));
        assert_eq!(kind("ServerReflectionInfo"), Some("bidi_stream"));
    }

    #[test]
    fn a_duration_is_in_the_first_class_that_holds_it() {
        assert_eq!(class(Duration::ZERO), 0);
        assert_eq!(class(Duration::from_micros(500)), 0);
        assert_eq!(class(Duration::from_micros(501)), 1);
        assert_eq!(class(Duration::from_secs(301)), BOUNDS.len());
    }
}
