//! A server that answers by script, also with what no honest server would send.

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use chrono::Utc;
use ota_agent::server_url::ServerUrl;
use ota_domain::Sha256Digest;
use ota_domain::release::Installer;
use ota_proto::device::v1 as wire;
use ota_proto::device::v1::enrollment_service_server::EnrollmentServiceServer;
use ota_proto::device::v1::update_service_server::{UpdateService, UpdateServiceServer};
use ota_trust::metadata::{Custom, Target};
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_stream::Stream;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Code, Request, Response, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::gate::{DEVICE, Enrollment, Gate};
use crate::signed::World;

const PIECE_BYTES: usize = 256 * 1024;

/// What one download does in place of what it should.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    /// Ends after so many bytes, as a broken connection does.
    BreakAfter(usize),
    /// Sends a piece that does not match its checksum.
    BadChecksum,
    /// Sends the right piece for the wrong place.
    BadOffset,
    /// Sends other bytes, with checksums that fit them.
    OtherBytes,
    /// Sends more than was asked for.
    Surplus,
    /// Refuses.
    Refuse(Code, &'static str),
}

#[derive(Default)]
pub(crate) struct Script {
    pub(crate) gate: Gate,
    /// Signs what is offered.
    world: Option<World>,
    payloads: HashMap<Vec<u8>, Vec<u8>>,
    offers: Vec<wire::Deployment>,
    faults: VecDeque<Fault>,
    refused_reports: u32,
    report_refusal: Option<(Code, &'static str)>,
    refused_check_ins: VecDeque<&'static str>,
    verdict: wire::Verdict,
    reports: Vec<wire::ReportProgressRequest>,
    downloads: Vec<i64>,
    check_ins: Vec<wire::CheckInRequest>,
    inventories: Vec<wire::ReportInventoryRequest>,
}

/// The server's end; ends with the test.
pub(crate) struct Peer {
    pub(crate) url: ServerUrl,
    script: Arc<Mutex<Script>>,
    _task: JoinSet<()>,
}

impl Peer {
    /// Starts a server without TLS, which devices work with by session.
    pub(crate) async fn start() -> Self {
        Self::start_with(false).await
    }

    /// Starts a server with TLS.
    pub(crate) async fn start_tls() -> Self {
        Self::start_with(true).await
    }

