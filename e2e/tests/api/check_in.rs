//! `UpdateService.CheckIn`: the single source of truth, and what it costs.

use std::{collections::BTreeSet, time::Duration};

use ota_e2e::{
    Options, TestDevice, TestServer, assert_violates,
    device::{payload, runs, sha256},
    eventually,
    operator::unique_payload,
};
use ota_proto::{
    admin::v1::GetStatusRequest,
    device::v1::{CheckInRequest, RunningRelease, TrustFault},
};
use sqlx::PgPool;

fn release(package: &str, version: &str) -> RunningRelease {
    let payload_sha256 = sha256(version.as_bytes()).0.to_vec().into();
    RunningRelease { package: package.to_owned(), version: version.to_owned(), payload_sha256 }
}

/// Transactions that Postgres counted in the database of `pool`. A connection counts for certain when it is closed.
async fn transactions(pool: &PgPool) -> i64 {
    let statement = "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()";
    sqlx::query_scalar(statement).fetch_one(pool).await.unwrap()
}

async fn kinds(server: &TestServer, device: &TestDevice) -> Vec<String> {
    server.admin().events_of(&device.name()).await.into_iter().map(|event| event.kind).collect()
}

/// What Postgres counts for a server that starts, serves `rounds` check-ins of each device and stops.
async fn cost(idle: &TestServer, devices: &[TestDevice], running: &[RunningRelease], rounds: usize) -> i64 {
    let before = transactions(idle.pool()).await;
    let server = idle.replica().await;
    let devices: Vec<_> = devices.iter().map(|device| device.at(&server.url())).collect();
    for _ in 0..rounds {
        let asks = devices.iter().map(|device| device.check_in_running(running));
        for answer in futures_util::future::join_all(asks).await {
            assert!(answer.unwrap().deployments.is_empty());
        }
    }
    server.stop().await;
    transactions(idle.pool()).await - before
}

#[tokio::test]
async fn in_the_steady_state_it_costs_no_query() {
    const DEVICES: usize = 20;
    const ROUNDS: usize = 100;
    /// What servers do by the clock, and the first reading of each device.
    const OVERHEAD: i64 = 400;

    let idle = TestServer::start().await;
    let server = idle.replica().await;
    let admin = server.admin();
    let mut devices = Vec::new();
    for _ in 0..DEVICES {
        devices.push(admin.enroll().await);
    }
    let running = [release("app", "1.0.0"), release("base", "2.0.0")];
    for device in &devices {
        device.check_in_running(&running).await.unwrap();
    }
    server.stop().await;

    let few = cost(&idle, &devices, &running, 1).await;
    let many = cost(&idle, &devices, &running, ROUNDS).await;
    let check_ins = i64::try_from(DEVICES * (ROUNDS - 1)).unwrap();
    assert!(many - few < OVERHEAD, "{check_ins} more check-ins cost {} transactions", many - few);
}

#[tokio::test]
async fn what_a_device_runs_is_recorded_once() {
    let server = TestServer::start().await;
    let device = server.admin().enroll().await;
    for _ in 0..3 {
        device.check_in_running(&[release("app", "1.0.0")]).await.unwrap();
    }
    let changes = || async {
        let kinds = kinds(&server, &device).await;
        kinds.iter().filter(|kind| *kind == "device.running_changed").count()
    };
    assert_eq!(changes().await, 1);
    let seen = server.admin().device(&device.name()).await;
    assert_eq!(seen.running.len(), 1);
    assert_eq!((seen.running[0].package.as_str(), seen.running[0].version.as_str()), ("app", "1.0.0"));
    let since = seen.running[0].since_time;

    // Another package beside it does not touch the first.
    for _ in 0..3 {
        device.check_in_running(&[release("base", "0.1.0"), release("app", "1.0.0")]).await.unwrap();
    }
    assert_eq!(changes().await, 2);
    let seen = server.admin().device(&device.name()).await;
    assert_eq!(seen.running.len(), 2);
    let app = seen.running.iter().find(|release| release.package == "app").unwrap();
    assert_eq!(app.since_time, since);

    // What is not told any more does not run any more.
    device.check_in().await.unwrap();
    assert_eq!(changes().await, 3);
    assert!(server.admin().device(&device.name()).await.running.is_empty());
}

#[tokio::test]
async fn a_trust_fault_is_shown_and_forgotten_when_the_device_believes_again() {
    let server = TestServer::start().await;
    let admin = server.admin();
    let device = admin.enroll().await;
    let disbelieving = |warning: &String| warning.contains("does not believe");
    let shown = || async {
        let fault = admin.device(&device.name()).await.trust_fault;
        let status = admin.status().get_status(GetStatusRequest {}).await.unwrap().into_inner();
        (fault, status.warnings.iter().any(disbelieving))
    };
    assert_eq!(shown().await, (String::new(), false));
    for fault in [TrustFault::MixAndMatch, TrustFault::MixAndMatch, TrustFault::Rollback] {
        device.check_in_doubting(fault).await.unwrap();
    }
    assert_eq!(shown().await, ("ROLLBACK".to_owned(), true));
    device.check_in_doubting(TrustFault::Unspecified).await.unwrap();
    assert_eq!(shown().await, (String::new(), false));

    let events = admin.events_of(&device.name()).await;
    let told = events.iter().filter(|event| event.kind.starts_with("device.trust_"));
    let mut told: Vec<_> = told.map(|event| (event.kind.as_str(), event.details.get("fault").cloned())).collect();
    told.sort();
    let fault = |name: &str| ("device.trust_fault", Some(name.to_owned()));
    assert_eq!(told, [fault("mix_and_match"), fault("rollback"), ("device.trust_restored", None)]);
}

