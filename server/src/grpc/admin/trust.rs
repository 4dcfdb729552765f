//! `TrustService`.

use std::time::Duration;

use chrono::TimeDelta;
use ota_domain::{DeviceId, Violations};
use ota_proto::{
    admin::v1::{self, trust_service_server::TrustService},
    convert,
    device::v1::CheckInResponse,
};
use ota_trust::{
    key::PublicKey,
    metadata::{MAX_VERSION, Mode, Role},
};
use prost::Message as _;
use tonic::{Request, Response, Status};

use super::{named, now};
use crate::{
    app::{
        App, Error, check_in,
        trust::{self, NewRoots, RotatedKey},
    },
    db::trust_metadata::Repository,
    grpc::{caller, device::update},
};

/// Most bytes in the documents of one call: all lists of some 200,000 releases at once, as they come when the number of bins
/// changes or the key of all of them does.
pub const MAX_DOCUMENTS_BYTES: usize = 64 * 1024 * 1024;
/// Largest request taken: the documents, and room for what is around them.
pub const MAX_REQUEST_BYTES: usize = MAX_DOCUMENTS_BYTES + 64 * 1024;
/// Most characters in a role's name.
const MAX_ROLE: usize = 64;
/// How long exported documents may be good for.
const LIFETIMES: std::ops::RangeInclusive<Duration> = Duration::from_secs(60)..=Duration::from_secs(90 * 24 * 3600);

/// Keeps the signed metadata that devices trust.
#[derive(Debug)]
pub struct Trust {
    app: App,
}

impl Trust {
    /// Serves it from `app`.
    #[must_use]
    pub fn new(app: App) -> Self {
        Self { app }
    }
}

type Answer<T> = Result<Response<T>, Status>;

fn repository(repository: i32, violations: &mut Violations) -> Option<Repository> {
    match v1::Repository::try_from(repository) {
        Ok(v1::Repository::Image) => Some(Repository::Image),
        Ok(v1::Repository::Director) => Some(Repository::Director),
        Ok(v1::Repository::Unspecified) | Err(_) => {
            violations.add("repository", "must be REPOSITORY_IMAGE or REPOSITORY_DIRECTOR");
            None
        }
    }
}

fn wire_repository(repository: Repository) -> v1::Repository {
    match repository {
        Repository::Image => v1::Repository::Image,
        Repository::Director => v1::Repository::Director,
    }
}

fn wire_mode(mode: Mode) -> v1::TrustMode {
    match mode {
        Mode::Managed => v1::TrustMode::Managed,
        Mode::Adopted => v1::TrustMode::Adopted,
    }
}

fn role_name(role: &str, violations: &mut Violations) {
    let good = (1..=MAX_ROLE).contains(&role.len()) && role.bytes().all(|byte| byte.is_ascii_graphic());
    violations.require(good, "role", "must be the name of a role");
}

fn role_status(status: trust::RoleStatus) -> v1::RoleStatus {
    v1::RoleStatus {
        repository: wire_repository(status.repository).into(),
        role: status.role.as_str().to_owned(),
        version: status.newest.map_or(0, |(version, _)| version.cast_signed()),
        expire_time: status.newest.map(|(_, expires)| convert::timestamp(expires)),
        threshold: i32::try_from(status.threshold).unwrap_or(i32::MAX),
        keys: status
            .keys
            .into_iter()
            .map(|key| v1::KeyStatus { key_id: key.id.to_string(), held_by_server: key.held_by_server })
            .collect(),
    }
}

/// A role's name and its document.
type Named = (String, Vec<u8>);

fn documents(request: v1::PublishTargetsRequest) -> Result<(u64, Vec<Named>), Error> {
    let mut violations = Violations::default();
    let expected = u64::try_from(request.expected_snapshot_version).ok().filter(|version| *version > 0);
    violations.require(expected.is_some(), "expected_snapshot_version", "must be a version, from 1");
    violations.require(!request.documents.is_empty(), "documents", "must have at least one entry");
    let bytes: usize = request.documents.iter().map(|document| document.document.len()).sum();
    violations.require(
        bytes <= MAX_DOCUMENTS_BYTES,
        "documents",
        format!("must have at most {MAX_DOCUMENTS_BYTES} bytes in all"),
    );
    for (index, document) in request.documents.iter().enumerate() {
        let is_targets = document.role == Role::Targets.as_str() || document.role.starts_with("bin-");
        let is_good = is_targets && document.role.len() <= MAX_ROLE;
        violations.require(is_good, format!("documents[{index}].role"), "must be targets, or a bin of it");
    }
    let documents = request.documents.into_iter().map(|document| (document.role, document.document.to_vec())).collect();
    violations.finish(expected.map(|expected| (expected, documents))).map_err(Error::Invalid)
}

fn roots(request: v1::PublishRootsRequest) -> Result<NewRoots, Error> {
    let mut violations = Violations::default();
    let limit = Role::Root.max_bytes();
    for (field, bytes) in [("image_root", &request.image_root), ("director_root", &request.director_root)] {
        violations.require(bytes.len() <= limit, field, format!("must have at most {limit} bytes"));
    }
    if request.image_root.is_empty() && request.director_root.is_empty() {
        violations.add("image_root", "must be given, or director_root");
    }
    let given = |bytes: bytes::Bytes| (!bytes.is_empty()).then(|| bytes.to_vec());
    let roots = NewRoots { image: given(request.image_root), director: given(request.director_root) };
    violations.finish(Some(roots)).map_err(Error::Invalid)
}

