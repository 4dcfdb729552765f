//! `EnrollmentService`.

use chrono::Utc;
use ota_proto::{
    convert::device::enrollment as wire,
    device::v1::{
        CreateChallengeRequest, CreateChallengeResponse, CreateSessionRequest, CreateSessionResponse, EnrollRequest,
        EnrollResponse, EnrollmentState, GetTrustAnchorsRequest, GetTrustAnchorsResponse, RenewCertificateRequest,
        RenewCertificateResponse, enrollment_service_server::EnrollmentService,
    },
};
use tonic::{Request, Response, Status};

use crate::{
    app::{App, Error, enrollment},
    grpc::{caller, not_implemented},
};

/// Turns an enrolment token into a device identity.
#[derive(Debug)]
pub struct Enrollment {
    app: App,
}

impl Enrollment {
    /// Serves from `app`.
    #[must_use]
    pub fn new(app: App) -> Self {
        Self { app }
    }
}

#[tonic::async_trait]
impl EnrollmentService for Enrollment {
    async fn enroll(&self, request: Request<EnrollRequest>) -> Result<Response<EnrollResponse>, Status> {
        let enrollment = wire::enrollment(request.get_ref()).map_err(Error::Invalid)?;
        let enrolled = enrollment::enroll(&self.app, &caller(&request), &enrollment, Utc::now()).await?;
        Ok(Response::new(EnrollResponse {
            device: enrolled.device.to_string(),
            state: EnrollmentState::from(enrolled.admission).into(),
            ..EnrollResponse::default()
        }))
    }

    async fn get_trust_anchors(
        &self,
        _: Request<GetTrustAnchorsRequest>,
    ) -> Result<Response<GetTrustAnchorsResponse>, Status> {
        Err(not_implemented("trust anchors"))
    }

    async fn create_challenge(
        &self,
        _: Request<CreateChallengeRequest>,
    ) -> Result<Response<CreateChallengeResponse>, Status> {
        Err(not_implemented("sessions"))
    }

    async fn create_session(
        &self,
        _: Request<CreateSessionRequest>,
    ) -> Result<Response<CreateSessionResponse>, Status> {
        Err(not_implemented("sessions"))
    }

    async fn renew_certificate(
        &self,
        _: Request<RenewCertificateRequest>,
    ) -> Result<Response<RenewCertificateResponse>, Status> {
        Err(not_implemented("device certificates"))
    }
}
