//! A fleet in the middle of an update while its servers are restarted one after the other.

use std::{
    collections::BTreeMap,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use ota_e2e::{Balancer, Operator, eventually, operator::unique_payload, process::AgentProcess};
use ota_proto::admin::v1::{
    Deployment, DeploymentState, EnrollToken, GetRolloutRequest, GetStatusRequest, ListDeploymentsRequest,
    ListEventsRequest, RolloutState, target::Choice,
};

use tokio::sync::Mutex;
use tonic::{Code, Status};

use crate::{
    fleet::Fleet,
    replicas::{PATIENCE, Replicas},
};

/// How many of the devices are processes of their own. The others are as much of the agent as fits into this one.
const PROGRAMS: usize = 3;

const PAYLOAD_BYTES: usize = 2 << 20;

/// What is not payload: handshakes, metadata, answers, frames. Measured: 15 KiB.
const OVERHEAD_BYTES: u64 = 64 << 10;

/// What a download that breaks off may cost: what was on its way to the device, in a piece and in the buffers. Measured:
/// 135 KiB.
const LOST_BYTES: u64 = 512 << 10;

const ARGUMENTS: &[&str] = &[
    // Longer than a fleet of this size needs: who does not hear the doorbell is found out.
    "--check-in-interval",
    "5m",
    "--max-connection-age",
    "12s",
    // Shorter than a download takes: some are cut.
    "--drain-timeout",
    "1s",
    "--enroll-rate",
    "1000/1s",
];

/// How a server goes down.
#[derive(Clone, Copy)]
enum Down {
    Terminated,
    Killed,
}

#[tokio::test(flavor = "multi_thread")]
async fn no_update_fails_while_replicas_restart_one_after_the_other() {
    story(200, &[(0, Down::Terminated), (1, Down::Terminated), (0, Down::Terminated)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_update_fails_when_a_replica_is_killed() {
    story(100, &[(1, Down::Killed)]).await;
}

async fn story(devices: usize, restarts: &[(usize, Down)]) {
    // One after the other: each takes all of a small machine.
    static ALONE: Mutex<()> = Mutex::const_new(());
    let _alone = ALONE.lock().await;
    let Some(mut replicas) = Replicas::start(ARGUMENTS).await else { return };
    let balancer = Balancer::start(&[replicas.a.address(), replicas.b.address()]).await;
    balancer.sees(0, true).await;
    balancer.sees(1, true).await;
    // Not through the balancer: how the fleet fares is seen also while no replica is ready.
    let operator = replicas.at_b();
    let begin = Instant::now();
    let string =
        replicas.at_a().enrollment_string(EnrollToken { max_uses: devices as i32, ..EnrollToken::default() }).await;
    let fleet = Fleet::start(&balancer.url(), &string, devices - PROGRAMS).await;
    let mut programs = Vec::new();
    for _ in 0..PROGRAMS {
        let mut program = AgentProcess::enroll(&balancer.url(), &string).await;
        program.start();
        programs.push(program);
    }
    let names: Vec<_> = fleet.names().iter().cloned().chain(programs.iter().map(AgentProcess::name)).collect();
    eventually("all devices are there", PATIENCE, async || (online(&operator).await? == devices).then_some(())).await;
    eprintln!("{devices} devices enrolled and there after {:?}", begin.elapsed());

    let begin = Instant::now();
    let payload = unique_payload(PAYLOAD_BYTES);
    let release = replicas.at_a().publish("app", "1.0.0", &payload).await;
    let before = balancer.down(0) + balancer.down(1);
    let rollout = replicas.at_b().create_rollout(&release, Choice::All(true)).await.unwrap();
    for &(replica, down) in restarts {
        // In the middle of transfers: so much has come from this server since it was looked at last.
        balancer.came_down(replica, balancer.down(replica) + (PAYLOAD_BYTES as u64)).await;
        let interrupted = fleet.noticed().interrupted.load(Ordering::Relaxed);
        let server = if replica == 0 { &mut replicas.a } else { &mut replicas.b };
        let stopping = Instant::now();
        match down {
            Down::Terminated => assert!(server.terminate().await.success()),
            Down::Killed => server.kill(),
        }
        let stopped = stopping.elapsed();
        balancer.sees(replica, false).await;
        server.restart().await;
        balancer.sees(replica, true).await;
        eprintln!(
            "{:?}: replica {replica} was down after {stopped:?}, ready again after {:?}, {} downloads were cut",
            begin.elapsed(),
            stopping.elapsed(),
            fleet.noticed().interrupted.load(Ordering::Relaxed) - interrupted,
        );
    }
    completed(&operator, &rollout.name).await;
    let interrupted = fleet.noticed().interrupted.load(Ordering::Relaxed);
    let came = balancer.down(0) + balancer.down(1) - before;
    eprintln!(
        "{:?}: all are updated; {interrupted} downloads were cut; {} KiB a device, of {} KiB",
        begin.elapsed(),
        came / devices as u64 / 1024,
        PAYLOAD_BYTES / 1024
    );
    assert_updated(&operator, &rollout.name, &names).await;
    fleet.assert_runs("app", &payload);
    for program in &programs {
        assert!(std::fs::read(program.current("app").join("app")).unwrap() == payload);
    }
    assert_eq!(fleet.noticed().damaged.load(Ordering::Relaxed), 0);
    assert!(interrupted > 0, "no restart met a download");
    let most = devices as u64 * (PAYLOAD_BYTES as u64 + OVERHEAD_BYTES) + interrupted * LOST_BYTES;
    assert!(came <= most, "{came} bytes came, at most {most} should");

    // Connections come to their age, and both replicas have their share of the next update.
    eventually("both replicas have connections", PATIENCE, async || {
        (0..2).all(|replica| balancer.open(replica) >= devices / 5).then_some(())
    })
    .await;
    eprintln!("{:?}: both replicas have connections", begin.elapsed());
    let payload = unique_payload(64 * 1024);
    let before = [balancer.down(0), balancer.down(1)];
    let release = operator.publish("app", "1.1.0", &payload).await;
    let rollout = operator.create_rollout(&release, Choice::All(true)).await.unwrap();
    completed(&operator, &rollout.name).await;
    assert_updated(&operator, &rollout.name, &names).await;
    fleet.assert_runs("app", &payload);
    for program in &programs {
        assert!(std::fs::read(program.current("app").join("app")).unwrap() == payload);
    }
    for (replica, before) in before.into_iter().enumerate() {
        let came = balancer.down(replica) - before;
        assert!(came > (devices / 10 * payload.len()) as u64, "{came} bytes came from replica {replica}");
    }
    eprintln!("{:?}: all are updated again", begin.elapsed());
    fleet.stop().await;
}

/// `None` for what is to be asked again: the fleet may have all connections to the database.
fn answered<T>(answer: Result<T, Status>) -> Option<T> {
    match answer {
        Ok(answer) => Some(answer),
        Err(status) if status.code() == Code::Unavailable => None,
        Err(status) => panic!("{status:?}"),
    }
}

async fn online(operator: &Operator) -> Option<usize> {
    let status = answered(operator.status().get_status(GetStatusRequest {}).await)?.into_inner();
    usize::try_from(status.devices?.online).ok()
}

/// Waits until a rollout is complete.
async fn completed(operator: &Operator, rollout: &str) {
    eventually("the rollout is complete", PATIENCE + Duration::from_secs(60), async || {
        let read = operator.rollouts().get_rollout(GetRolloutRequest { name: rollout.to_owned() }).await;
        (answered(read)?.into_inner().rollout?.state() == RolloutState::Completed).then_some(())
    })
    .await;
}

/// Asserts that every device was updated at the first attempt, and that exactly one event says so.
async fn assert_updated(operator: &Operator, rollout: &str, devices: &[String]) {
    let request = ListDeploymentsRequest { rollout: rollout.to_owned(), page_size: 1_000, ..Default::default() };
    let listed = eventually("deployments are listed", PATIENCE, async || {
        answered(operator.rollouts().list_deployments(request.clone()).await)
    });
    let deployments = listed.await.into_inner().deployments;
    assert_eq!(deployments.len(), devices.len());
    let is_good = |deployment: &Deployment| deployment.state() == DeploymentState::Succeeded && deployment.attempt == 1;
    let bad: Vec<_> = deployments.iter().filter(|deployment| !is_good(deployment)).collect();
    assert!(bad.is_empty(), "{bad:?}");
    let request = ListEventsRequest {
        rollout: rollout.to_owned(),
        filter: "kind=deployment.succeeded".to_owned(),
        page_size: 1_000,
        ..Default::default()
    };
    let listed = eventually("events are listed", PATIENCE, async || {
        answered(operator.events().list_events(request.clone()).await)
    });
    let events = listed.await.into_inner().events;
    let mut successes: BTreeMap<_, usize> = BTreeMap::new();
    for event in events {
        *successes.entry(event.device).or_default() += 1;
    }
    let expected: BTreeMap<_, _> = devices.iter().map(|name| (name.clone(), 1)).collect();
    assert_eq!(successes, expected);
}
