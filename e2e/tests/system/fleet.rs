//! A server, an agent, and somebody at a terminal: where each test of this binary begins.

use std::{
    env, fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::Output,
    str::FromStr,
    time::Duration,
};

use ota_e2e::{
    Binaries, Operator,
    binaries::{run, succeed},
    eventually,
    process::{AgentProcess, ServerProcess},
    tree,
};
use ota_proto::admin::v1::{Deployment, DeploymentState, EnrollToken};
use rand::{Rng as _, RngExt as _, SeedableRng as _, rngs::SmallRng};
use tokio::process::Command;

pub(crate) const MIB: u64 = 1024 * 1024;

/// How long a broken test takes to fail.
pub(crate) const PATIENCE: Duration = Duration::from_secs(300);

/// Reads a number from the environment, or takes the default.
pub(crate) fn setting<T: FromStr>(name: &str, default: T) -> T {
    match env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")),
        Err(_) => default,
    }
}

/// `otactl`, with the first admin's token.
pub(crate) fn otactl(server: &ServerProcess, url: &str) -> Command {
    let mut command = Command::new(&Binaries::get().otactl);
    command
        .env("OTACTL_CONFIG", server.scratch().join("otactl.toml"))
        .args(["--no-input", "--server", url, "--token-file"])
        .arg(server.admin_token_file())
        .arg("--ca-file")
        .arg(server.authority_file());
    command
}

/// Runs `otactl` and reads the JSON that it writes.
pub(crate) async fn otactl_json(server: &ServerProcess, arguments: &[&str]) -> serde_json::Value {
    let mut command = otactl(server, &server.url());
    let output = succeed(command.args(arguments).args(["-o", "json"])).await;
    serde_json::from_slice(&output.stdout).expect("otactl writes JSON")
}

/// Uploads a folder or a file, through `url`.
pub(crate) async fn upload(server: &ServerProcess, url: &str, path: &Path, version: &str) -> Output {
    let mut command = otactl(server, url);
    run(command.arg("upload").arg(path).args(["--package", "app", "--version", version])).await
}

/// Uploads a folder or a file as a release of `app`.
pub(crate) async fn publish(server: &ServerProcess, path: &Path, version: &str) {
    let output = upload(server, &server.url(), path, version).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Assigns a release of `app` to a device.
pub(crate) async fn assign(server: &ServerProcess, version: &str, device: &str) {
    let device = device.strip_prefix("devices/").expect("a device's resource name");
    let release = format!("app@{version}");
    succeed(otactl(server, &server.url()).args(["assign", &release, device, "--yes"])).await;
}

/// Enrols an agent that reaches the server through `url`.
pub(crate) async fn enroll(server: &ServerProcess, url: &str) -> AgentProcess {
    let string = server.admin().enrollment_string(EnrollToken::default()).await;
    AgentProcess::enroll(url, &string).await
}

/// Waits until a device's newest deployment has come to an end.
pub(crate) async fn ended(operator: &Operator, device: &str) -> Deployment {
    eventually("the deployment ends", PATIENCE, async || {
        let deployment = operator.deployments(device).await.into_iter().next()?;
        deployment.end_time.is_some().then_some(deployment)
    })
    .await
}

/// Waits until a device has come to run what it was last assigned.
pub(crate) async fn succeeded(operator: &Operator, device: &str) {
    let deployment = ended(operator, device).await;
    assert_eq!(deployment.state(), DeploymentState::Succeeded, "{deployment:?}");
}

/// Asserts that a device has installed a folder as it was uploaded: every file, nothing else.
pub(crate) fn assert_installed(agent: &AgentProcess, folder: &Path) {
    assert_eq!(tree::read(&agent.current("app")), tree::read(folder));
}

/// Makes a folder of some `size` bytes, like a program's: a few large files, many small ones, one to run.
pub(crate) fn make_folder(parent: &Path, size: u64, seed: u64) -> PathBuf {
    const SMALL_FILES: u64 = 40;
    const LARGE_FILES: u64 = 6;
    let folder = parent.join(format!("release-{seed}"));
    let mut rng = SmallRng::seed_from_u64(seed);
    tree::write(&folder.join("bin/start"), format!("#!/bin/sh\necho {seed}\n").as_bytes(), 0o755);
    for number in 0..SMALL_FILES {
        let mut content = vec![0; rng.random_range(0..8_192)];
        rng.fill_bytes(&mut content);
        tree::write(&folder.join(format!("share/{}/{number}", number % 4)), &content, 0o644);
    }
    fs::create_dir_all(folder.join("lib")).expect("a folder can be made");
    for number in 0..LARGE_FILES {
        let mut file = fs::File::create(folder.join(format!("lib/{number}.so"))).expect("a file can be made");
        let mut piece = vec![0; MIB as usize];
        let mut left = size / LARGE_FILES;
        while left > 0 {
            rng.fill_bytes(&mut piece);
            let length = left.min(MIB);
            file.write_all(&piece[..length as usize]).expect("a file can be written");
            left -= length;
        }
    }
    folder
}
