//! One call of every RPC that goes well, and what these speak of.

use bytes::Bytes;
use chrono::Utc;
use ota_domain::{Sha256Digest, secret::EnrollmentString};
use ota_e2e::{
    Operator, TestDevice, TestKey, TestServer,
    credential::Bearer,
    device::{payload, runs},
    operator::{crc32c, unique_payload},
    raw::RawClient,
    signing,
};
use ota_proto::{
    admin::v1::{self as admin, create_upload_response::Presence, target::Choice},
    device::v1 as device,
};
use ota_server::auth::policy::{self, Demand};
use ota_trust::{
    image::Catalog,
    key::{PrivateKey, Signer as _},
    metadata::{self, Role},
};
use prost::Message;
use uuid::Uuid;

/// One call.
#[derive(Debug)]
pub(crate) struct Call {
    /// The RPC.
    pub(crate) path: &'static str,
    /// The request, encoded.
    pub(crate) message: Bytes,
}

/// What there is to speak of. Each thing that a call uses up is there for that call alone.
#[derive(Debug)]
pub(crate) struct World {
    /// A device in the middle of its update, which the server has in memory.
    known_device: TestDevice,
    /// One that never called since it enrolled.
    pub(crate) unknown_device: TestDevice,
    operator: Bearer,
    deployment: device::Deployment,
    pending: [String; 2],
    accepted: String,
    rejected: String,
    enrollment: EnrollmentString,
    enroll_tokens: [String; 2],
    api_token: String,
    release: String,
    spare_release: String,
    yankable: String,
    payload: Sha256Digest,
    spare_payload: Sha256Digest,
    uploads: [admin::Upload; 3],
    piece: Bytes,
    rollout: String,
    cancelable: [String; 2],
    failed: String,
    proof: device::CreateSessionRequest,
    targets: admin::PublishTargetsRequest,
    roots: admin::PublishRootsRequest,
}

impl World {
    pub(crate) async fn new(server: &TestServer) -> Self {
        let op = server.admin();
        let token = admin::EnrollToken { max_uses: 100, approval_required: true, ..Default::default() };
        let string = op.enrollment_string(token).await;
        let mut pending = Vec::new();
        for _ in 0..3 {
            pending.push(TestDevice::enroll(&server.url(), &string, "test").await.expect("a device enrols").name());
        }
        let rejected = pending.pop().expect("three devices");
        let request = admin::RejectDeviceRequest { name: rejected.clone() };
        op.devices().reject_device(request).await.expect("a device is rejected");
        let tokens = op.enroll_tokens().list_enroll_tokens(admin::ListEnrollTokensRequest::default()).await;
        let enroll_token = tokens.expect("tokens are listed").into_inner().enroll_tokens.remove(0).name;
        let spare = op.enrollment_string(admin::EnrollToken::default()).await;
        let spare: EnrollmentString = spare.parse().expect("an enrolment string");

        let package = admin::CreatePackageRequest { package_id: "empty".to_owned(), package: None };
        op.packages().create_package(package).await.expect("a package is created");
        let spare_release = op.publish("app", "0.1.0", &unique_payload(100)).await.name;
        let yankable = op.publish("app", "0.2.0", &unique_payload(100)).await.name;
        let bytes = unique_payload(1_000);
        let release = op.publish("app", "1.0.0", &bytes).await;
        let other = op.publish("other", "1.0.0", &unique_payload(100)).await;

        let known_device = op.enroll().await;
        let rollout = op.assign(&release, &[&known_device]).await.name;
        let deployment = known_device.granted().await;
        let (one, two) = (op.enroll().await, op.enroll().await);
        let cancelable_rollout = op.assign(&other, &[&one]).await.name;
        op.assign(&other, &[&two]).await;
        let cancelable_deployment = op.deployments(&two.name()).await.remove(0).name;
        let failing = op.enroll().await;
        op.assign(&other, &[&failing]).await;
        let failed = fail(&failing).await;

        let piece = unique_payload(10);
        let uploads = [
            upload(server, &piece).await,
            upload(server, &unique_payload(20)).await,
            upload(server, &unique_payload(30)).await,
        ];
        let made = op.access().create_api_token(token_request()).await.expect("a token is created").into_inner();
        let proof = prove(server, &known_device).await;
        let (targets, roots) = next_metadata(&op).await;
        Self {
            unknown_device: op.enroll().await,
            operator: op.bearer(),
            payload: Sha256Digest::try_from(payload(&deployment).sha256.as_ref()).expect("a digest"),
            known_device,
            deployment,
            pending: pending.try_into().expect("two devices"),
            accepted: op.enroll().await.name(),
            rejected,
            enroll_tokens: [enroll_token, format!("enrollTokens/{}", spare.token)],
            enrollment: string.parse().expect("an enrolment string"),
            api_token: made.api_token.expect("an answer has the token").name,
            release: release.name,
            spare_release,
            yankable,
            spare_payload: op.upload(&unique_payload(50)).await,
            uploads,
            piece,
            rollout,
            cancelable: [cancelable_rollout, cancelable_deployment],
            failed,
            proof,
            targets,
            roots,
        }
    }

