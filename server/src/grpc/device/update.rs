//! `UpdateService`.

use std::{pin::Pin, sync::Arc};

use chrono::Utc;
use futures_util::Stream;
use ota_domain::Sha256Digest;
use ota_proto::{
    convert::{self, device as wire_device},
    device::v1::{
        CheckInRequest, CheckInResponse, Deployment, DownloadRequest, DownloadResponse, MetadataUpdate,
        MetadataVersions, ReportInventoryRequest, ReportInventoryResponse, ReportProgressRequest,
        ReportProgressResponse, TargetsDocument, WatchRequest, WatchResponse, update_service_server::UpdateService,
    },
};
use tokio_stream::Empty;
use tonic::{Request, Response, Status};

use super::record;
use crate::{
    app::{
        self, App, Error, Reason,
        check_in::CheckIn,
        trust::{Asked, Held, Update},
    },
    db::desired::Work,
    grpc::{RETIRED, caller, retiring},
};

/// Tells devices what to run, and carries bytes and reports.
#[derive(Debug)]
pub struct Updates {
    app: App,
}

impl Updates {
    /// Serves from `app`.
    #[must_use]
    pub fn new(app: App) -> Self {
        Self { app }
    }
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl UpdateService for Updates {
    async fn check_in(&self, request: Request<CheckInRequest>) -> Result<Response<CheckInResponse>, Status> {
        let (caller, record) = (caller(&request), record(request.extensions()));
        let told = request.into_inner();
        let (running, inventory) = wire_device::check_in::request(&told).map_err(Error::Invalid)?;
        let trust = Asked { held: held(told.metadata), nonce: (!told.nonce.is_empty()).then_some(told.nonce) };
        let trust_fault = wire_device::trust_fault::from_wire(told.trust_fault);
        let told = CheckIn { running, agent_version: told.agent_version, inventory, trust, trust_fault };
        let now = Utc::now();
        let orders = app::check_in::check_in(&self.app, &caller, record, told, now, rand::random()).await?;
        Ok(Response::new(CheckInResponse {
            next_check_in: Some(convert::duration(orders.next_check_in)),
            deployments: orders.work().map(deployment).collect(),
            inventory_wanted: orders.inventory_wanted,
            metadata: orders.metadata.map(metadata),
            server_time: Some(convert::timestamp(now)),
        }))
    }

    type WatchStream = Answers<WatchResponse>;

    async fn watch(&self, request: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let record = record(request.extensions());
        let fleet = Arc::clone(&self.app.fleet);
        let mut watcher = fleet.watch(record.id);
        // The place first, the look second: what changes in between rings.
        if fleet.device(record.id).await?.is_some_and(|record| !record.work.is_empty()) {
            fleet.ring(record.id);
        }
        let (retiring, id) = (retiring(&request, &self.app), record.id);
        Ok(Response::new(Box::pin(async_stream::try_stream! {
            while let Some(ring) = retiring.run_until_cancelled(watcher.rung()).await {
                let ring = ring.ok_or_else(|| {
                    Error::refused(Reason::WatchReplaced, "a newer stream of this device took over")
                })?;
                // What rings may be that the device was taken out.
                fleet.still_admitted(id).await?;
                yield WatchResponse { delay: Some(convert::duration(ring.delay)) };
            }
            Err(Error::refused(Reason::ShuttingDown, RETIRED))?;
        })))
    }

    type DownloadStream = Empty<Result<DownloadResponse, Status>>;

    async fn download(&self, _: Request<DownloadRequest>) -> Result<Response<Self::DownloadStream>, Status> {
        Err(Status::internal("Download has a route of its own, which comes before this one"))
    }

    async fn report_progress(
        &self,
        request: Request<ReportProgressRequest>,
    ) -> Result<Response<ReportProgressResponse>, Status> {
        let (caller, record) = (caller(&request), record(request.extensions()));
        let report = wire_device::progress::report(request.into_inner()).map_err(Error::Invalid)?;
        let verdict = app::progress::report(&self.app, &caller, record.id, report, Utc::now()).await?;
        Ok(Response::new(ReportProgressResponse { verdict: wire_device::progress::verdict(verdict).into() }))
    }

    async fn report_inventory(
        &self,
        request: Request<ReportInventoryRequest>,
    ) -> Result<Response<ReportInventoryResponse>, Status> {
        let record = record(request.extensions());
        let told = request.into_inner();
        let sha256 = Sha256Digest::try_from(told.sha256.as_ref()).map_err(|rule| Error::invalid("sha256", rule))?;
        let wanted = if record.inventory == Some(sha256) {
            false
        } else {
            let inventory =
                told.inventory.map(wire_device::inventory::inventory).transpose().map_err(Error::Invalid)?;
            let wanted = app::inventory::report(&self.app, record.id, sha256, inventory, Utc::now()).await?;
            self.app.fleet.forget(record.id);
            wanted
        };
        Ok(Response::new(ReportInventoryResponse { inventory_wanted: wanted }))
    }
}

/// What the device holds; nothing when it says nothing. The versions were found right.
fn held(versions: Option<MetadataVersions>) -> Held {
    let versions = versions.unwrap_or_default();
    Held {
        image_root: versions.image_root.unsigned_abs(),
        image_timestamp: versions.image_timestamp.unsigned_abs(),
        image_snapshot: versions.image_snapshot.unsigned_abs(),
        director_root: versions.director_root.unsigned_abs(),
        director: versions.director.unsigned_abs(),
    }
}

/// Signed metadata for the wire.
pub(crate) fn metadata(update: Update) -> MetadataUpdate {
    let [director_timestamp, director_snapshot, director_targets] = update.director.unwrap_or_default();
    MetadataUpdate {
        image_roots: update.image_roots,
        image_timestamp: update.image_timestamp.unwrap_or_default(),
        image_snapshot: update.image_snapshot.unwrap_or_default(),
        image_targets: update
            .image_targets
            .into_iter()
            .map(|(role, document)| TargetsDocument { role, document })
            .collect(),
        director_roots: update.director_roots,
        director_timestamp,
        director_snapshot,
        director_targets,
        freshness: update.freshness.unwrap_or_default(),
    }
}

/// A deployment for the wire.
pub(crate) fn deployment(work: &Work) -> Deployment {
    Deployment {
        deployment: work.deployment.to_string(),
        attempt: work.attempt,
        package: work.package.to_string(),
        version: work.version.to_string(),
        release_counter: work.release_counter,
        installer: wire_device::check_in::installer(work.installer).into(),
        payload: Some(wire_device::check_in::payload(&work.payload)),
        hardware: work.hardware.iter().map(ToString::to_string).collect(),
        unpacked_size_bytes: work.unpacked_size_bytes,
        ..Default::default()
    }
}
