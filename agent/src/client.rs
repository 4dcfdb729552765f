//! The connection to the server: what the agent asks and tells, in the agent's own words.
//!
//! Wire types stay in here. Every error says what the caller can do about it. Nothing is tried again here: the callers
//! know how urgent it is.

mod chunks;
mod error;
mod metadata;
mod offer;
mod report;

use std::time::Duration;

use ota_domain::deployment::Verdict;
use ota_domain::device::{self, Running};
use ota_domain::inventory::Inventory;
use ota_domain::secret::{BearerToken, EnrollmentString};
use ota_domain::{DeviceId, Hardware, Sha256Digest};
use ota_proto::convert;
use ota_proto::device::v1 as wire;
use ota_proto::device::v1::enrollment_service_client::EnrollmentServiceClient;
use ota_proto::device::v1::update_service_client::UpdateServiceClient;
use ota_trust::device::Update;
use prost::Message as _;
use tokio::time::timeout;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status};

use crate::identity::Credential;
use crate::server_url::ServerUrl;
pub use chunks::Chunks;
pub use error::{Class, Error};
pub use metadata::Question;
pub use offer::{Gate, Offer};
pub use report::{Report, Stage};

/// How long to wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long to wait for the answer to a call that is no stream.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// How often a silent connection is asked for a sign of life, and how long it may take to give one. Holds the doorbell's
/// connection open through address translation as well.
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(15));

/// Bytes that the server may send ahead in one stream: what an interruption costs at most, beside the block in hand.
const STREAM_WINDOW_BYTES: u32 = 512 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;

/// Opens the channel to a server; it connects with the first call and again whenever it has to.
///
/// The one place that knows how a connection is made: encryption belongs here.
pub fn channel(server: &ServerUrl) -> Result<Channel, Error> {
    let endpoint = Endpoint::from(server.uri().clone())
        .user_agent(concat!("ota-agent/", env!("CARGO_PKG_VERSION")))
        .map_err(|error| Error::Unreachable { reason: error.to_string() })?
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_keep_alive_interval(KEEP_ALIVE.0)
        .keep_alive_timeout(KEEP_ALIVE.1)
        .keep_alive_while_idle(true);
    Ok(endpoint.connect_lazy())
}

/// Asks to join the fleet. Safe to repeat with the same credential.
pub async fn enroll(
    channel: Channel,
    string: &EnrollmentString,
    credential: &Credential,
    hardware: &Hardware,
    hardware_id: &str,
) -> Result<(DeviceId, device::State), Error> {
    let mut request = Request::new(wire::EnrollRequest {
        token_id: string.token.0.simple().to_string(),
        secret: bs58::encode(string.secret.0).into_string(),
        hardware: hardware.to_string(),
        hardware_id: hardware_id.to_owned(),
        credential: credential.secret.0.to_vec().into(),
        certificate_request: Default::default(),
    });
    request.set_timeout(CALL_TIMEOUT);
    let answer = EnrollmentServiceClient::new(channel).enroll(request).await?.into_inner();
    let device = answer.device.parse().map_err(|_| Error::nonsense("a device id that is none"))?;
    let state = match answer.state() {
        wire::EnrollmentState::Pending => device::State::Pending,
        wire::EnrollmentState::Accepted => device::State::Accepted,
        wire::EnrollmentState::Unspecified => return Err(Error::nonsense("no enrolment state")),
    };
    Ok((device, state))
}

/// Adds the device's credential to every call.
#[derive(Debug, Clone)]
struct Authorization(MetadataValue<Ascii>);

impl Interceptor for Authorization {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", self.0.clone());
        Ok(request)
    }
}

/// The server as one device sees it.
#[derive(Debug, Clone)]
pub struct Client {
    service: UpdateServiceClient<InterceptedService<Channel, Authorization>>,
}

/// What a check-in says.
#[derive(Debug)]
pub struct CheckIn<'a> {
    /// What runs.
    pub running: &'a [Running],
    /// Changes with every boot of the machine.
    pub boot_id: &'a str,
    /// IANA name of the machine's time zone, empty when it is not known.
    pub time_zone: &'a str,
    /// Checksum of the inventory.
    pub inventory: Sha256Digest,
    /// What the device trusts so far.
    pub trust: Question,
}

/// What a check-in answers.
#[derive(Debug)]
pub struct Answer {
    /// When to check in again.
    pub next_check_in: Option<Duration>,
    /// What should be done.
    pub offers: Vec<Offer>,
    /// The server lacks the inventory.
    pub inventory_wanted: bool,
    /// Newer metadata. Not verified.
    pub metadata: Option<Update>,
}