    /// Who makes a call, so that it goes well.
    pub(crate) fn client(&self, server: &TestServer, call: &Call) -> RawClient {
        let bearer = match policy::demand(call.path).expect("every RPC has a row") {
            Demand::Nothing => Bearer::anonymous(),
            Demand::Device | Demand::EnrolledKey => self.known_device.bearer(),
            Demand::Operator(_) => self.operator.clone(),
        };
        RawClient::new(&server.url(), bearer)
    }
}

/// What may be published next.
async fn next_metadata(op: &Operator) -> (admin::PublishTargetsRequest, admin::PublishRootsRequest) {
    let repository = op.image_repository().await.expect("anybody reads the image repository");
    let mut catalog = Catalog::open(&repository).expect("the repository is whole");
    catalog.raise_floor(&"other".parse().expect("a name"), 1);
    let documents = catalog.publish(Utc::now(), &[signing::key()]).expect("the key signs").into_iter();
    let targets = admin::PublishTargetsRequest {
        expected_snapshot_version: repository.versions().snapshot.cast_signed(),
        documents: documents.map(|(role, bytes)| admin::TargetsDocument { role, document: bytes.into() }).collect(),
    };
    let root = repository.root().next(Utc::now() + Role::Root.lifetime());
    let image_root = metadata::sign(&root, &[]).expect("a root can be written").into();
    (targets, admin::PublishRootsRequest { image_root, ..Default::default() })
}

/// What begins a session of a device.
async fn prove(server: &TestServer, known: &TestDevice) -> device::CreateSessionRequest {
    let mut client = device::enrollment_service_client::EnrollmentServiceClient::new(server.channel());
    let challenge = client.create_challenge(device::CreateChallengeRequest {}).await.expect("anybody gets a challenge");
    let challenge = challenge.into_inner().challenge;
    let id = known.id().parse().expect("a device's id");
    let signature = known.key().prove(id, &challenge);
    device::CreateSessionRequest { device: known.id().to_owned(), challenge, signature }
}

