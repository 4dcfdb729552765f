//! A call from its beginning to its end: what is counted and logged of it, and its id for whatever else is logged meanwhile.

use std::{
    net::IpAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Instant,
};

use axum::body::Body;
use bytes::Bytes;
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;
use tracing::Level;

use super::{Principal, policy};
use crate::{
    app::Reason,
    metrics::{Messages, Metrics, OpenCall},
};

tokio::task_local! {
    /// The id of the call that is being answered.
    pub(super) static REQUEST_ID: Arc<str>;
}

/// The id of the call that is being answered, for what is logged meanwhile. Empty when none is.
#[must_use]
pub fn current_request_id() -> Arc<str> {
    REQUEST_ID.try_with(Arc::clone).unwrap_or_default()
}

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct End {
    code: Code,
    /// A stream that was told to go on elsewhere.
    retired: bool,
}

impl End {
    /// The end of which these headers or trailers tell. `None` when they do not.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let code = headers.get(Status::GRPC_STATUS).map(|status| Code::from_bytes(status.as_bytes()))?;
        let retired = code == Code::Unavailable
            && Status::from_header_map(headers)
                .and_then(|status| status.get_details_error_info())
                .is_some_and(|info| info.reason == Reason::ShuttingDown.as_str());
        Some(Self { code, retired })
    }

    fn without_status(code: Code) -> Self {
        Self { code, retired: false }
    }

    /// Whether the server could not do what it was asked for.
    fn is_servers_fault(self) -> bool {
        match self.code {
            Code::Unavailable => !self.retired,
            Code::Internal | Code::Unknown | Code::DataLoss => true,
            Code::Ok
            | Code::Cancelled
            | Code::InvalidArgument
            | Code::DeadlineExceeded
            | Code::NotFound
            | Code::AlreadyExists
            | Code::PermissionDenied
            | Code::ResourceExhausted
            | Code::FailedPrecondition
            | Code::Aborted
            | Code::OutOfRange
            | Code::Unimplemented
            | Code::Unauthenticated => false,
        }
    }
}

/// What is known of a call that has begun.
pub(super) struct Call {
    /// Its row in the policy, if it has one.
    row: Option<usize>,
    open: Option<OpenCall>,
    began: Instant,
    /// What is logged when it ends. `None` when nothing is.
    line: Option<Line>,
}

#[derive(Default)]
struct Line {
    who: Who,
    source: Option<IpAddr>,
    trace: Option<String>,
}

#[derive(Default)]
enum Who {
    #[default]
    Nobody,
    Device(ota_domain::DeviceId),
    Operator(String),
}

impl Call {
    /// Counts the beginning.
    pub(super) fn begin(metrics: &Metrics, row: Option<usize>, source: Option<IpAddr>, headers: &HeaderMap) -> Self {
        let open = row.map(|row| metrics.calls.begin(row));
        // Whoever logs anything of calls logs those that fail.
        let logged = tracing::enabled!(target: "ota_server::calls", Level::INFO);
        let line = logged.then(|| Line { who: Who::Nobody, source, trace: trace_id(headers).map(str::to_owned) });
        Self { row, open, began: open.map_or_else(Instant::now, |open| open.began), line }
    }

    /// Notes who calls, once that is known.
    pub(super) fn admitted(&mut self, principal: &Principal) {
        let Some(line) = &mut self.line else { return };
        line.who = match principal {
            Principal::Device(device) => Who::Device(*device),
            Principal::Operator { identity, .. } => Who::Operator(identity.to_string()),
            Principal::Anonymous | Principal::Server => Who::Nobody,
        };
    }

    /// Counts messages that are sent.
    pub(super) fn sent(&self, metrics: &Metrics, messages: u64) {
        if let Some(row) = self.row {
            metrics.calls.sent(row, messages);
        }
    }

    /// Counts the end, and logs it.
    pub(super) fn end(&mut self, metrics: &Metrics, id: &str, end: End) {
        if let Some(open) = self.open {
            metrics.calls.end(open, end.code);
        }
        let Some(line) = &self.line else { return };
        let (service, method) = self.row.and_then(policy::name).unwrap_or(("unknown", "unknown"));
        let is_admin = service.starts_with("ota.admin.");
        macro_rules! log {
            ($level:expr) => {
                tracing::event!(
                    target: "ota_server::calls",
                    $level,
                    method = %format_args!("{service}/{method}"),
                    code = ?end.code,
                    duration_ms = self.began.elapsed().as_micros() as f64 / 1000.0,
                    request_id = id,
                    device_id = line.device().map(tracing::field::display),
                    operator = line.operator(),
                    source = line.source.map(tracing::field::display),
                    trace_id = line.trace.as_deref(),
                    "call"
                )
            };
        }
        // A hundred thousand devices would fill any disk with what goes as it should.
        if is_admin || end.is_servers_fault() {
            log!(Level::INFO);
        } else {
            log!(Level::DEBUG);
        }
    }
}