    async fn start_with(is_tls: bool) -> Self {
        let world = World::new(Utc::now());
        let mut script = Script { verdict: wire::Verdict::Continue, ..Script::default() };
        script.gate.image_root = world.image_root().to_vec();
        script.gate.director_root.clone_from(&world.director_root);
        script.world = Some(world);
        let script = Arc::new(Mutex::new(script));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let scheme = if is_tls { "https" } else { "http" };
        let url = format!("{scheme}://{}", listener.local_addr().unwrap()).parse().unwrap();
        let server = tonic::transport::Server::builder()
            .add_service(UpdateServiceServer::new(Service(Arc::clone(&script))))
            .add_service(EnrollmentServiceServer::new(Enrollment(Arc::clone(&script))));
        let mut task = JoinSet::new();
        if is_tls {
            let acceptor = TlsAcceptor::from(Arc::new(script.lock().unwrap().gate.server_config()));
            let (sender, accepted) = tokio::sync::mpsc::channel(8);
            task.spawn(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        sender.send(Ok::<_, std::io::Error>(stream)).await.unwrap();
                    }
                }
            });
            task.spawn(async move { server.serve_with_incoming(ReceiverStream::new(accepted)).await.unwrap() });
        } else {
            task.spawn(async move { server.serve_with_incoming(TcpListenerStream::new(listener)).await.unwrap() });
        }
        Self { url, script, _task: task }
    }

    pub(crate) fn script(&self) -> std::sync::MutexGuard<'_, Script> {
        self.script.lock().unwrap()
    }

    /// Offers a payload as a release of the package `app`, in place of what was offered before.
    pub(crate) fn offer(&self, number: u32, payload: &[u8], change: impl FnOnce(&mut wire::Deployment)) {
        let sha256 = Sha256::digest(payload).to_vec();
        let mut deployment = wire::Deployment {
            deployment: format!("01890a5d-ac96-774b-bcce-{number:012}"),
            attempt: 1,
            package: "app".to_owned(),
            version: format!("{number}.0.0"),
            installer: wire::Installer::Directory.into(),
            payload: Some(wire::Payload { sha256: sha256.clone().into(), size_bytes: payload.len() as i64 }),
            ..Default::default()
        };
        change(&mut deployment);
        let mut script = self.script();
        script.payloads.insert(sha256, payload.to_vec());
        script.offers = vec![deployment];
    }

    pub(crate) fn fault(&self, fault: Fault) {
        self.script().faults.push_back(fault);
    }

    /// Refuses the next check-in for a reason.
    pub(crate) fn refuse_check_in(&self, reason: &'static str) {
        self.script().refused_check_ins.push_back(reason);
    }

    /// Refuses the next so many final reports.
    pub(crate) fn refuse_reports(&self, count: u32, code: Code, reason: &'static str) {
        let mut script = self.script();
        script.refused_reports = count;
        script.report_refusal = Some((code, reason));
    }

    /// Answers all reports from here on with ABORT.
    pub(crate) fn abort(&self) {
        self.script().verdict = wire::Verdict::Abort;
    }

    pub(crate) fn reports(&self) -> Vec<wire::ReportProgressRequest> {
        self.script().reports.clone()
    }

    /// Offsets of the downloads so far.
    pub(crate) fn downloads(&self) -> Vec<i64> {
        self.script().downloads.clone()
    }

    pub(crate) fn check_ins(&self) -> Vec<wire::CheckInRequest> {
        self.script().check_ins.clone()
    }

    pub(crate) fn inventories(&self) -> Vec<wire::ReportInventoryRequest> {
        self.script().inventories.clone()
    }

    /// Returns the final reports as (state, failure code).
    pub(crate) fn ends(&self) -> Vec<(wire::DeploymentState, Option<wire::FailureCode>)> {
        let is_final = |report: &wire::ReportProgressRequest| report.state() >= wire::DeploymentState::Succeeded;
        let reports = self.reports().into_iter().filter(is_final);
        reports.map(|report| (report.state(), report.failure.map(|failure| failure.code()))).collect()
    }
}

impl Script {
    /// Signs what is offered, as operators and the director.
    fn sign(&mut self, nonce: &[u8]) -> Option<wire::MetadataUpdate> {
        let now = Utc::now();
        let world = self.world.as_mut()?;
        let targets: Vec<_> = self.offers.iter().filter_map(target).collect();
        world.publish(now, |list| targets.iter().for_each(|target| list.insert(target.clone())));
        world.answer(DEVICE, &targets, nonce, now).metadata
    }
}

/// Returns what has to be signed of an offer; nothing of one that no device could do.
fn target(offer: &wire::Deployment) -> Option<Target> {
    let payload = offer.payload.as_ref()?;
    let installer = match offer.installer() {
        wire::Installer::Directory => Installer::Directory,
        wire::Installer::File => Installer::File,
        wire::Installer::Unspecified | wire::Installer::Slot | wire::Installer::Module | wire::Installer::Mcu => {
            return None;
        }
    };
    Some(Target {
        length: payload.size_bytes.unsigned_abs(),
        sha256: Sha256Digest::try_from(&payload.sha256[..]).ok()?,
        custom: Custom {
            package: offer.package.parse().ok()?,
            version: offer.version.parse().ok()?,
            release_counter: offer.release_counter,
            floor: 0,
            hardware: offer.hardware.iter().map(|name| name.parse().unwrap()).collect(),
            installer,
            unpacked_size_bytes: offer.unpacked_size_bytes.unsigned_abs(),
        },
    })
}

struct Service(Arc<Mutex<Script>>);

type Pieces = Pin<Box<dyn Stream<Item = Result<wire::DownloadResponse, Status>> + Send>>;
type Rings = Pin<Box<dyn Stream<Item = Result<wire::WatchResponse, Status>> + Send>>;