impl World {
    /// One call of every RPC.
    pub(crate) fn calls(&self) -> Vec<Call> {
        vec![
            call(
                "/ota.device.v1.EnrollmentService/Enroll",
                device::EnrollRequest {
                    token_id: self.enrollment.token_id(),
                    secret: self.enrollment.secret(),
                    hardware: "test".to_owned(),
                    certificate_request: TestKey::generate().request(),
                    ..Default::default()
                },
            ),
            call(
                "/ota.device.v1.EnrollmentService/RenewCertificate",
                device::RenewCertificateRequest { certificate_request: self.known_device.key().request() },
            ),
            call(
                "/ota.device.v1.UpdateService/CheckIn",
                device::CheckInRequest {
                    running: vec![runs(&self.deployment)],
                    agent_version: "1.0.0".to_owned(),
                    ..Default::default()
                },
            ),
            call(
                "/ota.device.v1.UpdateService/ReportProgress",
                device::ReportProgressRequest {
                    deployment: self.deployment.deployment.clone(),
                    attempt: 1,
                    sequence: 1,
                    state: device::DeploymentState::Downloading.into(),
                    ..Default::default()
                },
            ),
            call(
                "/ota.device.v1.UpdateService/ReportInventory",
                device::ReportInventoryRequest {
                    sha256: vec![7; 32].into(),
                    inventory: Some(device::Inventory::default()),
                },
            ),
            call(
                "/ota.device.v1.UpdateService/Download",
                device::DownloadRequest { sha256: self.payload.0.to_vec().into(), ..Default::default() },
            ),
            call("/ota.device.v1.UpdateService/Watch", device::WatchRequest {}),
            call("/ota.admin.v1.AccessService/CreateApiToken", token_request()),
            call("/ota.admin.v1.AccessService/ListApiTokens", admin::ListApiTokensRequest::default()),
            call(
                "/ota.admin.v1.AccessService/RevokeApiToken",
                admin::RevokeApiTokenRequest { name: self.api_token.clone() },
            ),
            call("/ota.admin.v1.AccessService/GetCaller", admin::GetCallerRequest {}),
            call("/ota.admin.v1.DeviceService/GetDevice", admin::GetDeviceRequest { name: self.known_device.name() }),
            call("/ota.admin.v1.DeviceService/ListDevices", admin::ListDevicesRequest::default()),
            call(
                "/ota.admin.v1.DeviceService/UpdateDevice",
                admin::UpdateDeviceRequest {
                    device: Some(admin::Device {
                        name: self.known_device.name(),
                        labels: [("a".to_owned(), "b".to_owned())].into(),
                        ..Default::default()
                    }),
                    update_mask: mask("labels"),
                },
            ),
            call(
                "/ota.admin.v1.DeviceService/ApproveDevice",
                admin::ApproveDeviceRequest { name: self.pending[0].clone(), ..Default::default() },
            ),
            call(
                "/ota.admin.v1.DeviceService/RejectDevice",
                admin::RejectDeviceRequest { name: self.pending[1].clone() },
            ),
            call(
                "/ota.admin.v1.DeviceService/DecommissionDevice",
                admin::DecommissionDeviceRequest { name: self.accepted.clone() },
            ),
            call(
                "/ota.admin.v1.DeviceService/DeleteDevice",
                admin::DeleteDeviceRequest { name: self.rejected.clone() },
            ),
            call(
                "/ota.admin.v1.DeviceService/ExplainDevice",
                admin::ExplainDeviceRequest { name: self.known_device.name() },
            ),
            call(
                "/ota.admin.v1.EnrollTokenService/CreateEnrollToken",
                admin::CreateEnrollTokenRequest { enroll_token: Some(admin::EnrollToken::default()) },
            ),
            call(
                "/ota.admin.v1.EnrollTokenService/GetEnrollToken",
                admin::GetEnrollTokenRequest { name: self.enroll_tokens[0].clone() },
            ),
            call("/ota.admin.v1.EnrollTokenService/ListEnrollTokens", admin::ListEnrollTokensRequest::default()),
            call(
                "/ota.admin.v1.EnrollTokenService/RevokeEnrollToken",
                admin::RevokeEnrollTokenRequest { name: self.enroll_tokens[1].clone() },
            ),
            call("/ota.admin.v1.EventService/ListEvents", admin::ListEventsRequest::default()),
            call(
                "/ota.admin.v1.EventService/WatchEvents",
                admin::WatchEventsRequest { cursor: "0.0".to_owned(), ..Default::default() },
            ),
            call("/ota.admin.v1.GroupService/CreateGroup", admin::CreateGroupRequest::default()),
            call("/ota.admin.v1.GroupService/GetGroup", admin::GetGroupRequest::default()),
            call("/ota.admin.v1.GroupService/ListGroups", admin::ListGroupsRequest::default()),
            call("/ota.admin.v1.GroupService/UpdateGroup", admin::UpdateGroupRequest::default()),
            call("/ota.admin.v1.GroupService/DeleteGroup", admin::DeleteGroupRequest::default()),
            call(
                "/ota.admin.v1.PackageService/CreatePackage",
                admin::CreatePackageRequest { package_id: "made".to_owned(), package: None },
            ),
            call(
                "/ota.admin.v1.PackageService/GetPackage",
                admin::GetPackageRequest { name: "packages/app".to_owned() },
            ),
            call("/ota.admin.v1.PackageService/ListPackages", admin::ListPackagesRequest::default()),
            call(
                "/ota.admin.v1.PackageService/UpdatePackage",
                admin::UpdatePackageRequest {
                    package: Some(admin::Package {
                        name: "packages/app".to_owned(),
                        description: "changed".to_owned(),
                        ..Default::default()
                    }),
                    update_mask: mask("description"),
                },
            ),
            call(
                "/ota.admin.v1.PackageService/DeletePackage",
                admin::DeletePackageRequest { name: "packages/empty".to_owned() },
            ),
            call(
                "/ota.admin.v1.PackageService/CreateRelease",
                admin::CreateReleaseRequest {
                    parent: "packages/app".to_owned(),
                    version: "9.0.0".to_owned(),
                    release: Some(admin::Release {
                        installer: admin::Installer::File.into(),
                        payload: format!("payloads/{}", self.payload),
                        ..Default::default()
                    }),
                    ..Default::default()
                },
            ),
            call("/ota.admin.v1.PackageService/GetRelease", admin::GetReleaseRequest { name: self.release.clone() }),
            call(
                "/ota.admin.v1.PackageService/ListReleases",
                admin::ListReleasesRequest { parent: "packages/app".to_owned(), ..Default::default() },
            ),
            call(
                "/ota.admin.v1.PackageService/UpdateRelease",
                admin::UpdateReleaseRequest {
                    release: Some(admin::Release {
                        name: self.release.clone(),
                        notes: "changed".to_owned(),
                        ..Default::default()
                    }),
                    update_mask: mask("notes"),
                },
            ),
            call(
                "/ota.admin.v1.PackageService/YankRelease",
                admin::YankReleaseRequest { name: self.yankable.clone(), ..Default::default() },
            ),
            call(
                "/ota.admin.v1.PackageService/DeleteRelease",
                admin::DeleteReleaseRequest { name: self.spare_release.clone() },
            ),
            call("/ota.admin.v1.PackageService/CreateUpload", upload_request(&Bytes::from_static(b"announced"))),
            call(
                "/ota.admin.v1.PackageService/GetUpload",
                admin::GetUploadRequest { name: self.uploads[1].name.clone() },
            ),
            call(
                "/ota.admin.v1.PackageService/UploadPayload",
                admin::UploadPayloadRequest {
                    name: self.uploads[0].name.clone(),
                    offset: 0,
                    crc32c: crc32c(&self.piece),
                    data: self.piece.clone(),
                },
            ),
            call(
                "/ota.admin.v1.PackageService/DeleteUpload",
                admin::DeleteUploadRequest { name: self.uploads[2].name.clone() },
            ),
            call(
                "/ota.admin.v1.PackageService/GetPayload",
                admin::GetPayloadRequest { name: format!("payloads/{}", self.payload) },
            ),
            call(
                "/ota.admin.v1.PackageService/DeletePayload",
                admin::DeletePayloadRequest { name: format!("payloads/{}", self.spare_payload) },
            ),
            call(
                "/ota.admin.v1.RolloutService/CreateRollout",
                admin::CreateRolloutRequest { rollout_id: Uuid::now_v7().to_string(), rollout: Some(self.plan()) },
            ),
            call(
                "/ota.admin.v1.RolloutService/PreviewRollout",
                admin::PreviewRolloutRequest { rollout: Some(self.plan()) },
            ),
            call("/ota.admin.v1.RolloutService/GetRollout", admin::GetRolloutRequest { name: self.rollout.clone() }),
            call("/ota.admin.v1.RolloutService/ListRollouts", admin::ListRolloutsRequest::default()),
            call(
                "/ota.admin.v1.RolloutService/PauseRollout",
                admin::PauseRolloutRequest { name: self.rollout.clone() },
            ),
            call(
                "/ota.admin.v1.RolloutService/ResumeRollout",
                admin::ResumeRolloutRequest { name: self.rollout.clone() },
            ),
            call(
                "/ota.admin.v1.RolloutService/PromoteRollout",
                admin::PromoteRolloutRequest { name: self.rollout.clone() },
            ),
            call(
                "/ota.admin.v1.RolloutService/CancelRollout",
                admin::CancelRolloutRequest { name: self.cancelable[0].clone(), ..Default::default() },
            ),
            call(
                "/ota.admin.v1.RolloutService/GetDeployment",
                admin::GetDeploymentRequest { name: self.failed.clone() },
            ),
            call("/ota.admin.v1.RolloutService/ListDeployments", admin::ListDeploymentsRequest::default()),
            call(
                "/ota.admin.v1.RolloutService/CancelDeployment",
                admin::CancelDeploymentRequest { name: self.cancelable[1].clone() },
            ),
            call(
                "/ota.admin.v1.RolloutService/RetryDeployment",
                admin::RetryDeploymentRequest { name: self.failed.clone() },
            ),
            call("/ota.admin.v1.StatusService/GetStatus", admin::GetStatusRequest {}),
            call("/ota.admin.v1.TrustService/GetTrustStatus", admin::GetTrustStatusRequest {}),
            call(
                "/ota.admin.v1.TrustService/GetMetadata",
                admin::GetMetadataRequest {
                    repository: admin::Repository::Image.into(),
                    role: "targets".to_owned(),
                    version: 0,
                },
            ),
            call("/ota.admin.v1.TrustService/PublishTargets", self.targets.clone()),
            call("/ota.admin.v1.TrustService/PublishRoots", self.roots.clone()),
            call(
                "/ota.admin.v1.TrustService/AddTargetsKey",
                admin::AddTargetsKeyRequest {
                    public_key: PrivateKey::generate().expect("a key").public_key().to_spki_der().into(),
                },
            ),
            call(
                "/ota.admin.v1.TrustService/RotateServerKey",
                admin::RotateServerKeyRequest {
                    repository: admin::Repository::Director.into(),
                    role: "targets".to_owned(),
                },
            ),
            call(
                "/ota.admin.v1.TrustService/ExportDeviceMetadata",
                admin::ExportDeviceMetadataRequest {
                    device: self.known_device.name(),
                    lifetime: Some(prost_types::Duration { seconds: 3_600, nanos: 0 }),
                },
            ),
            call("/ota.admin.v1.AccessService/GetLoginOptions", admin::GetLoginOptionsRequest {}),
            call("/ota.admin.v1.EventService/ListEventSeals", admin::ListEventSealsRequest::default()),
            call(
                "/ota.admin.v1.PackageService/DownloadPayload",
                admin::DownloadPayloadRequest { name: format!("payloads/{}", self.payload), offset: 0 },
            ),
            call(
                "/ota.device.v1.EnrollmentService/GetTrustAnchors",
                device::GetTrustAnchorsRequest { token_id: self.enrollment.token_id() },
            ),
            call("/ota.device.v1.EnrollmentService/CreateChallenge", device::CreateChallengeRequest {}),
            call("/ota.device.v1.EnrollmentService/CreateSession", self.proof.clone()),
        ]
    }

