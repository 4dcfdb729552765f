//! A server in an attacker's hands: devices take it for the genuine one, because all that makes that one genuine is on its
//! machine.
//!
//! It shows a certificate that the genuine server's authority signed, and passes every call of a device on to the
//! genuine server, in the device's name, with a session that it makes by the server's session key. So everything is as
//! ever, until a test makes it lie: a lie is told in place of the genuine answer, typed, once for each call.

use std::{
    fmt,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::body::Body;
use bytes::Bytes;
use chrono::Utc;
use futures_util::{Stream, StreamExt as _, stream};
use http::{Request as HttpRequest, Response as HttpResponse};
use http_body::Frame;
use http_body_util::{BodyStream, StreamBody};
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
    service::TowerToHyperService,
};
use ota_domain::DeviceId;
use ota_proto::device::v1::{
    CheckInRequest, CheckInResponse, CreateChallengeRequest, CreateChallengeResponse, CreateSessionRequest,
    CreateSessionResponse, DownloadRequest, DownloadResponse, EnrollRequest, EnrollResponse, GetTrustAnchorsRequest,
    GetTrustAnchorsResponse, RenewCertificateRequest, RenewCertificateResponse, ReportInventoryRequest,
    ReportInventoryResponse, ReportProgressRequest, ReportProgressResponse, WatchRequest, WatchResponse,
    enrollment_service_client::EnrollmentServiceClient,
    enrollment_service_server::{EnrollmentService, EnrollmentServiceServer},
    update_service_client::UpdateServiceClient,
    update_service_server::{UpdateService, UpdateServiceServer},
};
use ota_server::{
    ca::PeerIdentity,
    keys::Keyring,
    tls::{Options, Tls},
};
use tokio::{net::TcpListener, sync::watch, task::JoinSet, time::sleep};
use tonic::{Request, Response, Status, service::Routes, transport::Channel};
use tower::ServiceExt as _;

use crate::{
    TestServer,
    credential::{Authorized, Bearer},
};

/// Largest answer that is passed on, in bytes: as much as a device takes.
const MAX_ANSWER_BYTES: usize = 16 * 1024 * 1024;

/// An answer in many pieces.
pub type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// What a device asked.
#[derive(Debug, Clone)]
pub struct Asked<Q> {
    /// Who asks, by its certificate. `None` before it has one.
    pub device: Option<DeviceId>,
    /// What it asks.
    pub request: Q,
}

type Told<Q, A> = Box<dyn FnMut(&Asked<Q>, Result<A, Status>) -> Result<A, Status> + Send>;

/// What is answered to one RPC: the truth, until a test says otherwise.
pub struct Lie<Q, A>(Mutex<Option<Told<Q, A>>>);

impl<Q, A> Default for Lie<Q, A> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<Q, A> fmt::Debug for Lie<Q, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lie").field("is_told", &self.told().is_some()).finish()
    }
}

impl<Q, A> Lie<Q, A> {
    /// Answers like this from here on. The lie gets what was asked and what the genuine server answered.
    pub fn tell(&self, lie: impl FnMut(&Asked<Q>, Result<A, Status>) -> Result<A, Status> + Send + 'static) {
        *self.told() = Some(Box::new(lie));
    }

    /// Answers as the genuine server does.
    pub fn stop(&self) {
        *self.told() = None;
    }

    fn told(&self) -> MutexGuard<'_, Option<Told<Q, A>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self, asked: &Asked<Q>, truth: Result<A, Status>) -> Result<A, Status> {
        match self.told().as_mut() {
            Some(lie) => lie(asked, truth),
            None => truth,
        }
    }
}