#[tokio::test]
async fn a_repeated_trust_fault_costs_no_statement() {
    const REPEATS: i64 = 2_000;
    let idle = TestServer::start().await;
    let device = idle.admin().enroll().await;
    device.check_in_doubting(TrustFault::Freeze).await.unwrap();
    let before = transactions(idle.pool()).await;
    let server = idle.replica().await;
    let device = device.at(&server.url());
    for _ in 0..REPEATS {
        device.check_in_doubting(TrustFault::Freeze).await.unwrap();
    }
    server.stop().await;
    let cost = transactions(idle.pool()).await - before;
    assert!(cost < REPEATS / 2, "{REPEATS} check-ins with the same fault cost {cost} transactions");
}

#[tokio::test]
async fn two_replicas_that_race_grant_once() {
    const ASKS: usize = 4;
    let server = TestServer::start().await;
    let replica = server.replica().await;
    let admin = server.admin();
    for round in 1..=5 {
        let device = admin.enroll().await;
        let there = device.at(&replica.url());
        // Both replicas know the device, so that both go to grant.
        device.check_in().await.unwrap();
        there.check_in().await.unwrap();
        let release = admin.publish("app", &format!("{round}.0.0"), &unique_payload(100)).await;
        admin.assign(&release, &[&device]).await;
        let asks = (0..ASKS).flat_map(|_| [device.granted(), there.granted()]);
        let granted = futures_util::future::join_all(asks).await;
        assert!(granted.iter().all(|deployment| deployment.attempt == 1), "{granted:?}");
        let events = kinds(&server, &device).await;
        assert_eq!(events.iter().filter(|kind| *kind == "deployment.granted").count(), 1, "{events:?}");
    }
}

#[tokio::test]
async fn an_assignment_brings_all_that_the_device_needs_to_know() {
    let server = TestServer::start().await;
    let admin = server.admin();
    let device = admin.enroll().await;
    let bytes = unique_payload(1_000);
    let release = admin.publish("app", "1.2.3-rc.1", &bytes).await;
    admin.assign(&release, &[&device]).await;
    let deployment = device.granted().await;
    assert_eq!((deployment.package.as_str(), deployment.version.as_str()), ("app", "1.2.3-rc.1"));
    assert_eq!((deployment.attempt, deployment.release_counter), (1, 1));
    assert_eq!(payload(&deployment).sha256, sha256(&bytes).0.to_vec());
    assert_eq!(payload(&deployment).size_bytes, 1_000);
    // It stays until the device has done it.
    assert_eq!(device.granted().await, deployment);
    device.complete(&deployment).await;
    assert!(device.check_in_running(&[runs(&deployment)]).await.unwrap().deployments.is_empty());
}

#[tokio::test]
async fn the_next_check_in_is_spread_by_a_tenth() {
    let interval = Duration::from_secs(1_000);
    let server = TestServer::with(Options { check_in_interval: interval, ..Options::default() }).await;
    let device = server.admin().enroll().await;
    let mut seconds = BTreeSet::new();
    for _ in 0..200 {
        let next = device.check_in().await.unwrap().next_check_in.unwrap();
        assert!((900..=1_100).contains(&next.seconds), "{next:?}");
        seconds.insert(next.seconds);
    }
    // 200 draws from 200 seconds: fewer than 60 different ones, or none in an outer quarter, is no accident.
    assert!(seconds.len() > 60, "{seconds:?}");
    assert!(seconds.first() < Some(&950) && seconds.last() > Some(&1_050), "{seconds:?}");
}

#[tokio::test]
async fn a_device_that_checks_in_is_online_and_a_silent_one_is_not() {
    let server = TestServer::start().await;
    let admin = server.admin();
    let (device, silent) = (admin.enroll().await, admin.enroll().await);
    device.check_in().await.unwrap();
    let deadline = Duration::from_secs(20);
    let seen = eventually("the sign of life is written", deadline, async || {
        let seen = admin.device(&device.name()).await;
        seen.online.then_some(seen)
    });
    let seen = seen.await;
    assert!(seen.last_seen_time.is_some());
    assert_eq!(seen.agent_version, "1.0.0");
    let silent = admin.device(&silent.name()).await;
    assert!(!silent.online && silent.last_seen_time.is_none());
}

#[tokio::test]
async fn every_field_at_fault_is_named_and_nothing_is_recorded() {
    let server = TestServer::start().await;
    let device = server.admin().enroll().await;
    let before = kinds(&server, &device).await;
    let good = release("app", "1.0.0");
    let request = CheckInRequest {
        running: vec![
            good.clone(),
            RunningRelease { package: "../app".to_owned(), ..good.clone() },
            RunningRelease { version: "one".to_owned(), package: "base".to_owned(), ..good.clone() },
            RunningRelease { payload_sha256: vec![7; 31].into(), package: "core".to_owned(), ..good },
        ],
        agent_version: "x".repeat(65),
        inventory_sha256: vec![7; 5].into(),
        ..Default::default()
    };
    let status = device.updates().check_in(request).await.unwrap_err();
    for field in
        ["running[1].package", "running[2].version", "running[3].payload_sha256", "agent_version", "inventory_sha256"]
    {
        assert_violates(&status, field);
    }
    assert_eq!(kinds(&server, &device).await, before);
    assert!(server.admin().device(&device.name()).await.running.is_empty());
}

#[tokio::test]
async fn a_package_told_twice_is_refused() {
    let server = TestServer::start().await;
    let device = server.admin().enroll().await;
    let running = [release("app", "1.0.0"), release("app", "2.0.0")];
    let status = device.check_in_running(&running).await.unwrap_err();
    assert_violates(&status, "running");
}
