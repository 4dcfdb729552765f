//! What the server depends on is gone: nothing hangs, nothing is half stored, and afterwards everything goes on.

mod blob_store;
pub(crate) mod calls;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use ota_e2e::{
    Options, TestServer, assert_refused,
    database::DedicatedCluster,
    eventually,
    operator::unique_payload,
    raw::{RawClient, paths},
    reason,
};
use ota_proto::FILE_DESCRIPTOR_SET;
use ota_server::auth::{
    oidc,
    policy::{self, Demand},
};
use sqlx::{AssertSqlSafe, PgPool};
use tokio::task::JoinSet;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use calls::{Call, World};

/// How soon a caller must know. The server itself gives up on a connection after three seconds, twice at most.
const FEW_SECONDS: Duration = Duration::from_secs(8);

/// How long a broken test takes to fail.
const PATIENCE: Duration = Duration::from_secs(30);

/// More than there are RPCs, so that none of them waits for another's connection.
fn wide() -> Options {
    Options { database_connections: 120, ..with_provider() }
}

/// With an identity provider to tell people of, though none that answers.
fn with_provider() -> Options {
    let oidc = oidc::Options {
        oidc_issuer: Some("http://127.0.0.1:1".to_owned()),
        oidc_client_id: Some("otactl".to_owned()),
        oidc_role: vec!["admins=admin".parse().unwrap()],
        ..oidc::Options::default()
    };
    Options { oidc, ..Options::default() }
}

/// Asserts that the caller is told of the outage, and when to try again.
fn assert_outage(path: &str, outcome: Result<Option<Bytes>, Status>) {
    let status = outcome.err().unwrap_or_else(|| panic!("{path} went well without a database"));
    assert_eq!(
        (status.code(), reason(&status).as_deref()),
        (Code::Unavailable, Some("DATABASE_UNAVAILABLE")),
        "{path}: {status:?}"
    );
    let retry = status.get_details_retry_info().and_then(|info| info.retry_delay);
    assert!(retry.is_some_and(|delay| delay > Duration::ZERO), "{path} does not say when to try again");
}

/// Makes a call and asserts that it comes to an end soon.
async fn soon(client: &RawClient, call: &Call) -> Result<Option<Bytes>, Status> {
    let begin = Instant::now();
    let outcome = tokio::time::timeout(PATIENCE, client.call(call.path, call.message.clone())).await;
    let outcome = outcome.unwrap_or_else(|_| panic!("{} hangs", call.path));
    assert!(begin.elapsed() < FEW_SECONDS, "{} took {:?}", call.path, begin.elapsed());
    outcome
}

/// Counts the rows of every table but those of the signs of life and of the seals, which are written at any time.
async fn rows(pool: &PgPool) -> BTreeMap<String, i64> {
    let mut rows = BTreeMap::new();
    for table in tables(pool).await {
        let statement = AssertSqlSafe(format!("SELECT count(*) FROM {table}"));
        rows.insert(table, sqlx::query_scalar(statement).fetch_one(pool).await.unwrap());
    }
    rows
}

async fn tables(pool: &PgPool) -> Vec<String> {
    let statement = "SELECT tablename::text FROM pg_tables
                     WHERE schemaname = 'public' AND tablename NOT IN ('device_presence', 'event_seal', '_sqlx_migrations')";
    sqlx::query_scalar(statement).fetch_all(pool).await.unwrap()
}

/// Waits until Postgres is back in the server's eyes, and shows that the main job works.
async fn assert_works(server: &TestServer) {
    let admin = server.admin();
    eventually("the server works again", PATIENCE, async || {
        admin.status().get_status(ota_proto::admin::v1::GetStatusRequest {}).await.ok()
    })
    .await;
    let device = admin.enroll().await;
    let release = admin.publish("afterwards", "1.0.0", &unique_payload(1_000)).await;
    admin.assign(&release, &[&device]).await;
    let deployment = device.granted().await;
    device.complete(&deployment).await;
}

#[tokio::test]
async fn every_rpc_has_a_call_that_goes_well_while_postgres_is_there() {
    // Else the other tests would show nothing.
    let server = TestServer::with(with_provider()).await;
    let world = World::new(&server).await;
    let calls = world.calls();
    for path in paths(FILE_DESCRIPTOR_SET) {
        assert!(calls.iter().any(|call| call.path == path), "make a call of {path} in outage/calls.rs");
    }
    for call in calls {
        if let Err(status) = world.client(&server, &call).call(call.path, call.message.clone()).await {
            assert_refused(&status, Code::Unimplemented, "NOT_IMPLEMENTED");
        }
    }
}

#[tokio::test]
async fn without_postgres_every_rpc_says_so_at_once_and_afterwards_all_works() {
    let mut cluster = DedicatedCluster::start().await;
    let server = TestServer::on(&cluster, wide()).await;
    let world = World::new(&server).await;
    let before = rows(server.pool()).await;
    cluster.stop().await;

    let mut calls = JoinSet::new();
    for call in world.calls() {
        let client = match policy::demand(call.path) {
            // The server has to read a device that it does not know yet.
            Some(Demand::Device | Demand::EnrolledKey) => RawClient::new(&server.url(), world.unknown_device.bearer()),
            Some(Demand::Nothing | Demand::Operator(_)) | None => world.client(&server, &call),
        };
        calls.spawn(async move { (call.path, soon(&client, &call).await) });
    }
    while let Some(ended) = calls.join_next().await {
        let (path, outcome) = ended.unwrap();
        match outcome {
            // These are asked of no database.
            Ok(_) if path.ends_with("/CreateChallenge") || path.ends_with("/GetLoginOptions") => {}
            outcome => assert_outage(path, outcome),
        }
    }

    cluster.resume().await;
    assert_eq!(rows(server.pool()).await, before);
    assert_works(&server).await;
    server.stop().await;
}

