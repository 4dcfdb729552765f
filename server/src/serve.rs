//! One port for everything: accepts connections, hands them to the services behind the gate, and stops without dropping
//! what is in progress.

mod batched;
mod lingering;

use std::time::Duration;

use http::Request;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
    service::TowerToHyperService,
};
use ota_proto::{
    FILE_DESCRIPTOR_SET,
    admin::v1::{
        access_service_server::AccessServiceServer, device_service_server::DeviceServiceServer,
        enroll_token_service_server::EnrollTokenServiceServer, event_service_server::EventServiceServer,
        group_service_server::GroupServiceServer, package_service_server::PackageServiceServer,
        rollout_service_server::RolloutServiceServer, status_service_server::StatusServiceServer,
        trust_service_server::TrustServiceServer,
    },
    device::v1::{enrollment_service_server::EnrollmentServiceServer, update_service_server::UpdateServiceServer},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic_health::server::HealthReporter;
use tower::ServiceExt;

use batched::Batched;
use lingering::Lingering;

use crate::{
    app::App,
    auth::{Gate, PeerAddress},
    grpc::{admin, device},
};

/// Health service name of what a load balancer asks: can this replica do its work?
pub const READINESS: &str = "readiness";
/// Health service name of what a supervisor asks: is the process alive? Never depends on the database.
pub const LIVENESS: &str = "liveness";

/// HTTP/2 flow control, in bytes. A stream window of one reading keeps a download busy; the connection's holds several.
const STREAM_WINDOW: u32 = 1024 * 1024;
const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;
/// What waits to be sent in a stream before its source is asked for more; bounds the memory of a slow download.
const SEND_BUFFER: usize = 512 * 1024;
/// A client that answers no ping within this time is gone, whatever TCP believes.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a client may take to read what was sent before its connection closed.
const LINGER: Duration = Duration::from_secs(60);
/// How long to wait when the system refuses connections, for example for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Largest message taken from anybody: an upload's piece and its frame.
const MAX_MESSAGE_BYTES: usize = 2 * 1024 * 1024;

/// All services, behind the gate.
///
/// # Errors
/// When the descriptors of the APIs cannot be read.
pub fn services(
    app: &App,
    health: tonic_health::pb::health_server::HealthServer<impl tonic_health::pb::health_server::Health>,
) -> Result<Gate, tonic_reflection::server::Error> {
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    macro_rules! served {
        ($server:ident, $service:expr) => {
            $server::new($service).max_decoding_message_size(MAX_MESSAGE_BYTES)
        };
    }
    let routes = Routes::new(health)
        .add_service(reflection().build_v1()?)
        .add_service(reflection().build_v1alpha()?)
        .add_service(served!(EnrollmentServiceServer, device::enrollment::Enrollment::new(app.clone())))
        .add_service(served!(UpdateServiceServer, device::update::Updates::new(app.clone())))
        .add_service(served!(AccessServiceServer, admin::access::Access::new(app.clone())))
        .add_service(served!(DeviceServiceServer, admin::device::Devices::new(app.clone())))
        .add_service(served!(EnrollTokenServiceServer, admin::enroll_token::EnrollTokens::new(app.clone())))
        .add_service(served!(EventServiceServer, admin::event::Events::new(app.clone())))
        .add_service(served!(GroupServiceServer, admin::group::Groups))
        .add_service(served!(PackageServiceServer, admin::package::Packages::new(app.clone())))
        .add_service(served!(RolloutServiceServer, admin::rollout::Rollouts::new(app.clone())))
        .add_service(served!(StatusServiceServer, admin::status::StatusReport::new(app.clone())))
        .add_service(served!(TrustServiceServer, admin::trust::Trust));
    let download = {
        let app = app.clone();
        tower::service_fn(move |request| device::download::serve(app.clone(), request))
    };
    let router = routes.prepare().into_axum_router().route_service(device::download::PATH, download);
    Ok(Gate::new(app.clone(), router))
}

/// Serves until `stopping` fires; then takes no new calls and waits `drain` for those in progress.
pub async fn serve(listener: TcpListener, gate: Gate, stopping: CancellationToken, drain: Duration) {
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stopping.cancelled() => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    // Small answers must not wait for company.
                    if let Err(error) = stream.set_nodelay(true) {
                        tracing::debug!(%error, "a connection broke before it began");
                        continue;
                    }
                    connections.spawn(connection(stream, PeerAddress(peer.ip()), gate.clone(), graceful.watcher()));
                }
                Err(error) => {
                    tracing::warn!(%error, "the system refuses connections");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
    drop(listener);
    if tokio::time::timeout(drain, graceful.shutdown()).await.is_err() {
        tracing::info!(connections = connections.len(), "calls were still in progress and are cut off");
    }
    connections.shutdown().await;
}

/// Speaks HTTP on one connection until it ends. Plain or encrypted is the caller's business.
async fn connection(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    peer: PeerAddress,
    gate: Gate,
    graceful: hyper_util::server::graceful::Watcher,
) {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http2()
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .max_concurrent_streams(1024)
        .keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT);
    let service = TowerToHyperService::new(gate.map_request(move |mut request: Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(peer);
        request.map(axum::body::Body::new)
    }));
    let served = graceful.watch(
        builder.serve_connection(TokioIo::new(Batched::new(Lingering::new(stream, LINGER))), service).into_owned(),
    );
    if let Err(error) = served.await {
        tracing::debug!(error, "a connection broke");
    }
}

/// Tells load balancers and supervisors how this replica is, until the server stops.
pub async fn report_health(app: App, reporter: HealthReporter) {
    const INTERVAL: Duration = Duration::from_secs(5);
    use tonic_health::ServingStatus::{NotServing, Serving};
    let stopping = app.fleet.stopping();
    reporter.set_service_status(LIVENESS, Serving).await;
    let mut ticks = tokio::time::interval(INTERVAL);
    loop {
        tokio::select! {
            () = stopping.cancelled() => break,
            _ = ticks.tick() => {}
        }
        let ready = if crate::db::ping(&app.pool).await.is_ok() { Serving } else { NotServing };
        reporter.set_service_status(READINESS, ready).await;
        reporter.set_service_status("", ready).await;
    }
    reporter.set_service_status(READINESS, NotServing).await;
    reporter.set_service_status("", NotServing).await;
}
