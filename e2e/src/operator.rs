//! Somebody with an API token: the typed clients of the admin API, and the steps that most tests begin with.

use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use crc_fast::{CrcAlgorithm, checksum};
use ota_domain::{Sha256Digest, role};
use ota_proto::admin::v1::{
    ApiToken, CreateApiTokenRequest, CreateEnrollTokenRequest, CreateReleaseRequest, CreateRolloutRequest,
    CreateUploadRequest, Deployment, Device, DeviceList, EnrollToken, Event, GetDeviceRequest, GetRolloutRequest,
    Installer, ListDeploymentsRequest, ListEventsRequest, Release, Role, Rollout, Target, Upload, UploadPayloadRequest,
    access_service_client::AccessServiceClient, create_upload_response::Presence,
    device_service_client::DeviceServiceClient, enroll_token_service_client::EnrollTokenServiceClient,
    event_service_client::EventServiceClient, group_service_client::GroupServiceClient,
    package_service_client::PackageServiceClient, rollout_service_client::RolloutServiceClient,
    status_service_client::StatusServiceClient, target::Choice, trust_service_client::TrustServiceClient,
};
use sha2::{Digest as _, Sha256};
use tonic::{Status, transport::Channel};

use crate::{
    credential::{self, Authorized, Bearer},
    device::TestDevice,
};

/// Bytes in a message of an upload.
pub const PIECE_BYTES: usize = 256 * 1024;

/// Somebody with an API token.
#[derive(Debug, Clone)]
pub struct Operator {
    url: String,
    channel: Channel,
    bearer: Bearer,
}

