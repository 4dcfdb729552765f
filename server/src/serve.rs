//! The ports of the APIs, one for both or one for each: accepts connections, hands them to the services behind the gate, and
//! stops without dropping what is in progress.

mod batched;
mod connection;
mod delivered;
pub mod health;
mod lingering;
pub mod operations;
mod paced;

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::body::Body;
use http::{Request, Response};
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
use tokio::{net::TcpListener, sync::Semaphore, task::JoinSet};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tower::Service;

use crate::{
    app::App,
    auth::{Gate, Offer, PeerAddress, policy},
    grpc::{admin, device},
    tls::Tls,
};

use health::Health;

pub use paced::Pace;

/// Handshakes in progress at once.
const MAX_HANDSHAKES: usize = 1024;
/// How long to wait when the system refuses connections, for example for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Largest message taken from anybody: an upload's piece and its frame.
const MAX_MESSAGE_BYTES: usize = 2 * 1024 * 1024;

/// The services that a port offers, behind the gate.
///
/// # Errors
/// When the descriptors of the APIs cannot be read.
pub fn services(app: &App, health: &Health, offer: Offer) -> Result<Gate, tonic_reflection::server::Error> {
    let reflection = || {
        let builder = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET);
        policy::services()
            .filter(|service| offer.has(service))
            .fold(builder, |builder, service| builder.with_service_name(service))
    };
    macro_rules! served {
        ($server:ident, $service:expr) => {
            $server::new($service).max_decoding_message_size(MAX_MESSAGE_BYTES)
        };
    }
    // What is not offered never comes here: the gate says where it is.
    let routes = Routes::new(health.service())
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
        .add_service(
            TrustServiceServer::new(admin::trust::Trust::new(app.clone()))
                .max_decoding_message_size(admin::trust::MAX_REQUEST_BYTES),
        );
    let download = {
        let app = app.clone();
        tower::service_fn(move |request| device::download::serve(app.clone(), request))
    };
    let router = routes.prepare().into_axum_router().route_service(device::download::PATH, download);
    Ok(Gate::new(app.clone(), router, offer))
}

/// What is served on each connection: the gate, or what is measured against it.
pub trait Services:
    Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send> + Clone + Send + Sync + 'static
{
}

impl<S> Services for S where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send>
        + Clone
        + Send
        + Sync
        + 'static
{
}

/// How connections are served.
#[derive(Debug)]
pub struct Settings<S> {
    /// What answers the requests: the services behind the gate.
    pub service: S,
    /// How connections are encrypted. `None` when they are not.
    pub tls: Option<Arc<Tls>>,
    /// How long a connection lasts before its client is asked to make another.
    pub max_connection_age: Duration,
    /// How slowly the other end may send and take.
    pub pace: Pace,
}

/// Serves until `stopping` fires; then takes no new calls and waits `drain` for those in progress.
pub async fn serve<S>(listener: TcpListener, settings: Settings<S>, stopping: CancellationToken, drain: Duration)
where
    S: Services,
{
    let (settings, handshakes) = (Arc::new(settings), Arc::new(Semaphore::new(MAX_HANDSHAKES)));
    let mut connections = JoinSet::new();
    loop {
        // Who comes while so many are at it waits in the system's own queue.
        let permit = tokio::select! {
            () = stopping.cancelled() => break,
            Ok(permit) = Arc::clone(&handshakes).acquire_owned() => permit,
        };
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
                    let (peer, settings) = (PeerAddress(peer.ip()), Arc::clone(&settings));
                    connections.spawn(connection::run(stream, peer, settings, stopping.clone(), permit));
                }
                Err(error) => {
                    tracing::warn!(%error, "the system refuses connections");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
    drop(listener);
    let ended = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(drain, ended).await.is_err() {
        tracing::info!(connections = connections.len(), "calls were still in progress and are cut off");
    }
    connections.shutdown().await;
}
