//! `EnrollmentService`.

use bytes::Bytes;
use chrono::Utc;
use ota_domain::{Violation, secret::parse_token_id};
use ota_proto::{
    convert::{self, device::enrollment as wire},
    device::v1::{
        CreateChallengeRequest, CreateChallengeResponse, CreateSessionRequest, CreateSessionResponse, EnrollRequest,
        EnrollResponse, EnrollmentState, GetTrustAnchorsRequest, GetTrustAnchorsResponse, RenewCertificateRequest,
        RenewCertificateResponse, enrollment_service_server::EnrollmentService,
    },
};
use rustls::pki_types::CertificateDer;
use tonic::{Request, Response, Status};

use super::record;
use crate::{
    app::{self, App, Error},
    auth::session::SESSION_LIFETIME,
    ca::{self, DeviceKey},
    grpc::caller,
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
        let wanted = request.get_ref();
        let key = key(&wanted.certificate_request);
        let (enrollment, key) = both(wire::enrollment(wanted), key).map_err(Error::Invalid)?;
        let enrolled = app::enrollment::enroll(&self.app, &caller(&request), &enrollment, &key, Utc::now()).await?;
        Ok(Response::new(EnrollResponse {
            device: enrolled.device.to_string(),
            state: EnrollmentState::from(enrolled.admission).into(),
            certificate_chain: vec![der(&enrolled.certificate.certificate)],
        }))
    }

    async fn get_trust_anchors(
        &self,
        request: Request<GetTrustAnchorsRequest>,
    ) -> Result<Response<GetTrustAnchorsResponse>, Status> {
        let token = parse_token_id(&request.get_ref().token_id).map_err(|rule| Error::invalid("token_id", rule))?;
        let anchors = app::identity::trust_anchors(&self.app, token).await?;
        Ok(Response::new(GetTrustAnchorsResponse {
            certificate_authority: der(&anchors.certificate_authority),
            image_root: anchors.image_root.into(),
            director_root: anchors.director_root.into(),
        }))
    }

    async fn create_challenge(
        &self,
        _: Request<CreateChallengeRequest>,
    ) -> Result<Response<CreateChallengeResponse>, Status> {
        let challenge = app::identity::create_challenge(&self.app, Utc::now());
        Ok(Response::new(CreateChallengeResponse { challenge: challenge.into() }))
    }

    async fn create_session(
        &self,
        request: Request<CreateSessionRequest>,
    ) -> Result<Response<CreateSessionResponse>, Status> {
        let wanted = request.get_ref();
        let device = wanted.device.parse().map_err(|rule| Error::invalid("device", rule))?;
        let (challenge, signature) = (&wanted.challenge, &wanted.signature);
        let session = app::identity::create_session(&self.app, device, challenge, signature, Utc::now()).await?;
        Ok(Response::new(CreateSessionResponse {
            token: session.to_string(),
            lifetime: Some(convert::duration(SESSION_LIFETIME)),
        }))
    }

    async fn renew_certificate(
        &self,
        request: Request<RenewCertificateRequest>,
    ) -> Result<Response<RenewCertificateResponse>, Status> {
        let key = key(&request.get_ref().certificate_request).map_err(Error::Invalid)?;
        let record = record(request.extensions());
        let issued = app::identity::renew(&self.app, &record, &key, Utc::now()).await?;
        Ok(Response::new(RenewCertificateResponse { certificate_chain: vec![der(&issued.certificate)] }))
    }
}

/// The key of a certificate request.
fn key(certificate_request: &[u8]) -> Result<DeviceKey, Vec<Violation>> {
    ca::parse_request(certificate_request)
        .map_err(|rule| vec![Violation { field: "certificate_request".to_owned(), description: rule.to_string() }])
}

/// Both, or what is wrong with either.
fn both<A, B>(one: Result<A, Vec<Violation>>, other: Result<B, Vec<Violation>>) -> Result<(A, B), Vec<Violation>> {
    match (one, other) {
        (Ok(one), Ok(other)) => Ok((one, other)),
        (one, other) => Err(one.err().into_iter().chain(other.err()).flatten().collect()),
    }
}

fn der(certificate: &CertificateDer<'_>) -> Bytes {
    Bytes::copy_from_slice(certificate)
}