#[tokio::test]
async fn postgres_going_away_in_the_middle_of_every_rpc_leaves_nothing_half_done() {
    let mut cluster = DedicatedCluster::start().await;
    let server = TestServer::on(&cluster, wide()).await;
    let world = World::new(&server).await;
    let before = rows(server.pool()).await;

    // Holds every call in the middle of its first statement. The gate has to read tokens, so these stay free.
    let held: Vec<_> = tables(server.pool()).await.into_iter().filter(|table| table != "api_token").collect();
    let mut holder = server.pool().begin().await.unwrap();
    let lock = AssertSqlSafe(format!("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE", held.join(", ")));
    sqlx::query(lock).execute(&mut *holder).await.unwrap();

    let ended = Arc::new(AtomicUsize::new(0));
    let mut calls = JoinSet::new();
    let all = world.calls();
    let count = all.len();
    for call in all {
        let (client, ended) = (world.client(&server, &call), Arc::clone(&ended));
        calls.spawn(async move {
            let outcome = client.call(call.path, call.message.clone()).await;
            ended.fetch_add(1, Ordering::SeqCst);
            (call.path, outcome)
        });
    }
    let stuck = eventually("every call has ended or waits in Postgres", PATIENCE, async || {
        let statement = "SELECT count(*) FROM pg_stat_activity
                         WHERE application_name = 'ota-server' AND wait_event_type = 'Lock'";
        let waiting: i64 = sqlx::query_scalar(statement).fetch_one(server.pool()).await.unwrap();
        let open = count - ended.load(Ordering::SeqCst);
        (usize::try_from(waiting).unwrap() >= open).then_some(open)
    });
    let stuck = stuck.await;
    assert!(stuck > 40, "only {stuck} of {count} calls were in the middle of something");

    let begin = Instant::now();
    cluster.stop().await;
    let mut told = 0;
    while let Some(ended) = tokio::time::timeout(PATIENCE, calls.join_next()).await.expect("no call hangs") {
        let (path, outcome) = ended.unwrap();
        // What had ended before went well or is not part of this server yet.
        match outcome {
            Err(status) if status.code() != Code::Unimplemented => {
                assert_outage(path, Err(status));
                told += 1;
            }
            Ok(_) | Err(_) => {}
        }
    }
    assert!(begin.elapsed() < FEW_SECONDS, "{:?}", begin.elapsed());
    assert!(told > 40, "only {told} of {stuck} calls were told");

    cluster.resume().await;
    drop(holder);
    assert_eq!(rows(server.pool()).await, before);
    assert_works(&server).await;
    server.stop().await;
}

#[tokio::test]
async fn known_devices_check_in_and_download_while_postgres_is_gone() {
    let mut cluster = DedicatedCluster::start().await;
    let server = TestServer::on(&cluster, Options::default()).await;
    let admin = server.admin();
    let (device, stranger) = (admin.enroll().await, admin.enroll().await);
    let bytes = unique_payload(1_000_000);
    let release = admin.publish("app", "1.0.0", &bytes).await;
    let watch = admin.events().watch_events(ota_proto::admin::v1::WatchEventsRequest::default()).await;
    let mut events = watch.unwrap().into_inner();
    admin.assign(&release, &[&device]).await;
    let deployment = device.granted().await;
    let sha256 = ota_e2e::device::payload(&deployment).sha256;
    // Notifications come in the order of commits: once this one is here, none before it makes the server forget.
    while events.message().await.unwrap().expect("an event").event.unwrap().kind != "deployment.granted" {}
    drop(events);
    cluster.stop().await;

    for _ in 0..50 {
        let answer = device.check_in().await.unwrap();
        assert_eq!(answer.deployments, std::slice::from_ref(&deployment));
    }
    assert!(device.download(&sha256, 0, 0).await.unwrap() == bytes);
    device.watch().await.unwrap();
    let status = stranger.check_in().await.unwrap_err();
    assert_refused(&status, Code::Unavailable, "DATABASE_UNAVAILABLE");
    let report = device.report(&deployment, 1, ota_proto::device::v1::DeploymentState::Downloading);
    assert_refused(&report.await.unwrap_err(), Code::Unavailable, "DATABASE_UNAVAILABLE");

    cluster.resume().await;
    assert_works(&server).await;
    // The report that was refused is made again and counts once.
    device.complete(&deployment).await;
    server.stop().await;
}

#[tokio::test]
async fn what_was_changed_around_the_outage_reaches_the_devices() {
    let mut cluster = DedicatedCluster::start().await;
    let server = TestServer::on(&cluster, Options::default()).await;
    let admin = server.admin();
    let device = admin.enroll().await;
    device.check_in().await.unwrap();
    let mut stream = device.watch().await.unwrap();
    cluster.stop().await;
    cluster.resume().await;
    assert_works(&server).await;
    let release = admin.publish("app", "1.0.0", &unique_payload(1_000)).await;
    admin.assign(&release, &[&device]).await;
    tokio::time::timeout(PATIENCE, stream.message()).await.expect("a ring").unwrap().expect("a ring");
    assert_eq!(device.granted().await.version, "1.0.0");
    server.stop().await;
}

#[tokio::test]
async fn a_server_whose_connections_are_all_busy_is_still_ready() {
    let server = TestServer::with(Options { database_connections: 2, ..Options::default() }).await;
    let pool = &server.app().pool;
    // The server's own work may have one of them.
    let mut busy = Vec::new();
    while let Ok(connection) = pool.acquire().await {
        busy.push(connection);
    }
    assert!(!busy.is_empty() && pool.try_acquire().is_none());
    ota_server::db::ping(pool).await.unwrap();
}
