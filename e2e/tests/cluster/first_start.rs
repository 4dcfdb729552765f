//! Several servers that start for the first time at the same moment, as the replicas of a Deployment do.

use std::fs;

use futures_util::future::join_all;
use ota_e2e::{Operator, credential::connect_as, database, eventually, process::ServerProcess};
use ota_proto::admin::v1::GetStatusRequest;
use ota_server::serve::health::READINESS;
use ota_tls::ServerTrust;
use tempfile::TempDir;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};

use crate::replicas::PATIENCE;

/// How often it is tried: what goes wrong when two do the same at once goes wrong now and then.
const ROUNDS: usize = 3;
const SERVERS: usize = 3;

#[tokio::test]
async fn servers_that_start_at_once_agree_on_one_authority_and_one_admin() {
    for round in 0..ROUNDS {
        let database = database::empty().await;
        let shared = TempDir::with_prefix("ota-shared-").unwrap();
        let path = |name: &str| shared.path().join(name).display().to_string();
        let token = format!("ota_{}_z{}", uuid::Uuid::now_v7().simple(), "3".repeat(42));
        fs::write(path("admin-token"), &token).unwrap();
        let environment = [
            ("DATABASE_URL", database.url()),
            // Made by one of them.
            ("OTA_KEY_FILE", path("key-encryption-key")),
            ("OTA_ADMIN_TOKEN_FILE", path("admin-token")),
            ("OTA_BLOB_STORE", path("blobs")),
        ]
        .map(|(name, value)| (name.to_owned(), value));
        let servers = join_all((0..SERVERS).map(|_| ServerProcess::start_in(&environment, &[]))).await;

        let authority = fs::read(servers[0].authority_file()).unwrap();
        for server in &servers {
            assert_eq!(fs::read(server.authority_file()).unwrap(), authority, "round {round}");
            let roots = ServerTrust::Roots(ota_tls::certificates(&servers[0].authority_file()).unwrap());
            eventually("the server is ready", PATIENCE, async || {
                let request = HealthCheckRequest { service: READINESS.to_owned() };
                let mut health = HealthClient::new(connect_as(&server.url(), roots.clone(), None));
                let answer = health.check(request).await.unwrap();
                (answer.get_ref().status() == ServingStatus::Serving).then_some(())
            })
            .await;
            let admin = Operator::new(&server.url(), &token);
            admin.status().get_status(GetStatusRequest {}).await.unwrap();
        }
        let tokens: i64 =
            sqlx::query_scalar("SELECT count(*) FROM api_token").fetch_one(database.pool()).await.unwrap();
        assert_eq!(tokens, 1, "round {round}");
    }
}