impl Line {
    fn device(&self) -> Option<ota_domain::DeviceId> {
        match &self.who {
            Who::Device(device) => Some(*device),
            Who::Nobody | Who::Operator(_) => None,
        }
    }

    fn operator(&self) -> Option<&str> {
        match &self.who {
            Who::Operator(operator) => Some(operator),
            Who::Nobody | Who::Device(_) => None,
        }
    }
}

/// The trace that the caller says it is part of (W3C Trace Context, version 00: `00-<trace>-<span>-<flags>`).
fn trace_id(headers: &HeaderMap) -> Option<&str> {
    let mut parts = headers.get("traceparent")?.to_str().ok()?.split('-');
    let (version, trace) = (parts.next()?, parts.next()?);
    let is_hex = |text: &str| text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let is_one = version == "00" && trace.len() == 32 && is_hex(trace) && trace.bytes().any(|byte| byte != b'0');
    is_one.then_some(trace)
}

/// What is seen of an answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// So many messages were sent.
    Sent(u64),
    /// The end. Seen once.
    Ended(End),
}

/// The body of an answer, watched for its messages and for how the call ends: with the status in its trailers, or without
/// one. What makes the body is part of the call.
pub(super) struct Observed<F: FnMut(Seen)> {
    body: Body,
    id: Arc<str>,
    messages: Messages,
    seen: F,
    ended: bool,
}

impl<F: FnMut(Seen)> Observed<F> {
    pub(super) fn new(body: Body, id: Arc<str>, seen: F) -> Self {
        Self { body, id, messages: Messages::default(), seen, ended: false }
    }

    fn end(&mut self, end: End) {
        if !self.ended {
            self.ended = true;
            (self.seen)(Seen::Ended(end));
        }
    }
}

impl<F: FnMut(Seen)> Drop for Observed<F> {
    fn drop(&mut self) {
        // Nobody waited for the end.
        self.end(End::without_status(Code::Cancelled));
    }
}

impl<F: FnMut(Seen) + Unpin> http_body::Body for Observed<F> {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = self.get_mut();
        let body = Pin::new(&mut this.body);
        let frame = ready!(REQUEST_ID.sync_scope(Arc::clone(&this.id), || body.poll_frame(context)));
        match &frame {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    match this.messages.count(data) {
                        0 => {}
                        messages => (this.seen)(Seen::Sent(messages)),
                    }
                } else if let Some(end) = frame.trailers_ref().and_then(End::of) {
                    this.end(end);
                }
            }
            Some(Err(_)) | None => this.end(End::without_status(Code::Unknown)),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;
    use crate::app::Error;

    async fn seen(body: Body) -> Vec<Seen> {
        let mut all = Vec::new();
        Observed::new(body, "id".into(), |seen| all.push(seen)).collect().await.ok();
        all
    }

    fn trailers(status: &Status) -> HeaderMap {
        let mut trailers = HeaderMap::new();
        status.add_header(&mut trailers).unwrap();
        trailers
    }

    #[tokio::test]
    async fn a_call_ends_once_with_its_status_or_without_one() {
        let ended = |code| Seen::Ended(End::without_status(code));
        let trailers = trailers(&Status::not_found("x"));
        let message = Bytes::from_static(&[0, 0, 0, 0, 0]);
        let with = http_body_util::Full::new(message).with_trailers(std::future::ready(Some(Ok(trailers))));
        assert_eq!(seen(Body::new(with)).await, [Seen::Sent(1), ended(Code::NotFound)]);
        assert_eq!(seen(Body::empty()).await, [ended(Code::Unknown)]);
        let mut dropped = Vec::new();
        drop(Observed::new(Body::empty(), "id".into(), |seen| dropped.push(seen)));
        assert_eq!(dropped, [ended(Code::Cancelled)]);
    }

    #[test]
    fn a_stream_that_is_told_to_go_elsewhere_is_no_fault() {
        let end = |error: Error| End::of(&trailers(&Status::from(error))).unwrap();
        assert!(!end(Error::refused(Reason::ShuttingDown, "x")).is_servers_fault());
        assert!(end(Error::internal("x")).is_servers_fault());
        assert!(!end(Error::refused(Reason::CredentialInvalid, "x")).is_servers_fault());
        let away = Error::Unavailable { dependency: crate::app::Dependency::Database, source: "x".into() };
        assert!(end(away).is_servers_fault());
    }

    #[test]
    fn only_a_trace_as_the_standard_writes_it_is_logged() {
        let id = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("traceparent", text.parse().unwrap());
            trace_id(&headers).map(str::to_owned)
        };
        let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
        assert_eq!(id(&format!("00-{trace}-00f067aa0ba902b7-01")).as_deref(), Some(trace));
        for bad in [
            String::new(),
            trace.to_owned(),
            format!("00-{}-00f067aa0ba902b7-01", trace.to_uppercase()),
            format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32)),
            format!("00-{trace}0-00f067aa0ba902b7-01"),
        ] {
            assert_eq!(id(&bad), None, "{bad}");
        }
    }
}