/// What is answered to every RPC.
#[derive(Debug, Default)]
pub struct Lies {
    /// To `EnrollmentService.GetTrustAnchors`.
    pub get_trust_anchors: Lie<GetTrustAnchorsRequest, GetTrustAnchorsResponse>,
    /// To `EnrollmentService.Enroll`.
    pub enroll: Lie<EnrollRequest, EnrollResponse>,
    /// To `EnrollmentService.RenewCertificate`.
    pub renew_certificate: Lie<RenewCertificateRequest, RenewCertificateResponse>,
    /// To `EnrollmentService.CreateChallenge`.
    pub create_challenge: Lie<CreateChallengeRequest, CreateChallengeResponse>,
    /// To `EnrollmentService.CreateSession`.
    pub create_session: Lie<CreateSessionRequest, CreateSessionResponse>,
    /// To `UpdateService.CheckIn`.
    pub check_in: Lie<CheckInRequest, CheckInResponse>,
    /// To `UpdateService.Watch`.
    pub watch: Lie<WatchRequest, Answers<WatchResponse>>,
    /// To `UpdateService.Download`.
    pub download: Lie<DownloadRequest, Answers<DownloadResponse>>,
    /// To `UpdateService.ReportProgress`.
    pub report_progress: Lie<ReportProgressRequest, ReportProgressResponse>,
    /// To `UpdateService.ReportInventory`.
    pub report_inventory: Lie<ReportInventoryRequest, ReportInventoryResponse>,
}

/// A running impostor. Ends when dropped.
#[derive(Debug)]
pub struct Impostor {
    address: SocketAddr,
    lies: Arc<Lies>,
    slowness: watch::Sender<Option<Duration>>,
    _accepting: JoinSet<()>,
}

impl Impostor {
    /// Takes over a server. What devices are to be fooled have to be pointed here; operators still reach the genuine one.
    ///
    /// # Panics
    /// When there is no port, or the server's keys make no certificate.
    pub async fn of(server: &TestServer) -> Self {
        let keys = Arc::clone(&server.app().keys);
        let tls = Tls::start(&Options::default(), Arc::clone(&keys), Utc::now()).expect("the authority signs a server");
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let address = listener.local_addr().expect("a listener has an address");
        let lies = Arc::new(Lies::default());
        let genuine = Genuine { channel: server.channel(), keys, lies: Arc::clone(&lies) };
        let mut accepting = JoinSet::new();
        let slowness = watch::Sender::default();
        accepting.spawn(accept(listener, Arc::new(tls), genuine, slowness.subscribe()));
        Self { address, lies, slowness, _accepting: accepting }
    }

    /// Returns where devices are to connect.
    #[must_use]
    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// Returns what makes it slow: answers that begin from then on come byte by byte, with so long a wait before each. Not at
    /// all for `None`.
    #[must_use]
    pub fn slowness(&self) -> watch::Sender<Option<Duration>> {
        self.slowness.clone()
    }

    /// Returns what it answers.
    #[must_use]
    pub fn lies(&self) -> &Lies {
        &self.lies
    }
}

async fn accept(listener: TcpListener, tls: Arc<Tls>, genuine: Genuine, slowness: watch::Receiver<Option<Duration>>) {
    let services = Routes::new(UpdateServiceServer::new(genuine.clone()))
        .add_service(EnrollmentServiceServer::new(genuine))
        .prepare()
        .into_axum_router();
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        let (tls, services, slowness) = (Arc::clone(&tls), services.clone(), slowness.clone());
        connections.spawn(async move {
            stream.set_nodelay(true).ok();
            let Ok((stream, peer)) = tls.accept(stream).await else { return };
            let peer = Arc::new(peer);
            let services = services
                .map_request(move |mut request: HttpRequest<Incoming>| {
                    request.extensions_mut().insert(Arc::clone(&peer));
                    request.map(Body::new)
                })
                .map_response(move |response: HttpResponse<Body>| match *slowness.borrow() {
                    Some(wait) => response.map(|body| Body::new(StreamBody::new(trickling(body, wait)))),
                    None => response,
                });
            let builder = auto::Builder::new(TokioExecutor::new());
            // A device that breaks off is none of the attacker's concern.
            builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(services)).await.ok();
        });
    }
}

/// Cuts a body into single bytes, and waits before each.
fn trickling(body: Body, wait: Duration) -> impl Stream<Item = Result<Frame<Bytes>, axum::Error>> + Send {
    let bytes = BodyStream::new(body).flat_map(|frame| {
        let frames = match frame.map(Frame::into_data) {
            Ok(Ok(data)) => data.iter().map(|byte| Ok(Frame::data(Bytes::copy_from_slice(&[*byte])))).collect(),
            Ok(Err(other)) => vec![Ok(other)],
            Err(error) => vec![Err(error)],
        };
        stream::iter(frames)
    });
    bytes.then(move |byte| async move {
        sleep(wait).await;
        byte
    })
}

/// The way to the genuine server.
#[derive(Debug, Clone)]
struct Genuine {
    channel: Channel,
    keys: Arc<Keyring>,
    lies: Arc<Lies>,
}

