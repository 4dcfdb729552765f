//! The port for those who run the server: plain HTTP, the page of the metrics and health checks, nothing that anybody may
//! not read who reaches it. It answers before the database does.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use axum::{Router, body::Body, extract::State, response::Response, routing::get};
use chrono::Utc;
use http::{HeaderValue, header};
use tokio::{net::TcpListener, sync::Mutex};
use tokio_util::task::AbortOnDropHandle;

use super::health::Health;
use crate::{
    app::{App, status},
    metrics::{self, Facts, Metrics, Stored},
    tls::Tls,
};

/// How long what the database said is told again: whoever reads the page all the time does not count the fleet as often.
const KEPT: Duration = Duration::from_secs(5);

/// Where gRPC has health checks.
const HEALTH_PATH: &str = "/grpc.health.v1.Health/{*method}";

/// The open port. Closed when dropped, last of all: until then somebody may ask how the server is.
#[derive(Debug)]
pub struct Operations {
    /// Where it is.
    pub address: SocketAddr,
    known: Arc<Known>,
    _served: AbortOnDropHandle<()>,
}

impl Operations {
    /// Opens the port.
    ///
    /// # Errors
    /// When the address is taken or not ours.
    pub async fn open(address: SocketAddr, health: &Health, metrics: Arc<Metrics>) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let known = Arc::new(Known { metrics, started: OnceLock::new(), stored: Mutex::default() });
        let router = Router::new()
            .route("/metrics", get(page))
            .with_state(Arc::clone(&known))
            .route_service(HEALTH_PATH, health.service());
        let served = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                tracing::error!(%error, "the port of the metrics is closed");
            }
        });
        tracing::info!("metrics and health checks are at http://{address}");
        Ok(Self { address, known, _served: AbortOnDropHandle::new(served) })
    }

    /// Tells more from now on: the server has started.
    pub fn started(&self, app: &App, tls: Option<Arc<Tls>>) {
        // Nobody else sets it.
        self.known.started.set((app.clone(), tls)).ok();
    }
}

/// What there is to tell.
#[derive(Debug)]
struct Known {
    metrics: Arc<Metrics>,
    /// Set when the server has started.
    started: OnceLock<(App, Option<Arc<Tls>>)>,
    /// What the database said, and when. Held while it is asked, so that it is asked once at a time.
    stored: Mutex<Option<(Instant, Stored)>>,
}

async fn page(State(known): State<Arc<Known>>) -> Response {
    let facts = match known.started.get() {
        Some((app, tls)) => Facts {
            device_streams: app.fleet.watcher_count(),
            database_connections: (app.pool.size(), app.pool.num_idle()),
            database_connections_max: app.pool.options().get_max_connections(),
            certificate_expires_at: tls.as_ref().and_then(|tls| tls.expires_at()),
            stored: known.stored(app).await,
        },
        None => Facts::default(),
    };
    let mut response = Response::new(Body::from(metrics::page(&known.metrics, facts)));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(metrics::CONTENT_TYPE));
    response
}

impl Known {
    async fn stored(&self, app: &App) -> Option<Stored> {
        let mut kept = self.stored.lock().await;
        if let Some((at, stored)) = &*kept
            && at.elapsed() < KEPT
        {
            return Some(stored.clone());
        }
        match status::stored(app, Utc::now()).await {
            Ok(stored) => {
                *kept = Some((Instant::now(), stored.clone()));
                Some(stored)
            }
            Err(error) => {
                tracing::debug!(%error, "the database has nothing for the metrics");
                *kept = None;
                None
            }
        }
    }
}
