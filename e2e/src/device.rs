//! A device that speaks the device API by itself, without the agent: so that a test decides what it says and when.

use std::time::Duration;

use bytes::Bytes;
use ota_domain::{Sha256Digest, secret::EnrollmentString};
use ota_proto::device::v1::{
    CheckInRequest, CheckInResponse, CreateChallengeRequest, CreateSessionRequest, Deployment, DeploymentState,
    DownloadRequest, EncodingKind, EnrollRequest, EnrollmentState, MetadataVersions, Payload, RenewCertificateRequest,
    ReportProgressRequest, RunningRelease, TrustFault, Verdict, WatchRequest, WatchResponse,
    enrollment_service_client::EnrollmentServiceClient, update_service_client::UpdateServiceClient,
};
use ota_tls::{Identity, SeenCertificates, ServerTrust};
use tonic::{Status, Streaming, transport::Channel};

use crate::{
    credential::{self, Authorized, Bearer},
    eventually,
    key::TestKey,
    operator::crc32c,
};

/// How long a broken test takes to fail.
const GRANT_LIMIT: Duration = Duration::from_secs(20);

/// A device with its own key. It calls with a session, which works over any transport.
#[derive(Debug, Clone)]
pub struct TestDevice {
    id: String,
    state: EnrollmentState,
    key: TestKey,
    certificate: Bytes,
    bearer: Bearer,
    channel: Channel,
}

/// A check-in of a device that has checked in before: with less metadata it would be brought up to date each time.
fn asking() -> CheckInRequest {
    CheckInRequest {
        agent_version: "1.0.0".to_owned(),
        metadata: Some(MetadataVersions {
            image_root: 1,
            image_timestamp: 1,
            image_snapshot: 1,
            director_root: 1,
            director: 1,
        }),
        ..Default::default()
    }
}

impl TestDevice {
    /// Enrols with a fresh key.
    ///
    /// # Errors
    /// When refused.
    pub async fn enroll(url: &str, enrollment_string: &str, hardware: &str) -> Result<Self, Status> {
        Self::enroll_with(url, enrollment_string, hardware, &TestKey::generate()).await
    }

    /// Enrols with this key.
    ///
    /// # Errors
    /// When refused.
    ///
    /// # Panics
    /// When the string is no enrolment string, or the answer holds no device.
    pub async fn enroll_with(
        url: &str,
        enrollment_string: &str,
        hardware: &str,
        key: &TestKey,
    ) -> Result<Self, Status> {
        let request = EnrollRequest { hardware: hardware.to_owned(), ..enroll_request(enrollment_string, key) };
        Self::enroll_by(credential::connect(url), request, key).await
    }

    /// Enrols with this request, which is for this key, and begins a session.
    ///
    /// # Errors
    /// When refused.
    ///
    /// # Panics
    /// When the answer holds no device or no certificate.
    pub async fn enroll_by(channel: Channel, request: EnrollRequest, key: &TestKey) -> Result<Self, Status> {
        let mut answer = EnrollmentServiceClient::new(channel.clone()).enroll(request).await?.into_inner();
        let bearer = session(&channel, &answer.device, key).await?;
        Ok(Self {
            state: answer.state(),
            certificate: answer.certificate_chain.pop().expect("an answer has a certificate"),
            id: answer.device,
            key: key.clone(),
            bearer,
            channel,
        })
    }

    /// The same device at another server.
    #[must_use]
    pub fn at(&self, url: &str) -> Self {
        Self { channel: credential::connect(url), ..self.clone() }
    }

    /// The same device at a server over TLS, calling with the certificate it got instead of a session.
    #[must_use]
    pub fn certified(&self, url: &str) -> Self {
        self.showing(url, self.certificate())
    }

    /// The same device at a server over TLS, calling with this certificate for its key.
    ///
    /// # Panics
    /// When the certificate is for another key.
    #[must_use]
    pub fn showing(&self, url: &str, certificate: Bytes) -> Self {
        let chain = vec![certificate.to_vec().into()];
        let identity = Identity::new(chain, self.key.to_pkcs8().into()).expect("a certificate and its key");
        let trust = ServerTrust::Pinning(SeenCertificates::default());
        let channel = credential::connect_as(url, trust, Some(identity));
        Self { bearer: Bearer::anonymous(), channel, ..self.clone() }
    }

