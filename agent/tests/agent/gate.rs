//! The scripted server's identity side: its authority, what it enrols, and whom it lets in.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::{TimeDelta, Utc};
use ota_domain::secret::{EnrollmentString, Secret};
use ota_domain::{DeviceId, EnrollTokenId};
use ota_proto::device::v1 as wire;
use ota_proto::device::v1::enrollment_service_server::EnrollmentService;
use ota_tls::CertificateDer;
use ota_trust::pin::Pin;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, PublicKeyData, SanType,
};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, ServerConfig, SignatureScheme};
use tonic::{Code, Extensions, Request, Response, Status};
use uuid::Uuid;

use crate::peer::{Script, refusal};

pub(crate) const TOKEN: EnrollTokenId = EnrollTokenId(Uuid::from_u128(1));
pub(crate) const DEVICE: DeviceId = DeviceId(Uuid::from_u128(2));

/// The authority, and what came to it.
pub(crate) struct Gate {
    certificate: CertificateDer<'static>,
    public_key: Vec<u8>,
    issuer: Issuer<'static, KeyPair>,
    pub(crate) image_root: Vec<u8>,
    pub(crate) director_root: Vec<u8>,
    /// How long device certificates last from now.
    pub(crate) lifetime: TimeDelta,
    /// Something in front ends TLS.
    pub(crate) is_behind_proxy: bool,
    /// How many answers to an enrolment get lost.
    pub(crate) lost_answers: u32,
    pub(crate) enrollments: Vec<wire::EnrollRequest>,
    pub(crate) renewals: u32,
    pub(crate) sessions: u32,
    /// Raw public key of the device.
    key: Vec<u8>,
}

impl Default for Gate {
    fn default() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let certificate = params.self_signed(&key).unwrap().der().clone();
        Self {
            certificate,
            public_key: key.subject_public_key_info(),
            issuer: Issuer::new(params, key),
            image_root: b"image root".to_vec(),
            director_root: b"director root".to_vec(),
            lifetime: TimeDelta::days(7),
            is_behind_proxy: false,
            lost_answers: 0,
            enrollments: Vec::new(),
            renewals: 0,
            sessions: 0,
            key: Vec::new(),
        }
    }
}

impl Gate {
    pub(crate) fn string(&self) -> EnrollmentString {
        let pin = Pin::of(&self.public_key, &self.image_root, &self.director_root).0;
        EnrollmentString { token: TOKEN, secret: Secret([7; 32]), pin }
    }

    /// Says what another server says, with none of its keys.
    pub(crate) fn pretend_to_be(&mut self, other: &Self) {
        self.certificate = other.certificate.clone();
        self.image_root.clone_from(&other.image_root);
        self.director_root.clone_from(&other.director_root);
    }

    pub(crate) fn pem(&self) -> String {
        ota_tls::write_certificate(&self.certificate)
    }

    /// TLS settings that ask for a client's certificate and take any.
    pub(crate) fn server_config(&self) -> ServerConfig {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let leaf = params.signed_by(&key, &self.issuer).unwrap().der().clone();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(Arc::new(AnyClient))
            .with_single_cert(vec![leaf], rustls::pki_types::PrivatePkcs8KeyDer::from(key.serialize_der()).into())
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        config
    }

    /// Lets a caller in or says why not, as the real gate does.
    pub(crate) fn admit<T>(&self, request: &Request<T>) -> Result<(), Status> {
        if let Some(bearer) = request.metadata().get("authorization") {
            let is_current = bearer.to_str().unwrap() == format!("Bearer {}", self.session());
            return if is_current { Ok(()) } else { Err(refusal(Code::Unauthenticated, "CREDENTIAL_INVALID")) };
        }
        match self.shown(request.extensions()) {
            None => Err(refusal(Code::Unauthenticated, "CREDENTIAL_MISSING")),
            Some(certificate) => {
                let (_, certificate) = x509_parser::parse_x509_certificate(&certificate).unwrap();
                if certificate.validity().not_after.timestamp() < Utc::now().timestamp() {
                    return Err(refusal(Code::Unauthenticated, "CERTIFICATE_EXPIRED"));
                }
                Ok(())
            }
        }
    }