impl Genuine {
    /// The same channel in the name of a device, or of nobody.
    fn in_the_name_of(&self, device: Option<DeviceId>) -> Authorized {
        let session = |device| Bearer::new(&self.keys.session().session(device, Utc::now()).to_string());
        Authorized::new(self.channel.clone(), device.map_or_else(Bearer::anonymous, session))
    }

    fn updates(&self, device: Option<DeviceId>) -> UpdateServiceClient<Authorized> {
        UpdateServiceClient::new(self.in_the_name_of(device)).max_decoding_message_size(MAX_ANSWER_BYTES)
    }

    fn enrollment(&self, device: Option<DeviceId>) -> EnrollmentServiceClient<Authorized> {
        EnrollmentServiceClient::new(self.in_the_name_of(device))
    }
}

/// Reads who asks and what.
fn asked<Q>(request: Request<Q>) -> Asked<Q> {
    let device = match request.extensions().get::<Arc<PeerIdentity>>().map(Arc::as_ref) {
        Some(PeerIdentity::Device(certificate)) => Some(certificate.device),
        Some(PeerIdentity::None | PeerIdentity::Proxy | PeerIdentity::Foreign(_)) | None => None,
    };
    Asked { device, request: request.into_inner() }
}

/// Passes a call on, and answers with what the lie makes of the answer.
macro_rules! passed_on {
    ($self:ident, $service:ident, $rpc:ident, $request:ident, $read:expr) => {{
        let asked = asked($request);
        let truth = $self.$service(asked.device).$rpc(asked.request.clone()).await;
        $self.lies.$rpc.answer(&asked, truth.map(Response::into_inner).map($read)).map(Response::new)
    }};
    ($self:ident, $service:ident, $rpc:ident, $request:ident) => {
        passed_on!($self, $service, $rpc, $request, std::convert::identity)
    };
}

fn boxed<T: 'static>(answers: impl Stream<Item = Result<T, Status>> + Send + 'static) -> Answers<T> {
    Box::pin(answers)
}

#[tonic::async_trait]
impl UpdateService for Genuine {
    type WatchStream = Answers<WatchResponse>;
    type DownloadStream = Answers<DownloadResponse>;

    async fn check_in(&self, request: Request<CheckInRequest>) -> Result<Response<CheckInResponse>, Status> {
        passed_on!(self, updates, check_in, request)
    }

    async fn watch(&self, request: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        passed_on!(self, updates, watch, request, boxed)
    }

    async fn download(&self, request: Request<DownloadRequest>) -> Result<Response<Self::DownloadStream>, Status> {
        passed_on!(self, updates, download, request, boxed)
    }

    async fn report_progress(
        &self,
        request: Request<ReportProgressRequest>,
    ) -> Result<Response<ReportProgressResponse>, Status> {
        passed_on!(self, updates, report_progress, request)
    }

    async fn report_inventory(
        &self,
        request: Request<ReportInventoryRequest>,
    ) -> Result<Response<ReportInventoryResponse>, Status> {
        passed_on!(self, updates, report_inventory, request)
    }
}

#[tonic::async_trait]
impl EnrollmentService for Genuine {
    async fn get_trust_anchors(
        &self,
        request: Request<GetTrustAnchorsRequest>,
    ) -> Result<Response<GetTrustAnchorsResponse>, Status> {
        passed_on!(self, enrollment, get_trust_anchors, request)
    }

    async fn enroll(&self, request: Request<EnrollRequest>) -> Result<Response<EnrollResponse>, Status> {
        passed_on!(self, enrollment, enroll, request)
    }

    async fn renew_certificate(
        &self,
        request: Request<RenewCertificateRequest>,
    ) -> Result<Response<RenewCertificateResponse>, Status> {
        passed_on!(self, enrollment, renew_certificate, request)
    }

    async fn create_challenge(
        &self,
        request: Request<CreateChallengeRequest>,
    ) -> Result<Response<CreateChallengeResponse>, Status> {
        passed_on!(self, enrollment, create_challenge, request)
    }

    async fn create_session(
        &self,
        request: Request<CreateSessionRequest>,
    ) -> Result<Response<CreateSessionResponse>, Status> {
        passed_on!(self, enrollment, create_session, request)
    }
}