    /// A rollout that can be started.
    fn plan(&self) -> admin::Rollout {
        let choice = Choice::Devices(admin::DeviceList { names: vec![self.unknown_device.name()] });
        let target = Some(admin::Target { choice: Some(choice) });
        admin::Rollout { release: self.release.clone(), target, ..Default::default() }
    }
}

fn call(path: &'static str, message: impl Message) -> Call {
    Call { path, message: message.encode_to_vec().into() }
}

/// Lets a device fail, and returns its deployment's name.
async fn fail(device: &TestDevice) -> String {
    let deployment = device.granted().await;
    let request = device::ReportProgressRequest {
        deployment: deployment.deployment.clone(),
        attempt: deployment.attempt,
        sequence: 1,
        state: device::DeploymentState::Failed.into(),
        failure: Some(device::Failure { code: device::FailureCode::Install.into(), ..Default::default() }),
        ..Default::default()
    };
    device.updates().report_progress(request).await.expect("a device reports");
    format!("deployments/{}", deployment.deployment)
}

async fn upload(server: &TestServer, bytes: &Bytes) -> admin::Upload {
    let request = upload_request(bytes);
    let made = server.admin().packages().create_upload(request).await.expect("an upload is created").into_inner();
    match made.presence {
        Some(Presence::Upload(upload)) => upload,
        Some(Presence::Payload(_)) | None => panic!("the server had these bytes already"),
    }
}

fn upload_request(bytes: &Bytes) -> admin::CreateUploadRequest {
    let sha256 = ota_e2e::device::sha256(bytes).to_string();
    let size_bytes = i64::try_from(bytes.len()).expect("a small payload");
    admin::CreateUploadRequest { upload: Some(admin::Upload { sha256, size_bytes, ..Default::default() }) }
}

fn token_request() -> admin::CreateApiTokenRequest {
    let api_token =
        admin::ApiToken { display_name: "spare".to_owned(), role: admin::Role::Viewer.into(), ..Default::default() };
    admin::CreateApiTokenRequest { api_token: Some(api_token) }
}

fn mask(path: &str) -> Option<prost_types::FieldMask> {
    Some(prost_types::FieldMask { paths: vec![path.to_owned()] })
}