    /// The same device, showing neither a session nor a certificate.
    #[must_use]
    pub fn anonymous(&self) -> Self {
        Self { bearer: Bearer::anonymous(), ..self.clone() }
    }

    /// Asks for a fresh certificate with this request, and returns it.
    ///
    /// # Errors
    /// When refused.
    ///
    /// # Panics
    /// When the answer holds no certificate.
    pub async fn renew(&self, certificate_request: Bytes) -> Result<Bytes, Status> {
        let mut client = EnrollmentServiceClient::with_interceptor(self.channel.clone(), self.bearer.clone());
        let answer = client.renew_certificate(RenewCertificateRequest { certificate_request }).await?;
        Ok(answer.into_inner().certificate_chain.pop().expect("an answer has a certificate"))
    }

    /// Returns its id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Returns its resource name, as operators write it.
    #[must_use]
    pub fn name(&self) -> String {
        format!("devices/{}", self.id)
    }

    /// Returns what it was told when it enrolled.
    #[must_use]
    pub fn state(&self) -> EnrollmentState {
        self.state
    }

    /// Returns its key.
    #[must_use]
    pub fn key(&self) -> &TestKey {
        &self.key
    }

    /// Returns the certificate it was given when it enrolled, in DER.
    #[must_use]
    pub fn certificate(&self) -> Bytes {
        self.certificate.clone()
    }

    /// Returns the session it calls with.
    #[must_use]
    pub fn bearer(&self) -> Bearer {
        self.bearer.clone()
    }

    /// Calls `UpdateService`.
    #[must_use]
    pub fn updates(&self) -> UpdateServiceClient<Authorized> {
        UpdateServiceClient::with_interceptor(self.channel.clone(), self.bearer.clone())
    }

    /// Checks in, running nothing.
    ///
    /// # Errors
    /// When refused.
    pub async fn check_in(&self) -> Result<CheckInResponse, Status> {
        self.check_in_running(&[]).await
    }

    /// Checks in, running these.
    ///
    /// # Errors
    /// When refused.
    pub async fn check_in_running(&self, running: &[RunningRelease]) -> Result<CheckInResponse, Status> {
        let request = CheckInRequest { running: running.to_vec(), ..asking() };
        Ok(self.updates().check_in(request).await?.into_inner())
    }

    /// Checks in, running nothing and not believing what the last check-in brought. Unspecified is belief.
    ///
    /// # Errors
    /// When refused.
    pub async fn check_in_doubting(&self, fault: TrustFault) -> Result<CheckInResponse, Status> {
        let request = CheckInRequest { trust_fault: fault.into(), ..asking() };
        Ok(self.updates().check_in(request).await?.into_inner())
    }

    /// Checks in until that brings a deployment: a replica hears of an assignment soon, not at once.
    ///
    /// # Panics
    /// When it is refused, or brings none or several.
    pub async fn granted(&self) -> Deployment {
        eventually("a check-in brings a deployment", GRANT_LIMIT, async || {
            let mut answer = self.check_in().await.expect("a device checks in");
            assert!(answer.deployments.len() < 2, "{:?}", answer.deployments);
            answer.deployments.pop()
        })
        .await
    }

    /// Holds the doorbell.
    ///
    /// # Errors
    /// When refused.
    pub async fn watch(&self) -> Result<Streaming<WatchResponse>, Status> {
        Ok(self.updates().watch(WatchRequest {}).await?.into_inner())
    }

    /// Downloads a range and checks every piece of it: its place, its length, its checksum. 0 means up to the end.
    ///
    /// # Errors
    /// When refused.
    ///
    /// # Panics
    /// When a piece is not as the API promises.
    pub async fn download(&self, sha256: &[u8], offset: u64, length: u64) -> Result<Vec<u8>, Status> {
        const LONGEST_PIECE: usize = 256 * 1024;
        let request = DownloadRequest {
            sha256: sha256.to_vec().into(),
            encoding: EncodingKind::Identity.into(),
            offset: i64::try_from(offset).expect("an offset that the API can say"),
            length: i64::try_from(length).expect("a length that the API can say"),
            ..Default::default()
        };
        let mut stream = self.updates().download(request).await?.into_inner();
        let mut bytes = Vec::new();
        while let Some(piece) = stream.message().await? {
            assert_eq!(u64::try_from(piece.offset), Ok(offset + bytes.len() as u64), "pieces come in order");
            assert!((1..=LONGEST_PIECE).contains(&piece.data.len()), "a piece has {} bytes", piece.data.len());
            assert_eq!(piece.crc32c, crc32c(&piece.data), "the checksum of the piece at {}", piece.offset);
            bytes.extend_from_slice(&piece.data);
        }
        Ok(bytes)
    }