impl Answer {
    /// Reads an answer that came by another way than the network.
    pub fn read(bytes: &[u8]) -> Result<Self, Error> {
        let answer = wire::CheckInResponse::decode(bytes).map_err(|error| Error::nonsense(error.to_string()))?;
        Ok(Self::from_wire(answer))
    }

    fn from_wire(answer: wire::CheckInResponse) -> Self {
        Self {
            next_check_in: answer.next_check_in.as_ref().and_then(convert::from_duration),
            offers: answer.deployments.into_iter().filter_map(offer::read).collect(),
            inventory_wanted: answer.inventory_wanted,
            metadata: answer.metadata.map(metadata::update),
        }
    }
}

impl Client {
    /// Makes a client for one device.
    pub fn new(channel: Channel, bearer: &BearerToken) -> Self {
        let mut value =
            MetadataValue::try_from(format!("Bearer {bearer}")).expect("a bearer token is letters and digits");
        value.set_sensitive(true);
        Self { service: UpdateServiceClient::with_interceptor(channel, Authorization(value)) }
    }

    /// Says what runs and asks what should.
    pub async fn check_in(&self, check_in: CheckIn<'_>) -> Result<Answer, Error> {
        let request = wire::CheckInRequest {
            running: report::running(check_in.running),
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            boot_id: check_in.boot_id.to_owned(),
            inventory_sha256: check_in.inventory.0.to_vec().into(),
            time_zone: check_in.time_zone.to_owned(),
            nonce: check_in.trust.nonce.map(|nonce| nonce.to_vec().into()).unwrap_or_default(),
            metadata: check_in.trust.versions.as_ref().map(metadata::versions_to_wire),
            trust_fault: metadata::fault_to_wire(check_in.trust.fault).into(),
        };
        let answer = self.service.clone().check_in(timed(request)).await?.into_inner();
        Ok(Answer::from_wire(answer))
    }

    /// Opens the doorbell.
    pub async fn watch(&self) -> Result<Bell, Error> {
        let mut service = self.service.clone();
        let stream = opened(service.watch(wire::WatchRequest {})).await?;
        Ok(Bell(stream))
    }

    /// Asks for a payload from an offset to its end.
    pub async fn download(&self, payload: Sha256Digest, offset: u64) -> Result<Chunks, Error> {
        let request = wire::DownloadRequest {
            sha256: payload.0.to_vec().into(),
            encoding: wire::EncodingKind::Identity.into(),
            offset: i64::try_from(offset).map_err(|_| Error::nonsense("a payload of more than 2^63 bytes"))?,
            length: 0,
            base_sha256: Default::default(),
        };
        let mut service = self.service.clone();
        let stream = opened(service.download(request)).await?;
        Ok(Chunks::new(stream, offset))
    }

    /// Tells how far a deployment is.
    pub async fn report(&self, report: &Report<'_>) -> Result<Verdict, Error> {
        let answer = self.service.clone().report_progress(timed(report.to_wire())).await?.into_inner();
        Ok(match answer.verdict() {
            wire::Verdict::Abort => Verdict::Abort,
            // A verdict this agent does not know must not stop an update.
            wire::Verdict::Continue | wire::Verdict::Unspecified => Verdict::Continue,
        })
    }

    /// Offers the inventory by its checksum, and sends it if the server asks.
    pub async fn report_inventory(&self, sha256: Sha256Digest, inventory: &Inventory) -> Result<(), Error> {
        let checksum = wire::ReportInventoryRequest { sha256: sha256.0.to_vec().into(), inventory: None };
        let answer = self.service.clone().report_inventory(timed(checksum.clone())).await?.into_inner();
        if answer.inventory_wanted {
            let inventory = Some(convert::device::inventory::to_wire(inventory.clone()));
            let body = wire::ReportInventoryRequest { inventory, ..checksum };
            self.service.clone().report_inventory(timed(body)).await?;
        }
        Ok(())
    }
}

/// Waits until the server has begun to answer a streaming call; the stream itself may live for ever.
async fn opened<T>(call: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, Error> {
    match timeout(CALL_TIMEOUT, call).await {
        Ok(answer) => Ok(answer?.into_inner()),
        Err(_) => Err(Error::Unreachable { reason: format!("no answer within {} s", CALL_TIMEOUT.as_secs()) }),
    }
}

fn timed<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(CALL_TIMEOUT);
    request
}

/// An open doorbell.
#[derive(Debug)]
pub struct Bell(tonic::Streaming<wire::WatchResponse>);

impl Bell {
    /// Waits for a ring and returns how long to wait before the check-in. `None` when the server closed the door.
    pub async fn rung(&mut self) -> Result<Option<Duration>, Error> {
        let ring = self.0.message().await?;
        Ok(ring.map(|ring| ring.delay.as_ref().and_then(convert::from_duration).unwrap_or_default()))
    }
}
