//! A server that says of itself what it likes, and takes every secret.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use ota_proto::device::v1::{
    CreateChallengeRequest, CreateChallengeResponse, CreateSessionRequest, CreateSessionResponse, EnrollRequest,
    EnrollResponse, GetTrustAnchorsRequest, GetTrustAnchorsResponse, RenewCertificateRequest, RenewCertificateResponse,
    enrollment_service_server::{EnrollmentService, EnrollmentServiceServer},
};
use tokio::{net::TcpListener, task::JoinSet};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, transport::Server};

/// A running liar, without TLS. Ends when dropped.
pub(super) struct Liar {
    pub(super) address: SocketAddr,
    enrollments: Arc<Mutex<Vec<EnrollRequest>>>,
    _task: JoinSet<()>,
}

impl Liar {
    pub(super) async fn start(anchors: GetTrustAnchorsResponse) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let address = listener.local_addr().expect("a listener has an address");
        let enrollments = Arc::default();
        let service = Service { anchors, enrollments: Arc::clone(&enrollments) };
        let serving = Server::builder().add_service(EnrollmentServiceServer::new(service));
        let mut task = JoinSet::new();
        task.spawn(async move {
            serving.serve_with_incoming(TcpListenerStream::new(listener)).await.expect("a server that serves");
        });
        Self { address, enrollments, _task: task }
    }

    /// Returns what machines asked to enrol with.
    pub(super) fn enrollments(&self) -> Vec<EnrollRequest> {
        self.enrollments.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

struct Service {
    anchors: GetTrustAnchorsResponse,
    enrollments: Arc<Mutex<Vec<EnrollRequest>>>,
}

fn no<T>() -> Result<Response<T>, Status> {
    Err(Status::unavailable("it has what it wanted"))
}

#[tonic::async_trait]
impl EnrollmentService for Service {
    async fn get_trust_anchors(
        &self,
        _: Request<GetTrustAnchorsRequest>,
    ) -> Result<Response<GetTrustAnchorsResponse>, Status> {
        Ok(Response::new(self.anchors.clone()))
    }

    async fn enroll(&self, request: Request<EnrollRequest>) -> Result<Response<EnrollResponse>, Status> {
        self.enrollments.lock().unwrap_or_else(PoisonError::into_inner).push(request.into_inner());
        no()
    }

    async fn renew_certificate(
        &self,
        _: Request<RenewCertificateRequest>,
    ) -> Result<Response<RenewCertificateResponse>, Status> {
        no()
    }

    async fn create_challenge(
        &self,
        _: Request<CreateChallengeRequest>,
    ) -> Result<Response<CreateChallengeResponse>, Status> {
        no()
    }

    async fn create_session(
        &self,
        _: Request<CreateSessionRequest>,
    ) -> Result<Response<CreateSessionResponse>, Status> {
        no()
    }
}