    /// Reports a state in which nothing went wrong.
    ///
    /// # Errors
    /// When refused.
    pub async fn report(
        &self,
        deployment: &Deployment,
        sequence: i64,
        state: DeploymentState,
    ) -> Result<Verdict, Status> {
        let request = ReportProgressRequest {
            deployment: deployment.deployment.clone(),
            attempt: deployment.attempt,
            sequence,
            state: state.into(),
            running: match state {
                DeploymentState::Succeeded => vec![runs(deployment)],
                DeploymentState::Unspecified
                | DeploymentState::Downloading
                | DeploymentState::Installing
                | DeploymentState::Rebooting
                | DeploymentState::Verifying
                | DeploymentState::Failed
                | DeploymentState::RolledBack
                | DeploymentState::Rejected => Vec::new(),
            },
            ..Default::default()
        };
        Ok(self.updates().report_progress(request).await?.into_inner().verdict())
    }

    /// Does all of a deployment: downloads, reports each state, and checks in with the new release.
    ///
    /// # Panics
    /// When anything is refused, or the payload is not what it should be.
    pub async fn complete(&self, deployment: &Deployment) {
        let payload = payload(deployment);
        let states = [
            DeploymentState::Downloading,
            DeploymentState::Installing,
            DeploymentState::Verifying,
            DeploymentState::Succeeded,
        ];
        for (sequence, state) in (1..).zip(states) {
            if state == DeploymentState::Installing {
                let bytes = self.download(&payload.sha256, 0, 0).await.expect("a device downloads");
                assert_eq!(sha256(&bytes).0, *payload.sha256);
            }
            self.report(deployment, sequence, state).await.expect("a device reports");
        }
        self.check_in_running(&[runs(deployment)]).await.expect("a device checks in");
    }
}

/// Returns a request to enrol a machine of the hardware type `test` with this key.
///
/// # Panics
/// When the string is no enrolment string.
#[must_use]
pub fn enroll_request(enrollment_string: &str, key: &TestKey) -> EnrollRequest {
    let string: EnrollmentString = enrollment_string.parse().expect("an enrolment string");
    EnrollRequest {
        token_id: string.token_id(),
        secret: string.secret(),
        hardware: "test".to_owned(),
        certificate_request: key.request(),
        ..Default::default()
    }
}

/// Begins a session.
///
/// # Errors
/// When refused.
///
/// # Panics
/// When the id is none.
pub async fn session(channel: &Channel, device: &str, key: &TestKey) -> Result<Bearer, Status> {
    let mut client = EnrollmentServiceClient::new(channel.clone());
    let challenge = client.create_challenge(CreateChallengeRequest {}).await?.into_inner().challenge;
    let signature = key.prove(device.parse().expect("a device's id"), &challenge);
    let request = CreateSessionRequest { device: device.to_owned(), challenge, signature };
    Ok(Bearer::new(&client.create_session(request).await?.into_inner().token))
}

/// Returns the payload of a deployment.
///
/// # Panics
/// When it has none.
#[must_use]
pub fn payload(deployment: &Deployment) -> Payload {
    deployment.payload.clone().expect("a deployment has a payload")
}

/// Returns what a device says when it runs a deployment's release.
///
/// # Panics
/// When the deployment has no payload.
#[must_use]
pub fn runs(deployment: &Deployment) -> RunningRelease {
    RunningRelease {
        package: deployment.package.clone(),
        version: deployment.version.clone(),
        payload_sha256: payload(deployment).sha256,
    }
}

/// Names bytes.
#[must_use]
pub fn sha256(bytes: &[u8]) -> Sha256Digest {
    use sha2::{Digest as _, Sha256};
    Sha256Digest(Sha256::digest(bytes).into())
}
