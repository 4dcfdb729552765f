//! `StatusService`.

use chrono::{DateTime, Utc};
use ota_proto::{
    admin::v1::{DeviceCounts, GetStatusRequest, GetStatusResponse, status_service_server::StatusService},
    convert,
};
use ota_trust::metadata::Mode;
use tonic::{Request, Response, Status};

use crate::{
    app::{App, status},
    grpc::caller,
};

/// Tells how the server and the fleet are.
#[derive(Debug)]
pub struct StatusReport {
    app: App,
    started_at: DateTime<Utc>,
}

impl StatusReport {
    /// Serves from `app`, which starts now.
    #[must_use]
    pub fn new(app: App) -> Self {
        Self { app, started_at: Utc::now() }
    }
}

#[tonic::async_trait]
impl StatusService for StatusReport {
    async fn get_status(&self, request: Request<GetStatusRequest>) -> Result<Response<GetStatusResponse>, Status> {
        let status = status::get(&self.app, &caller(&request), Utc::now()).await?;
        let database = if self.app.settings.embedded_database { "embedded" } else { "external" };
        Ok(Response::new(GetStatusResponse {
            server_version: env!("CARGO_PKG_VERSION").to_owned(),
            start_time: Some(convert::timestamp(self.started_at)),
            database: database.to_owned(),
            blob_store: self.app.blobs.kind().to_owned(),
            tls: self.app.settings.tls,
            devices: Some(DeviceCounts {
                pending: status.devices.pending,
                accepted: status.devices.accepted,
                online: status.devices.online,
                rejected: status.devices.rejected,
                decommissioned: status.devices.decommissioned,
            }),
            package_count: status.work.packages,
            release_count: status.work.releases,
            payload_bytes: status.work.payload_bytes,
            active_rollout_count: status.work.open_rollouts,
            deployments_in_progress: status.work.open_deployments,
            trust_mode: trust_mode(status.trust_mode).to_owned(),
            warnings: status.warnings,
        }))
    }
}

fn trust_mode(mode: Mode) -> &'static str {
    match mode {
        Mode::Managed => "managed",
        Mode::Adopted => "adopted",
    }
}
