//! The baseline of check-ins with the trust layer: the same server over the same TLS and HTTP, and no trust. A caller is the
//! device that it says it is. There is no gate: no policy, no certificate and no session is looked at, nobody is refused,
//! limited or named to the log; and no signed metadata is asked for or held against what a device has.
//!
//! What is left is what a check-in with nothing new is about: finding the device in memory, comparing what it runs, noting
//! its sign of life and telling it when to come again.

use std::sync::Arc;

use anyhow::Context as _;
use chrono::Utc;
use ota_domain::{DeviceId, schedule};
use ota_proto::{
    convert::{self, device::check_in},
    device::v1::{
        CheckInRequest, CheckInResponse, DownloadRequest, DownloadResponse, ReportInventoryRequest,
        ReportInventoryResponse, ReportProgressRequest, ReportProgressResponse, WatchRequest, WatchResponse,
        update_service_server::{UpdateService, UpdateServiceServer},
    },
};
use ota_server::{
    app::App,
    config::Config,
    serve::{self, Settings},
    server::Server,
    tls::Tls,
};
use tokio::net::TcpListener;
use tokio_stream::Empty;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, service::Routes};

/// The header with the device that a caller says it is.
pub(crate) const DEVICE: &str = "x-device";

#[derive(Debug)]
struct Trusting {
    app: App,
}

fn other_call<T>() -> Result<T, Status> {
    Err(Status::unimplemented("the baseline answers check-ins with nothing new only"))
}

#[tonic::async_trait]
impl UpdateService for Trusting {
    async fn check_in(&self, request: Request<CheckInRequest>) -> Result<Response<CheckInResponse>, Status> {
        let device = request.metadata().get(DEVICE).and_then(|header| header.to_str().ok()?.parse::<DeviceId>().ok());
        let device = device.ok_or_else(|| Status::unauthenticated("who calls?"))?;
        let record = self.app.fleet.device(device).await.map_err(Status::from)?;
        let record = record.ok_or_else(|| Status::not_found("there is no such device"))?;
        let told = request.into_inner();
        let (running, inventory) =
            check_in::request(&told).map_err(|_| Status::invalid_argument("not as it should be"))?;
        let now = Utc::now();
        self.app.fleet.seen(&record, &told.agent_version, now);
        if running != record.running || !record.work.is_empty() {
            return other_call();
        }
        let next = schedule::next_check_in(self.app.settings.check_in_interval, rand::random());
        Ok(Response::new(CheckInResponse {
            next_check_in: Some(convert::duration(next)),
            inventory_wanted: inventory.is_some_and(|told| record.inventory != Some(told)),
            server_time: Some(convert::timestamp(now)),
            ..CheckInResponse::default()
        }))
    }

    type WatchStream = Empty<Result<WatchResponse, Status>>;

    async fn watch(&self, _: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        other_call()
    }

    type DownloadStream = Empty<Result<DownloadResponse, Status>>;

    async fn download(&self, _: Request<DownloadRequest>) -> Result<Response<Self::DownloadStream>, Status> {
        other_call()
    }

    async fn report_progress(
        &self,
        _: Request<ReportProgressRequest>,
    ) -> Result<Response<ReportProgressResponse>, Status> {
        other_call()
    }

    async fn report_inventory(
        &self,
        _: Request<ReportInventoryRequest>,
    ) -> Result<Response<ReportInventoryResponse>, Status> {
        other_call()
    }
}

/// Serves until killed, and says where on standard output. A whole server runs beside it in the same process, with all that
/// it does in the background, so that both sides do that too.
pub(crate) async fn serve(config: &Config) -> anyhow::Result<()> {
    let stopping = CancellationToken::new();
    let server = Server::start(config, stopping.clone()).await?;
    let app = server.app.clone();
    let tls = Tls::start(&config.tls, Arc::clone(&app.keys), Utc::now())?;
    let service = Routes::new(UpdateServiceServer::new(Trusting { app })).prepare().into_axum_router();
    let settings = Settings {
        service,
        tls: Some(Arc::new(tls)),
        max_connection_age: config.max_connection_age,
        pace: config.pace,
    };
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("https://{}", listener.local_addr().context("a listener has an address")?);
    let terminated = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate());
    let mut terminated = terminated.context("cannot be told to stop")?;
    let stop = stopping.clone();
    tokio::spawn(async move {
        terminated.recv().await;
        stop.cancel();
    });
    serve::serve(listener, settings, stopping, config.drain_timeout).await;
    server.stop().await;
    Ok(())
}