fn exported(request: v1::ExportDeviceMetadataRequest) -> Result<(DeviceId, TimeDelta), Error> {
    let mut violations = Violations::default();
    let device = match named::<DeviceId>("device", &request.device, "devices/{device}") {
        Ok(device) => Some(device),
        Err(Error::Invalid(faults)) => {
            for fault in faults {
                violations.add(fault.field, fault.description);
            }
            None
        }
        Err(error) => return Err(error),
    };
    let lifetime = request.lifetime.and_then(|lifetime| Duration::try_from(lifetime).ok());
    let lifetime = lifetime.filter(|lifetime| LIFETIMES.contains(lifetime));
    violations.require(lifetime.is_some(), "lifetime", "must be between one minute and 90 days");
    let lifetime = lifetime.and_then(|lifetime| TimeDelta::from_std(lifetime).ok());
    violations.finish(device.zip(lifetime)).map_err(Error::Invalid)
}

#[tonic::async_trait]
impl TrustService for Trust {
    async fn get_trust_status(&self, _: Request<v1::GetTrustStatusRequest>) -> Answer<v1::GetTrustStatusResponse> {
        let status = trust::status(&self.app).await?;
        Ok(Response::new(v1::GetTrustStatusResponse {
            mode: wire_mode(status.mode).into(),
            roles: status.roles.into_iter().map(role_status).collect(),
            certificate_authority: self.app.keys.authority().certificate().to_vec().into(),
        }))
    }

    async fn get_metadata(&self, request: Request<v1::GetMetadataRequest>) -> Answer<v1::GetMetadataResponse> {
        let request = request.into_inner();
        let mut violations = Violations::default();
        let repository = repository(request.repository, &mut violations);
        role_name(&request.role, &mut violations);
        let version = u64::try_from(request.version).ok().filter(|version| *version <= MAX_VERSION);
        violations.require(version.is_some(), "version", "must be a version, or 0 for the newest");
        let (repository, version) = violations.finish(repository.zip(version)).map_err(Error::Invalid)?;
        let version = (version != 0).then_some(version);
        let stored = trust::document(&self.app, repository, &request.role, version).await?;
        let version = stored.version.cast_signed();
        Ok(Response::new(v1::GetMetadataResponse { document: stored.document.into(), version }))
    }

    async fn publish_targets(&self, request: Request<v1::PublishTargetsRequest>) -> Answer<v1::PublishTargetsResponse> {
        let caller = caller(&request);
        let (expected, documents) = documents(request.into_inner())?;
        let snapshot = trust::publish_targets(&self.app, &caller, expected, &documents, now()).await?;
        Ok(Response::new(v1::PublishTargetsResponse { snapshot_version: snapshot.cast_signed() }))
    }

    async fn publish_roots(&self, request: Request<v1::PublishRootsRequest>) -> Answer<v1::PublishRootsResponse> {
        let caller = caller(&request);
        let roots = roots(request.into_inner())?;
        let mode = trust::publish_roots(&self.app, &caller, &roots, now()).await?;
        Ok(Response::new(v1::PublishRootsResponse { mode: wire_mode(mode).into() }))
    }

    async fn add_targets_key(&self, request: Request<v1::AddTargetsKeyRequest>) -> Answer<v1::AddTargetsKeyResponse> {
        let caller = caller(&request);
        let key = PublicKey::from_spki_der(&request.get_ref().public_key)
            .map_err(|error| Error::invalid("public_key", error))?;
        let id = trust::add_targets_key(&self.app, &caller, &key, now()).await?;
        Ok(Response::new(v1::AddTargetsKeyResponse { key_id: id.to_string() }))
    }

    async fn rotate_server_key(
        &self,
        request: Request<v1::RotateServerKeyRequest>,
    ) -> Answer<v1::RotateServerKeyResponse> {
        let caller = caller(&request);
        let request = request.into_inner();
        let mut violations = Violations::default();
        let repository = repository(request.repository, &mut violations);
        let repository = violations.finish(repository).map_err(Error::Invalid)?;
        let rotated = RotatedKey::of(repository, &request.role)
            .ok_or_else(|| Error::invalid("role", "must be one whose key the server may replace"))?;
        let trust::Rotated { key, awaits_root } = trust::rotate(&self.app, &caller, rotated, now()).await?;
        let public_key = key.to_spki_der().into();
        Ok(Response::new(v1::RotateServerKeyResponse { key_id: key.id().to_string(), public_key, awaits_root }))
    }

    async fn export_device_metadata(
        &self,
        request: Request<v1::ExportDeviceMetadataRequest>,
    ) -> Answer<v1::ExportDeviceMetadataResponse> {
        let caller = caller(&request);
        let (device, lifetime) = exported(request.into_inner())?;
        let now = now();
        let export = check_in::export(&self.app, &caller, device, lifetime, now).await?;
        let mut payloads: Vec<String> =
            export.work.iter().map(|work| format!("payloads/{}", work.payload.sha256)).collect();
        payloads.sort();
        payloads.dedup();
        let answer = CheckInResponse {
            next_check_in: Some(convert::duration(self.app.settings.check_in_interval)),
            deployments: export.work.iter().map(update::deployment).collect(),
            inventory_wanted: false,
            metadata: Some(update::metadata(export.update)),
            server_time: Some(convert::timestamp(now)),
        };
        Ok(Response::new(v1::ExportDeviceMetadataResponse {
            check_in_response: answer.encode_to_vec().into(),
            payloads,
        }))
    }
}