    fn shown(&self, extensions: &Extensions) -> Option<CertificateDer<'static>> {
        type Info = tonic::transport::server::TlsConnectInfo<tonic::transport::server::TcpConnectInfo>;
        let certificates = extensions.get::<Info>()?.peer_certs()?;
        certificates.first().filter(|_| !self.is_behind_proxy).cloned()
    }

    fn session(&self) -> String {
        format!("otas_session_{}", self.sessions)
    }

    /// Forgets the sessions it gave, as a server with another key does.
    pub(crate) fn forget_sessions(&mut self) {
        self.sessions += 100;
    }

    fn certify(&mut self, request: &[u8]) -> Vec<bytes::Bytes> {
        let mut request = CertificateSigningRequestParams::from_der(&request.to_vec().into()).unwrap();
        self.key = request.public_key.der_bytes().to_vec();
        let name = format!("urn:ota:device:{DEVICE}");
        request.params.subject_alt_names = vec![SanType::URI(name.try_into().unwrap())];
        request.params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let now = std::time::SystemTime::now();
        request.params.not_before = (now - Duration::from_secs(3600)).into();
        let end = Utc::now() + self.lifetime;
        request.params.not_after = std::time::SystemTime::from(end).into();
        vec![request.signed_by(&self.issuer).unwrap().der().to_vec().into()]
    }
}

/// Serves the device's way in, out of the script's gate.
pub(crate) struct Enrollment(pub(crate) Arc<Mutex<Script>>);

#[tonic::async_trait]
impl EnrollmentService for Enrollment {
    async fn get_trust_anchors(
        &self,
        _: Request<wire::GetTrustAnchorsRequest>,
    ) -> Result<Response<wire::GetTrustAnchorsResponse>, Status> {
        let gate = &self.0.lock().unwrap().gate;
        Ok(Response::new(wire::GetTrustAnchorsResponse {
            certificate_authority: gate.certificate.to_vec().into(),
            image_root: gate.image_root.clone().into(),
            director_root: gate.director_root.clone().into(),
        }))
    }

    async fn enroll(&self, request: Request<wire::EnrollRequest>) -> Result<Response<wire::EnrollResponse>, Status> {
        let gate = &mut self.0.lock().unwrap().gate;
        let request = request.into_inner();
        let certificate_chain = gate.certify(&request.certificate_request);
        gate.enrollments.push(request);
        if gate.lost_answers > 0 {
            gate.lost_answers -= 1;
            return Err(refusal(Code::Unavailable, "DATABASE_UNAVAILABLE"));
        }
        let state = wire::EnrollmentState::Accepted.into();
        Ok(Response::new(wire::EnrollResponse { device: DEVICE.to_string(), state, certificate_chain }))
    }

    async fn renew_certificate(
        &self,
        request: Request<wire::RenewCertificateRequest>,
    ) -> Result<Response<wire::RenewCertificateResponse>, Status> {
        let gate = &mut self.0.lock().unwrap().gate;
        match gate.admit(&request) {
            Err(status) if gate.shown(request.extensions()).is_none() => return Err(status),
            Ok(()) | Err(_) => {}
        }
        gate.renewals += 1;
        let certificate_chain = gate.certify(&request.into_inner().certificate_request);
        Ok(Response::new(wire::RenewCertificateResponse { certificate_chain }))
    }

    async fn create_challenge(
        &self,
        _: Request<wire::CreateChallengeRequest>,
    ) -> Result<Response<wire::CreateChallengeResponse>, Status> {
        Ok(Response::new(wire::CreateChallengeResponse { challenge: b"challenge".to_vec().into() }))
    }

    async fn create_session(
        &self,
        request: Request<wire::CreateSessionRequest>,
    ) -> Result<Response<wire::CreateSessionResponse>, Status> {
        let gate = &mut self.0.lock().unwrap().gate;
        let request = request.into_inner();
        let algorithm = &aws_lc_rs::signature::ECDSA_P256_SHA256_ASN1;
        let key = aws_lc_rs::signature::UnparsedPublicKey::new(algorithm, &gate.key);
        let signed = [b"ota-session-v1\0", DEVICE.0.as_bytes().as_slice(), b"challenge"].concat();
        let is_proven = request.device == DEVICE.to_string() && key.verify(&signed, &request.signature).is_ok();
        if !is_proven {
            return Err(refusal(Code::Unauthenticated, "CREDENTIAL_INVALID"));
        }
        gate.sessions += 1;
        let lifetime = Some(prost_types::Duration { seconds: 900, nanos: 0 });
        Ok(Response::new(wire::CreateSessionResponse { token: gate.session(), lifetime }))
    }
}

#[derive(Debug)]
struct AnyClient;

impl ClientCertVerifier for AnyClient {
    fn root_hint_subjects(&self) -> &[rustls::DistinguishedName] {
        &[]
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: rustls::pki_types::UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("only TLS 1.3 here".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}
