//! The connection to the server: what the agent asks and tells, in the agent's own words.
//!
//! Wire types stay in here. Every error says what the caller can do about it. Nothing is tried again here, but for what
//! `access` does about credentials: the callers know how urgent it is.

mod access;
mod channel;
mod chunks;
mod enrollment;
mod error;
mod metadata;
mod offer;
mod report;

use std::sync::Arc;
use std::time::Duration;

use ota_domain::Sha256Digest;
use ota_domain::deployment::Verdict;
use ota_domain::device::Running;
use ota_domain::inventory::Inventory;
use ota_proto::convert;
use ota_proto::device::v1 as wire;
use ota_proto::device::v1::update_service_client::UpdateServiceClient;
use ota_trust::device::Update;
use prost::Message as _;
use tokio::time::timeout;
use tonic::{Request, Response, Status};

use access::Transport;
pub use access::{Access, Credentials};
pub use chunks::{Chunks, MAX_PIECE_BYTES, check as check_piece};
pub use enrollment::{Anchors, Joined, anchors, enroll};
pub use error::{Class, Error};
pub use metadata::Question;
pub use offer::{Gate, Offer};
pub use report::{Report, Stage};

/// How long to wait for the whole of an answer, or for the beginning of a stream. An answer to a check-in may take longer.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// Most bytes of an answer. One carries several signed documents, of which targets alone may have 5 MiB
/// ([`Role::max_bytes`](ota_trust::metadata::Role::max_bytes)): the 4 MiB that are usual would keep a device from them.
const MAX_ANSWER_BYTES: usize = 16 * 1024 * 1024;

/// The server as one device sees it.
#[derive(Debug, Clone)]
pub struct Client {
    access: Arc<Access>,
    check_in_limit: Duration,
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
    /// Makes a client for one device, which waits so long for the whole answer to a check-in.
    pub fn new(access: Arc<Access>, check_in_limit: Duration) -> Self {
        Self { access, check_in_limit }
    }

    /// Returns the access that the calls are made with.
    pub fn access(&self) -> &Arc<Access> {
        &self.access
    }

    /// Makes a call that answers once, within a limit.
    async fn ask<Q, A, F>(
        &self,
        request: Q,
        limit: Duration,
        call: impl Fn(UpdateServiceClient<Transport>, Request<Q>) -> F,
    ) -> Result<A, Error>
    where
        Q: Clone,
        F: Future<Output = Result<Response<A>, Status>>,
    {
        let call = |transport| {
            let service = UpdateServiceClient::new(transport).max_decoding_message_size(MAX_ANSWER_BYTES);
            let answer = call(service, timed(request.clone()));
            answered(limit, answer)
        };
        self.access.call(call).await
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
            trust_fault: convert::device::trust_fault::to_wire(check_in.trust.fault).into(),
        };
        let answer = self
            .ask(request, self.check_in_limit, async |mut service, request| service.check_in(request).await)
            .await?;
        Ok(Answer::from_wire(answer))
    }

    /// Opens the doorbell.
    pub async fn watch(&self) -> Result<Bell, Error> {
        let call = |transport| async {
            answered(CALL_TIMEOUT, UpdateServiceClient::new(transport).watch(wire::WatchRequest {})).await
        };
        Ok(Bell(self.access.call(call).await?))
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
        let call = |transport| {
            let request = request.clone();
            async { answered(CALL_TIMEOUT, UpdateServiceClient::new(transport).download(request)).await }
        };
        Ok(Chunks::new(self.access.call(call).await?, offset))
    }

    /// Tells how far a deployment is.
    pub async fn report(&self, report: &Report<'_>) -> Result<Verdict, Error> {
        let answer = self
            .ask(report.to_wire(), CALL_TIMEOUT, async |mut service, request| service.report_progress(request).await)
            .await?;
        Ok(match answer.verdict() {
            wire::Verdict::Abort => Verdict::Abort,
            // A verdict this agent does not know must not stop an update.
            wire::Verdict::Continue | wire::Verdict::Unspecified => Verdict::Continue,
        })
    }

    /// Offers the inventory by its checksum, and sends it if the server asks.
    pub async fn report_inventory(&self, sha256: Sha256Digest, inventory: &Inventory) -> Result<(), Error> {
        let checksum = wire::ReportInventoryRequest { sha256: sha256.0.to_vec().into(), inventory: None };
        let call = async |mut service: UpdateServiceClient<Transport>, request| service.report_inventory(request).await;
        let answer = self.ask(checksum.clone(), CALL_TIMEOUT, call).await?;
        if answer.inventory_wanted {
            let inventory = Some(convert::device::inventory::to_wire(inventory.clone()));
            let body = wire::ReportInventoryRequest { inventory, ..checksum };
            self.ask(body, CALL_TIMEOUT, call).await?;
        }
        Ok(())
    }
}

/// Waits for the whole of an answer, which a server may send byte by byte, or for the beginning of a stream, which may live
/// for ever.
async fn answered<T>(limit: Duration, call: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, Error> {
    match timeout(limit, call).await {
        Ok(answer) => Ok(answer?.into_inner()),
        Err(_) => Err(Error::Unreachable { reason: format!("no whole answer within {} s", limit.as_secs()) }),
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
