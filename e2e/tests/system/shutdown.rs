//! SIGTERM in the middle of things: calls end, Postgres ends, and afterwards everything goes on where it stopped.

use std::{fs, path::Path, process::Stdio};

use ota_e2e::{CountingProxy, credential, eventually, process::ServerProcess};
use rustix::process::{Pid, Signal, kill_process};
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};

use crate::fleet::{MIB, PATIENCE, assert_installed, assign, enroll, make_folder, otactl, publish, succeeded, upload};

/// Above what is sent: messages, frames, other calls.
const OVERHEAD: u64 = MIB;

/// What may be on the way when a connection is cut: windows and buffers.
const IN_FLIGHT: u64 = 6 * MIB;

/// The process id that Postgres left in its folder, while it runs.
fn postgres(data_dir: &Path) -> Option<u32> {
    let file = fs::read_to_string(data_dir.join("postgres/data/postmaster.pid")).ok()?;
    file.lines().next()?.trim().parse().ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_told_to_stop_takes_its_postgres_with_it() {
    let mut server = ServerProcess::start().await;
    let pid = postgres(&server.data_dir()).expect("Postgres runs");
    assert!(Path::new(&format!("/proc/{pid}")).exists());
    let status = server.terminate().await;
    assert!(status.success(), "{status}");
    assert_eq!(postgres(&server.data_dir()), None);
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
    server.restart().await;
    server.admin().enroll().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_whose_postgres_was_killed_ends_and_recovers() {
    let mut server = ServerProcess::start().await;
    let device = server.admin().enroll().await;
    let pid = postgres(&server.data_dir()).and_then(|pid| Pid::from_raw(pid.try_into().ok()?)).expect("Postgres runs");
    kill_process(pid, Signal::KILL).unwrap();
    // Whoever started it starts it again; going on without its database would help nobody.
    assert!(!server.end().await.success());
    server.restart().await;
    assert_eq!(server.admin().device(&device.name()).await.name, device.name());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_told_to_stop_goes_on_where_it_was() {
    let server = ServerProcess::start().await;
    let proxy = CountingProxy::start(server.address()).await;
    let size = 16 * MIB;
    let folder = make_folder(server.scratch(), size, 1);
    publish(&server, &folder, "1.0.0").await;
    let mut agent = enroll(&server, &proxy.url()).await;
    assign(&server, "1.0.0", &agent.name()).await;
    agent.start_with(&["--bandwidth", &(8 * MIB).to_string()]);
    proxy.came_down(4 * MIB).await;
    let status = agent.terminate().await;
    assert!(status.success(), "{status}");
    assert!(proxy.down() < size, "the download was over before the agent was");
    agent.start();
    succeeded(&server.admin(), &agent.name()).await;
    assert_installed(&agent, &folder);
    assert!(proxy.down() < size + MIB + OVERHEAD, "{} bytes came down", proxy.down());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_goes_on_after_the_server_was_stopped_and_started() {
    let mut server = ServerProcess::start_with(&["--drain-timeout", "1s"]).await;
    let proxy = CountingProxy::start(server.address()).await;
    let size = 24 * MIB;
    let folder = make_folder(server.scratch(), size, 1);
    publish(&server, &folder, "1.0.0").await;
    let mut agent = enroll(&server, &proxy.url()).await;
    assign(&server, "1.0.0", &agent.name()).await;
    // Slow enough to be in the middle when the server goes.
    agent.start_with(&["--bandwidth", &(8 * MIB).to_string()]);
    proxy.came_down(8 * MIB).await;
    let status = server.terminate().await;
    assert!(status.success(), "{status}");
    assert_eq!(postgres(&server.data_dir()), None);
    assert!(proxy.down() < size, "the download was over before the server was");
    server.restart().await;
    succeeded(&server.admin(), &agent.name()).await;
    assert_installed(&agent, &folder);
    assert!(proxy.down() < size + MIB + OVERHEAD, "{} bytes came down", proxy.down());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_goes_on_after_the_server_was_stopped_and_started() {
    // No time to drain: what is left of the upload must not fit into it on a fast machine.
    let mut server = ServerProcess::start_with(&["--drain-timeout", "0s"]).await;
    let proxy = CountingProxy::start(server.address()).await;
    let size = 192 * MIB;
    let folder = make_folder(server.scratch(), size, 1);
    let mut command = otactl(&server, &proxy.url());
    let mut first = command
        .arg("upload")
        .arg(&folder)
        .args(["--package", "app", "--version", "1.0.0"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    proxy.went_up(size / 4).await;
    assert!(server.terminate().await.success());
    assert!(proxy.up() < size, "the upload was over before the server was");
    server.restart().await;
    if !first.wait().await.unwrap().success() {
        let again = upload(&server, &proxy.url(), &folder, "1.0.0").await;
        assert!(again.status.success(), "{}", String::from_utf8_lossy(&again.stderr));
    }
    assert!(proxy.up() < size + IN_FLIGHT + OVERHEAD, "{} bytes went up", proxy.up());

    let agent = enroll(&server, &server.url()).await;
    assign(&server, "1.0.0", &agent.name()).await;
    assert!(agent.once().await.status.success());
    assert_installed(&agent, &folder);
}

/// What the server answers when it is asked whether it is ready.
async fn readiness(server: &ServerProcess) -> ServingStatus {
    let mut health = HealthClient::new(credential::connect(&server.url()));
    let request = HealthCheckRequest { service: "readiness".to_owned() };
    health.check(request).await.expect("an answer").into_inner().status()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_with_a_delay_is_not_ready_and_serves_until_it_is_told_again() {
    let mut server = ServerProcess::start_with(&["--stop-delay", "1h"]).await;
    eventually("the server is ready", PATIENCE, async || {
        (readiness(&server).await == ServingStatus::Serving).then_some(())
    })
    .await;
    server.process().signal(Signal::TERM);
    eventually("the server says that it is not ready", PATIENCE, async || {
        (readiness(&server).await == ServingStatus::NotServing).then_some(())
    })
    .await;
    // Over a connection of its own.
    server.admin().enroll().await;
    assert_eq!(server.process().ended(), None);
    let status = server.terminate().await;
    assert!(status.success(), "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delay_ends_by_itself() {
    let mut server = ServerProcess::start_with(&["--stop-delay", "10ms"]).await;
    let status = server.terminate().await;
    assert!(status.success(), "{status}");
}