pub(crate) fn refusal(code: Code, reason: &str) -> Status {
    let details = ErrorDetails::with_error_info(reason, "ota", HashMap::new());
    Status::with_error_details(code, "refused by the script", details)
}

#[tonic::async_trait]
impl UpdateService for Service {
    type WatchStream = Rings;
    type DownloadStream = Pieces;

    async fn check_in(
        &self,
        request: Request<wire::CheckInRequest>,
    ) -> Result<Response<wire::CheckInResponse>, Status> {
        let mut script = self.0.lock().unwrap();
        if let Some(reason) = script.refused_check_ins.pop_front() {
            return Err(refusal(Code::PermissionDenied, reason));
        }
        script.gate.admit(&request)?;
        let request = request.into_inner();
        let metadata = script.sign(&request.nonce);
        script.check_ins.push(request);
        let inventory_wanted = script.inventories.is_empty();
        let deployments = script.offers.clone();
        Ok(Response::new(wire::CheckInResponse { deployments, inventory_wanted, metadata, ..Default::default() }))
    }

    async fn watch(&self, _: Request<wire::WatchRequest>) -> Result<Response<Rings>, Status> {
        Ok(Response::new(Box::pin(tokio_stream::pending())))
    }

    async fn download(&self, request: Request<wire::DownloadRequest>) -> Result<Response<Pieces>, Status> {
        let request = request.into_inner();
        let mut script = self.0.lock().unwrap();
        script.downloads.push(request.offset);
        let payload = &script.payloads[&request.sha256.to_vec()];
        let offset = usize::try_from(request.offset).unwrap();
        let mut content = payload[offset..].to_vec();
        let fault = script.faults.pop_front();
        match &fault {
            Some(Fault::Refuse(code, reason)) => return Err(refusal(*code, reason)),
            Some(Fault::OtherBytes) => content.iter_mut().for_each(|byte| *byte ^= 1),
            Some(Fault::Surplus) => content.extend([0; 1000]),
            Some(Fault::BreakAfter(_) | Fault::BadChecksum | Fault::BadOffset) | None => {}
        }
        let mut pieces = Vec::new();
        for (index, data) in content.chunks(PIECE_BYTES).enumerate() {
            let start = offset + index * PIECE_BYTES;
            let mut piece = wire::DownloadResponse {
                offset: start as i64,
                crc32c: crc_fast::crc32_iscsi(data),
                data: data.to_vec().into(),
            };
            match &fault {
                Some(Fault::BreakAfter(bytes)) if start + data.len() > offset + bytes => {
                    pieces.push(Err(Status::unavailable("broken by the script")));
                    break;
                }
                Some(Fault::BadChecksum) => piece.crc32c ^= 1,
                Some(Fault::BadOffset) => piece.offset += 1,
                Some(Fault::BreakAfter(_) | Fault::OtherBytes | Fault::Surplus | Fault::Refuse(..)) | None => {}
            }
            pieces.push(Ok(piece));
        }
        Ok(Response::new(Box::pin(tokio_stream::iter(pieces))))
    }

    async fn report_progress(
        &self,
        request: Request<wire::ReportProgressRequest>,
    ) -> Result<Response<wire::ReportProgressResponse>, Status> {
        let mut script = self.0.lock().unwrap();
        let report = request.into_inner();
        if script.refused_reports > 0
            && report.state() >= wire::DeploymentState::Succeeded
            && let Some((code, reason)) = script.report_refusal
        {
            script.refused_reports -= 1;
            return Err(refusal(code, reason));
        }
        script.reports.push(report);
        Ok(Response::new(wire::ReportProgressResponse { verdict: script.verdict.into() }))
    }

    async fn report_inventory(
        &self,
        request: Request<wire::ReportInventoryRequest>,
    ) -> Result<Response<wire::ReportInventoryResponse>, Status> {
        let request = request.into_inner();
        let inventory_wanted = request.inventory.is_none();
        self.0.lock().unwrap().inventories.push(request);
        Ok(Response::new(wire::ReportInventoryResponse { inventory_wanted }))
    }
}
