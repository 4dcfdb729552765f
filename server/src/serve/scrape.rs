//! The port of the metrics: plain HTTP, one page, nothing that anybody may not read who reaches it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{Router, body::Body, extract::State, response::Response, routing::get};
use chrono::Utc;
use http::{HeaderValue, header};
use tokio::{net::TcpListener, sync::Mutex};
use tokio_util::sync::CancellationToken;

use crate::{
    app::{App, status},
    metrics::{self, Facts, Stored},
};

/// How long what the database said is told again: whoever reads the page all the time does not count the fleet as often.
const KEPT: Duration = Duration::from_secs(5);

/// Serves the page until `stopping` fires.
pub async fn serve(listener: TcpListener, app: App, stopping: CancellationToken) {
    let scraped = Arc::new(Scraped { app, stored: Mutex::default() });
    let router = Router::new().route("/metrics", get(page)).with_state(scraped);
    let served = axum::serve(listener, router).with_graceful_shutdown(stopping.cancelled_owned());
    if let Err(error) = served.await {
        tracing::error!(%error, "the port of the metrics is closed");
    }
}

struct Scraped {
    app: App,
    /// What the database said, and when. Held while it is asked, so that it is asked once at a time.
    stored: Mutex<Option<(Instant, Stored)>>,
}

async fn page(State(scraped): State<Arc<Scraped>>) -> Response {
    let app = &scraped.app;
    let facts = Facts {
        device_streams: app.fleet.watcher_count(),
        database_connections: (app.pool.size(), app.pool.num_idle()),
        stored: scraped.stored().await,
    };
    let mut response = Response::new(Body::from(metrics::page(&app.metrics, facts)));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(metrics::CONTENT_TYPE));
    response
}

impl Scraped {
    async fn stored(&self) -> Option<Stored> {
        let mut kept = self.stored.lock().await;
        if let Some((at, stored)) = &*kept
            && at.elapsed() < KEPT
        {
            return Some(stored.clone());
        }
        match status::stored(&self.app, Utc::now()).await {
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