macro_rules! clients {
    ($($(#[$doc:meta])* $name:ident $client:ident,)*) => {
        impl Operator {
            $($(#[$doc])*
            #[must_use]
            pub fn $name(&self) -> $client<Authorized> {
                $client::with_interceptor(self.channel.clone(), self.bearer.clone())
            })*
        }
    };
}

clients! {
    /// Calls `AccessService`.
    access AccessServiceClient,
    /// Calls `DeviceService`.
    devices DeviceServiceClient,
    /// Calls `EnrollTokenService`.
    enroll_tokens EnrollTokenServiceClient,
    /// Calls `EventService`.
    events EventServiceClient,
    /// Calls `GroupService`.
    groups GroupServiceClient,
    /// Calls `PackageService`.
    packages PackageServiceClient,
    /// Calls `RolloutService`.
    rollouts RolloutServiceClient,
    /// Calls `StatusService`.
    status StatusServiceClient,
    /// Calls `TrustService`.
    trust TrustServiceClient,
}

impl Operator {
    /// Calls the server at `url` with `token`.
    #[must_use]
    pub fn new(url: &str, token: &str) -> Self {
        Self { url: url.to_owned(), channel: credential::connect(url), bearer: Bearer::new(token) }
    }

    /// Calls the server at `url` without a credential.
    #[must_use]
    pub fn anonymous(url: &str) -> Self {
        Self { url: url.to_owned(), channel: credential::connect(url), bearer: Bearer::anonymous() }
    }

    /// Calls another server with the same token.
    #[must_use]
    pub fn at(&self, url: &str) -> Self {
        Self { url: url.to_owned(), channel: credential::connect(url), bearer: self.bearer.clone() }
    }

    /// Returns the credential it calls with.
    #[must_use]
    pub fn bearer(&self) -> Bearer {
        self.bearer.clone()
    }
}

/// The steps that most tests begin with. They panic when the server refuses: a test of refusals calls the clients.
impl Operator {
    /// Makes a token with this role, and calls with that.
    ///
    /// # Panics
    /// When refused.
    pub async fn appoint(&self, role: role::Role) -> Self {
        let api_token =
            ApiToken { display_name: role.as_str().to_owned(), role: wire_role(role).into(), ..Default::default() };
        let request = CreateApiTokenRequest { api_token: Some(api_token) };
        let made = self.access().create_api_token(request).await.expect("an admin makes a token").into_inner();
        Self::new(&self.url, &made.secret)
    }

    /// Makes an enrolment token and returns its enrolment string.
    ///
    /// # Panics
    /// When refused.
    pub async fn enrollment_string(&self, enroll_token: EnrollToken) -> String {
        let request = CreateEnrollTokenRequest { enroll_token: Some(enroll_token) };
        let made =
            self.enroll_tokens().create_enroll_token(request).await.expect("a deployer makes an enrolment token");
        made.into_inner().enrollment_string
    }

    /// Enrols a new device of the hardware type `test`, accepted at once.
    ///
    /// # Panics
    /// When refused.
    pub async fn enroll(&self) -> TestDevice {
        let string = self.enrollment_string(EnrollToken { max_uses: 1, ..Default::default() }).await;
        TestDevice::enroll(&self.url, &string, "test").await.expect("a device enrols")
    }

    /// Uploads a payload, unless the server has it.
    ///
    /// # Panics
    /// When refused.
    pub async fn upload(&self, payload: &Bytes) -> Sha256Digest {
        let digest = Sha256Digest(Sha256::digest(payload).into());
        let upload = Upload { sha256: digest.to_string(), size_bytes: length(payload), ..Default::default() };
        let request = CreateUploadRequest { upload: Some(upload) };
        let made = self.packages().create_upload(request).await.expect("a publisher announces a payload").into_inner();
        match made.presence.expect("an answer says what there is") {
            Presence::Payload(_) => {}
            Presence::Upload(upload) => {
                let pieces = pieces(&upload.name, payload, upload.offset);
                let sent = self.packages().upload_payload(tokio_stream::iter(pieces)).await;
                sent.expect("a publisher uploads a payload");
            }
        }
        digest
    }

    /// Publishes a release that installs these bytes as a file, on any hardware. Makes the package when there is none.
    ///
    /// # Panics
    /// When refused.
    pub async fn publish(&self, package: &str, version: &str, payload: &Bytes) -> Release {
        let release = Release {
            installer: Installer::File.into(),
            payload: format!("payloads/{}", self.upload(payload).await),
            ..Default::default()
        };
        self.create_release(package, version, release).await.expect("a publisher publishes a release")
    }

    /// Publishes a release and signs it, so that it can be assigned. Makes the package when there is none.
    ///
    /// # Errors
    /// When refused.
    pub async fn create_release(&self, package: &str, version: &str, release: Release) -> Result<Release, Status> {
        let release = self.create_unsigned_release(package, version, release).await?;
        self.sign(&release).await?;
        Ok(Release { is_signed: true, ..release })
    }

    /// Publishes a release that no signed list has yet. Makes the package when there is none.
    ///
    /// # Errors
    /// When refused.
    pub async fn create_unsigned_release(
        &self,
        package: &str,
        version: &str,
        release: Release,
    ) -> Result<Release, Status> {
        let request = CreateReleaseRequest {
            parent: format!("packages/{package}"),
            version: version.to_owned(),
            release: Some(release),
            create_package: true,
            validate_only: false,
        };
        let made = self.packages().create_release(request).await?.into_inner();
        Ok(made.release.expect("an answer has the release"))
    }

    /// Assigns a release to devices.
    ///
    /// # Panics
    /// When refused.
    pub async fn assign(&self, release: &Release, devices: &[&TestDevice]) -> Rollout {
        let names = devices.iter().map(|device| device.name()).collect();
        let choice = Choice::Devices(DeviceList { names });
        self.create_rollout(release, choice).await.expect("a deployer starts a rollout")
    }

    /// Starts a rollout.
    ///
    /// # Errors
    /// When refused.
    pub async fn create_rollout(&self, release: &Release, choice: Choice) -> Result<Rollout, Status> {
        let rollout = Rollout {
            release: release.name.clone(),
            target: Some(Target { choice: Some(choice) }),
            ..Default::default()
        };
        let request = CreateRolloutRequest { rollout_id: String::new(), rollout: Some(rollout) };
        let made = self.rollouts().create_rollout(request).await?.into_inner();
        Ok(made.rollout.expect("an answer has the rollout"))
    }

    /// Reads a rollout again.
    ///
    /// # Panics
    /// When refused.
    pub async fn rollout(&self, name: &str) -> Rollout {
        let read = self.rollouts().get_rollout(GetRolloutRequest { name: name.to_owned() }).await;
        read.expect("anybody reads a rollout").into_inner().rollout.expect("an answer has the rollout")
    }

    /// Reads a device, by its resource name.
    ///
    /// # Panics
    /// When refused.
    pub async fn device(&self, name: &str) -> Device {
        let read = self.devices().get_device(GetDeviceRequest { name: name.to_owned() }).await;
        read.expect("anybody reads a device").into_inner().device.expect("an answer has the device")
    }

    /// Lists a device's deployments, newest first.
    ///
    /// # Panics
    /// When refused.
    pub async fn deployments(&self, device: &str) -> Vec<Deployment> {
        let request = ListDeploymentsRequest { device: device.to_owned(), ..Default::default() };
        let read = self.rollouts().list_deployments(request).await.expect("anybody lists deployments");
        read.into_inner().deployments
    }

    /// Lists the newest events that concern a device, newest first.
    ///
    /// # Panics
    /// When refused.
    pub async fn events_of(&self, device: &str) -> Vec<Event> {
        let request = ListEventsRequest { device: device.to_owned(), page_size: 1_000, ..Default::default() };
        self.events().list_events(request).await.expect("anybody lists events").into_inner().events
    }
}

fn wire_role(role: role::Role) -> Role {
    match role {
        role::Role::Viewer => Role::Viewer,
        role::Role::Publisher => Role::Publisher,
        role::Role::Deployer => Role::Deployer,
        role::Role::Admin => Role::Admin,
    }
}

fn length(bytes: &[u8]) -> i64 {
    i64::try_from(bytes.len()).expect("a payload that fits into memory")
}

/// Cuts what is left of a payload into the messages of an upload.
///
/// # Panics
/// When `offset` lies beyond the payload.
#[must_use]
pub fn pieces(upload: &str, payload: &Bytes, offset: i64) -> Vec<UploadPayloadRequest> {
    let mut start = usize::try_from(offset).expect("an offset from 0");
    assert!(start <= payload.len(), "the offset {start} lies beyond the payload");
    let mut pieces = Vec::new();
    while start < payload.len() {
        let data = payload.slice(start..payload.len().min(start + PIECE_BYTES));
        pieces.push(UploadPayloadRequest {
            name: if pieces.is_empty() { upload.to_owned() } else { String::new() },
            offset: i64::try_from(start).expect("a payload that fits into memory"),
            crc32c: crc32c(&data),
            data: data.clone(),
        });
        start += data.len();
    }
    pieces
}

/// Returns the checksum that goes with a piece.
#[must_use]
pub fn crc32c(data: &[u8]) -> u32 {
    u32::try_from(checksum(CrcAlgorithm::Crc32Iscsi, data)).expect("32 bits")
}

/// Makes bytes that no other call in this process has made, so that no payload is there already.
#[must_use]
pub fn unique_payload(length: usize) -> Bytes {
    static MADE: AtomicU32 = AtomicU32::new(1);
    let mut bytes = vec![0_u8; length];
    let mut state = u64::from(MADE.fetch_add(1, Ordering::Relaxed)) << 32 | u64::from(std::process::id());
    for byte in &mut bytes {
        // SplitMix64, by Sebastiano Vigna: cheap, and nothing compresses it.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        *byte = (mixed >> 56) as u8;
    }
    Bytes::from(bytes)
}
