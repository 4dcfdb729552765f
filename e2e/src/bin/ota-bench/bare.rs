//! The baseline of check-ins: the same messages through tonic's own server as it comes, and no work at all.

use ota_proto::device::v1::{
    CheckInRequest, CheckInResponse, DownloadRequest, DownloadResponse, ReportInventoryRequest,
    ReportInventoryResponse, ReportProgressRequest, ReportProgressResponse, WatchRequest, WatchResponse,
    update_service_server::{UpdateService, UpdateServiceServer},
};
use prost_types::{Duration, Timestamp};
use tokio::net::TcpListener;
use tokio_stream::Empty;
use tonic::{Request, Response, Status, transport::server::TcpIncoming};

#[derive(Debug)]
struct Bare;

#[tonic::async_trait]
impl UpdateService for Bare {
    async fn check_in(&self, _: Request<CheckInRequest>) -> Result<Response<CheckInResponse>, Status> {
        Ok(Response::new(CheckInResponse {
            next_check_in: Some(Duration { seconds: 287, nanos: 123_456_789 }),
            server_time: Some(Timestamp { seconds: 1_790_000_000, nanos: 123_456_789 }),
            ..CheckInResponse::default()
        }))
    }

    type WatchStream = Empty<Result<WatchResponse, Status>>;

    async fn watch(&self, _: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        Err(Status::unimplemented("the baseline answers check-ins only"))
    }

    type DownloadStream = Empty<Result<DownloadResponse, Status>>;

    async fn download(&self, _: Request<DownloadRequest>) -> Result<Response<Self::DownloadStream>, Status> {
        Err(Status::unimplemented("the baseline answers check-ins only"))
    }

    async fn report_progress(
        &self,
        _: Request<ReportProgressRequest>,
    ) -> Result<Response<ReportProgressResponse>, Status> {
        Err(Status::unimplemented("the baseline answers check-ins only"))
    }

    async fn report_inventory(
        &self,
        _: Request<ReportInventoryRequest>,
    ) -> Result<Response<ReportInventoryResponse>, Status> {
        Err(Status::unimplemented("the baseline answers check-ins only"))
    }
}

/// Serves until killed, and says where on standard output.
pub(crate) async fn serve() -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("http://{}", listener.local_addr()?);
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    tonic::transport::Server::builder()
        .add_service(UpdateServiceServer::new(Bare))
        .serve_with_incoming(incoming)
        .await?;
    Ok(())
}
