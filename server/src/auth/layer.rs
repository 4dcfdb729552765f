//! The gate: every request passes here before any handler.

use std::{
    convert::Infallible,
    future::Future,
    net::IpAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use axum::{Router, body::Body};
use chrono::{DateTime, Utc};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::BodyExt as _;
use ota_domain::{role::Role, secret::BearerToken};
use sha2::{Digest, Sha256};
use tonic::Status;
use tower::Service;
use uuid::Uuid;

use super::{
    Caller, Identity, Offer, PeerAddress, Principal,
    call::{Call, End, Observed, REQUEST_ID, Seen},
    forwarded,
    limits::{self, Claimed},
    policy::{self, Demand},
};
use crate::{
    app::{self, App, Error, Reason, Result},
    ca::PeerIdentity,
    fleet::Record,
    metrics::Messages,
};

/// Names a request in logs, events and errors. Taken from the caller when they send one, else made here.
pub static REQUEST_ID_HEADER: HeaderName = HeaderName::from_static("x-request-id");

const MAX_REQUEST_ID_BYTES: usize = 64;

/// Lets through what [`policy`] allows.
#[derive(Debug, Clone)]
pub struct Gate {
    // Cloned with every call, by all threads: one counter to fight over is enough.
    guarded: Arc<Guarded>,
}

#[derive(Debug)]
struct Guarded {
    app: App,
    services: Router,
    offer: Offer,
}

impl Gate {
    /// Guards `services`, of which callers get what the `offer` has.
    #[must_use]
    pub fn new(app: App, services: Router, offer: Offer) -> Self {
        Self { guarded: Arc::new(Guarded { app, services, offer }) }
    }
}

impl Service<Request<Body>> for Gate {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = std::result::Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<std::result::Result<(), Infallible>> {
        // A router is always ready.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let guarded = Arc::clone(&self.guarded);
        Box::pin(async move {
            if !is_grpc(request.headers()) {
                return Ok(not_grpc());
            }
            let id: Arc<str> = request_id(request.headers()).into();
            let response = REQUEST_ID.scope(Arc::clone(&id), guarded.answer(request, &id)).await;
            response.map(|mut response| {
                if let Ok(mut id) = HeaderValue::from_str(&id) {
                    // It never comes again, so it has no place in the connection's table of headers.
                    id.set_sensitive(true);
                    response.headers_mut().insert(REQUEST_ID_HEADER.clone(), id);
                }
                response
            })
        })
    }
}

impl Guarded {
    async fn answer(
        self: Arc<Self>,
        mut request: Request<Body>,
        id: &Arc<str>,
    ) -> std::result::Result<Response<Body>, Infallible> {
        let (app, row) = (&self.app, policy::row(request.uri().path()));
        let source = source(app, &request);
        let mut call = Call::begin(&app.metrics, row.map(|(row, _)| row), source, request.headers());
        let response = match self.admit(row, &mut request, source).await {
            Ok((row, principal)) => {
                call.admitted(&principal);
                let caller = Caller { principal, request_id: Arc::clone(id), source };
                request.extensions_mut().insert(caller);
                let request = received(request, &self, row);
                self.services.clone().call(request).await?
            }
            Err(error) => {
                tracing::debug!(request_id = &**id, path = request.uri().path(), %error, "refused");
                Status::from(error).into_http()
            }
        };
        Ok(observed(response, self, call, id))
    }

    /// Lets in who may call what this port has: the RPC in this row of the policy.
    async fn admit(
        &self,
        row: Option<(usize, Demand)>,
        request: &mut Request<Body>,
        source: Option<IpAddr>,
    ) -> Result<(usize, Principal)> {
        let path = request.uri().path();
        self.offer.check(path)?;
        let (row, demand) =
            row.ok_or_else(|| Error::refused(Reason::NotImplemented, format!("{path} is not part of this server")))?;
        Ok((row, admit(&self.app, demand, request, source).await?))
    }
}

/// Counts the messages of a request: one, unless callers send a stream.
fn received(request: Request<Body>, guarded: &Arc<Guarded>, row: usize) -> Request<Body> {
    let calls = &guarded.app.metrics.calls;
    if !calls.takes_stream(row) {
        calls.received(row, 1);
        return request;
    }
    let (guarded, mut messages) = (Arc::clone(guarded), Messages::default());
    request.map(|body| {
        Body::new(body.map_frame(move |frame| {
            if let Some(data) = frame.data_ref() {
                guarded.app.metrics.calls.received(row, messages.count(data));
            }
            frame
        }))
    })
}

/// Counts and logs how the call ends: now, when the answer is nothing but a status, else with its body.
fn observed(response: Response<Body>, guarded: Arc<Guarded>, mut call: Call, id: &Arc<str>) -> Response<Body> {
    if let Some(end) = End::of(response.headers()) {
        call.end(&guarded.app.metrics, id, end);
        return response;
    }
    let id = Arc::clone(id);
    let seen = {
        let id = Arc::clone(&id);
        move |seen| match seen {
            Seen::Sent(messages) => call.sent(&guarded.app.metrics, messages),
            Seen::Ended(end) => call.end(&guarded.app.metrics, &id, end),
        }
    };
    response.map(|body| Body::new(Observed::new(body, id, seen)))
}

/// Checks the credential that the request demands, and says who calls.
async fn admit(app: &App, demand: Demand, request: &mut Request<Body>, source: Option<IpAddr>) -> Result<Principal> {
    let path = request.uri().path();
    let now = Instant::now();
    // A call from this machine, or from a proxy on it that nobody declared, has no address that is worth a limit.
    let address = source.filter(|address| !address.is_loopback());
    let principal = match demand {
        Demand::Nothing => {
            if let Some(address) = address {
                app.limits.anonymous(address, now)?;
                if path == ENROLL {
                    app.limits.enrollment(address, now)?;
                }
            }
            Principal::Anonymous
        }
        Demand::Device => counted(app, Claimed::Device, address, now, device(app, request, Expired::Refused).await)?,
        Demand::EnrolledKey => {
            counted(app, Claimed::Device, address, now, device(app, request, Expired::Allowed).await)?
        }
        Demand::Operator(role) => {
            let operator = operator(app, request.headers(), role, address, now).await;
            counted(app, Claimed::Operator, address, now, operator)?
        }
    };
    if let Some(identity) = identity(&principal) {
        app.limits.call(identity, now)?;
    }
    forwarded::strip(request.headers_mut());
    Ok(principal)
}

/// The one call without a credential that costs the database several writes.
const ENROLL: &str = "/ota.device.v1.EnrollmentService/Enroll";

/// Counts a credential that was refused against the address it came from.
fn counted(
    app: &App,
    claimed: Claimed,
    address: Option<IpAddr>,
    now: Instant,
    told: Result<Principal>,
) -> Result<Principal> {
    match (told, address) {
        (Err(refusal @ Error::Refused { reason: Reason::CredentialInvalid, .. }), Some(address)) => {
            Err(app.limits.refused(address, claimed, now, refusal))
        }
        (told, _) => told,
    }
}

/// As whom the caller is limited.
fn identity(principal: &Principal) -> Option<limits::Identity> {
    match principal {
        Principal::Device(device) => Some(limits::Identity(device.0.as_u128())),
        Principal::Operator { identity: Identity::ApiToken(token), .. } => Some(limits::Identity(token.0.as_u128())),
        Principal::Operator { identity: Identity::User { subject, .. }, .. } => {
            let [hash @ .., _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _]: [u8; 32] =
                Sha256::digest(subject.as_bytes()).into();
            Some(limits::Identity(u128::from_be_bytes(hash)))
        }
        Principal::Anonymous | Principal::Server => None,
    }
}

/// Where the request came from. `None` when the server that accepted its connection did not say.
fn source(app: &App, request: &Request<Body>) -> Option<IpAddr> {
    let PeerAddress(peer) = *request.extensions().get()?;
    Some(app.trusted_proxies.source(peer, request.headers()))
}

/// The calling device: by its session when it shows one, else by the certificate of its connection, or by the one that
/// a trusted proxy was shown.
async fn device(app: &App, request: &mut Request<Body>, expired: Expired) -> Result<Principal> {
    let now = Utc::now();
    let record = if request.headers().contains_key(header::AUTHORIZATION) {
        by_token(app, request.headers(), now).await?
    } else {
        match (request.extensions().get::<Arc<PeerIdentity>>().map(Arc::as_ref), &app.forwarding) {
            (Some(PeerIdentity::Proxy), Some(forwarding)) => {
                let caller = forwarding.caller(request.headers())?;
                by_certificate(app, Some(&caller), expired, now).await?
            }
            (peer, _) => by_certificate(app, peer, expired, now).await?,
        }
    };
    record.admitted()?;
    let id = record.id;
    request.extensions_mut().insert(record);
    Ok(Principal::Device(id))
}

async fn by_token(app: &App, headers: &HeaderMap, now: DateTime<Utc>) -> Result<Arc<Record>> {
    match bearer(headers)? {
        BearerToken::Session(session) => {
            if !app.keys.session().accepts(&session, now) {
                return Err(invalid_credential());
            }
            app.fleet.device(session.device).await?.ok_or_else(invalid_credential)
        }
        BearerToken::Api { .. } => Err(Error::refused(
            Reason::RoleInsufficient,
            "this call is for devices, and the credential is an API token",
        )),
    }
}

/// What becomes of a certificate whose time is over.
#[derive(Debug, Clone, Copy)]
enum Expired {
    /// The handshake has proven the key, and that is enough.
    Allowed,
    Refused,
}

async fn by_certificate(
    app: &App,
    peer: Option<&PeerIdentity>,
    expired: Expired,
    now: DateTime<Utc>,
) -> Result<Arc<Record>> {
    let shown = match peer {
        None | Some(PeerIdentity::None | PeerIdentity::Proxy) => return Err(missing_credential()),
        Some(PeerIdentity::Foreign(reason)) => {
            return Err(Error::refused(Reason::CertificateInvalid, reason.as_str()));
        }
        Some(PeerIdentity::Device(shown)) => shown,
    };
    let record = app.fleet.device(shown.device).await?.ok_or_else(invalid_credential)?;
    if record.key_sha256 != Some(shown.key_sha256) {
        return Err(invalid_credential());
    }
    match expired {
        Expired::Refused if !shown.is_good_at(now) => Err(Error::refused(
            Reason::CertificateExpired,
            format!("the device's certificate is good from {} to {}; renew it", shown.not_before, shown.not_after),
        )),
        Expired::Refused | Expired::Allowed => Ok(record),
    }
}

async fn operator(
    app: &App,
    headers: &HeaderMap,
    needed: Role,
    address: Option<IpAddr>,
    now: Instant,
) -> Result<Principal> {
    let shown = shown(headers)?;
    let principal = match (shown.parse(), &app.oidc) {
        (Ok(BearerToken::Api { token, secret }), _) => {
            if let Some(address) = address {
                app.limits.may_try(address, limits::Identity(token.0.as_u128()), now)?;
            }
            app::access::authenticate(app, token, &secret, Utc::now()).await?
        }
        (Ok(BearerToken::Session(_)), _) => {
            return Err(Error::refused(
                Reason::RoleInsufficient,
                "this call is for operators, and the credential is a device's",
            ));
        }
        // What is not of this server's making may be of the provider's.
        (Err(_), Some(provider)) => provider.authenticate(shown, Utc::now()).await?,
        (Err(_), None) => return Err(invalid_credential()),
    };
    match &principal {
        Principal::Operator { role, .. } if role.allows(needed) => Ok(principal),
        Principal::Operator { role, .. } => Err(Error::refused(
            Reason::RoleInsufficient,
            format!("this call needs the role {}, and the token's is {}", needed.as_str(), role.as_str()),
        )),
        Principal::Anonymous | Principal::Device(_) | Principal::Server => Err(invalid_credential()),
    }
}

fn bearer(headers: &HeaderMap) -> Result<BearerToken> {
    shown(headers)?.parse().map_err(|_| invalid_credential())
}

/// The credential, whatever it is.
fn shown(headers: &HeaderMap) -> Result<&str> {
    let header = headers.get(header::AUTHORIZATION).ok_or_else(missing_credential)?;
    header
        .to_str()
        .ok()
        .and_then(|text| text.strip_prefix("Bearer ").or_else(|| text.strip_prefix("bearer ")))
        .map(str::trim)
        .ok_or_else(invalid_credential)
}

fn missing_credential() -> Error {
    let message = "this call needs a credential: authorization: Bearer …, or a device's certificate over TLS";
    Error::refused(Reason::CredentialMissing, message)
}

/// The same for an unknown id, a wrong secret and a text that is no credential: nobody learns which ids exist.
fn invalid_credential() -> Error {
    Error::refused(Reason::CredentialInvalid, "the credential is not known here, has expired or was revoked")
}

fn request_id(headers: &HeaderMap) -> String {
    let sent = headers.get(&REQUEST_ID_HEADER).and_then(|id| id.to_str().ok());
    match sent.filter(|id| (1..=MAX_REQUEST_ID_BYTES).contains(&id.len())) {
        Some(id) => id.to_owned(),
        None => new_request_id().simple().to_string(),
    }
}

/// A UUIDv7 without `Uuid::now_v7`'s lock and its question to the system for each: nothing relies on the order.
fn new_request_id() -> Uuid {
    let now_ms = u64::try_from(Utc::now().timestamp_millis()).unwrap_or(0);
    uuid::Builder::from_unix_timestamp_millis(now_ms, &rand::random()).into_uuid()
}

fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

fn not_grpc() -> Response<Body> {
    let mut response = Response::new(Body::from("This address speaks gRPC. Use otactl or ota-agent.\n"));
    *response.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
    response
}
