//! How this replica is, for load balancers and supervisors: `grpc.health.v1`, on every port.

use std::time::Duration;

use sqlx::PgPool;
use tokio_util::sync::CancellationToken;
use tonic_health::{
    ServingStatus::{self, NotServing, Serving},
    pb::health_server::HealthServer,
    server::{HealthReporter, HealthService},
};

use crate::db;

/// Name of what a load balancer asks: can this replica do its work?
pub const READINESS: &str = "readiness";
/// Name of what a supervisor asks: is the process alive? Never depends on the database.
pub const LIVENESS: &str = "liveness";

/// Time between two questions to the database. It has three seconds to answer: that it stopped is noticed within their sum.
const INTERVAL: Duration = Duration::from_secs(5);

/// What is told.
#[derive(Debug, Clone)]
pub struct Health(HealthReporter);

impl Health {
    /// Of a server that has just begun to start: alive, and not ready.
    pub async fn starting() -> Self {
        let health = Self(HealthReporter::new());
        health.0.set_service_status(LIVENESS, Serving).await;
        health.ready(NotServing).await;
        health
    }

    /// The service that tells it.
    #[must_use]
    pub fn service(&self) -> HealthServer<HealthService> {
        HealthServer::new(HealthService::from_health_reporter(self.0.clone()))
    }

    /// Asks the database until `leaving` fires: then this replica is not ready any more.
    pub async fn follow(self, pool: PgPool, leaving: CancellationToken) {
        let mut ticks = tokio::time::interval(INTERVAL);
        loop {
            tokio::select! {
                () = leaving.cancelled() => break,
                _ = ticks.tick() => {}
            }
            let Some(answer) = leaving.run_until_cancelled(db::ping(&pool)).await else { break };
            self.ready(if answer.is_ok() { Serving } else { NotServing }).await;
        }
        self.ready(NotServing).await;
    }

    async fn ready(&self, status: ServingStatus) {
        self.0.set_service_status(READINESS, status).await;
        self.0.set_service_status("", status).await;
    }
}
