//! What somebody does by hand on the first evening, and what they see.

use std::fs;

use ota_e2e::{
    SmallDisk,
    binaries::{Binaries, succeed},
    process::{AgentProcess, ServerProcess},
    tree,
};
use ota_proto::admin::v1::{DeploymentState, EnrollToken};
use tokio::process::Command;

use crate::fleet::{self, MIB, assert_installed, assign, ended, make_folder, otactl_json, publish};

#[tokio::test]
async fn the_first_evening() {
    let server = ServerProcess::start().await;
    let config = server.scratch().join("config.toml");
    // As a person: a saved context, no flags.
    let otactl = || {
        let mut command = Command::new(&Binaries::get().otactl);
        command.env("OTACTL_CONFIG", &config).env_remove("OTACTL_TOKEN").arg("--no-input");
        command
    };
    let token = server.admin_token_file();
    let authority = server.authority_file();
    let login = ["login", &server.url(), "--token-file"];
    succeed(otactl().args(login).arg(&token).arg("--ca-file").arg(&authority)).await;

    let folder = make_folder(server.scratch(), 3 * MIB, 1);
    let release = ["--package", "app", "--version", "1.0.0"];
    succeed(otactl().arg("upload").arg(&folder).args(release).arg("--dry-run")).await;
    let packages = otactl_json(&server, &["package", "list"]).await;
    assert!(packages.to_string().find("packages/app").is_none(), "a dry run published {packages}");
    succeed(otactl().arg("upload").arg(&folder).args(release)).await;

    let made = succeed(otactl().args(["enroll-token", "create", "-o", "json"])).await;
    let made: serde_json::Value = serde_json::from_slice(&made.stdout).unwrap();
    let string = find_string(&made, "ota1.").expect("the enrolment string");
    let agent = AgentProcess::enroll(&server.url(), &string).await;

    // Nothing is assigned yet.
    assert!(agent.once().await.status.success());
    assert!(!agent.current("app").exists());

    let device = agent.name();
    let id = device.strip_prefix("devices/").unwrap();
    succeed(otactl().args(["assign", "app@1.0.0", id])).await;
    let output = agent.once().await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_installed(&agent, &folder);

    let devices = otactl_json(&server, &["device", "list"]).await;
    let seen = &devices["devices"][0];
    assert_eq!(seen["name"], device);
    assert_eq!(seen["running"][0]["package"], "app");
    assert_eq!(seen["running"][0]["version"], "1.0.0");
    let deployments = otactl_json(&server, &["deployment", "list"]).await;
    assert!(deployments.to_string().contains("SUCCEEDED"), "{deployments}");
    let events = otactl_json(&server, &["event", "list"]).await.to_string();
    for kind in ["release.published", "device.enrolled", "deployment.succeeded"] {
        assert!(events.contains(kind), "{kind} is not among {events}");
    }
    let status = succeed(&mut Command::from(agent.command("status"))).await;
    assert!(String::from_utf8_lossy(&status.stdout).contains("1.0.0"));
}

/// Finds the text that begins like this, wherever it is.
fn find_string(value: &serde_json::Value, beginning: &str) -> Option<String> {
    match value {
        serde_json::Value::String(text) => text.starts_with(beginning).then(|| text.clone()),
        serde_json::Value::Array(values) => values.iter().find_map(|value| find_string(value, beginning)),
        serde_json::Value::Object(fields) => fields.values().find_map(|value| find_string(value, beginning)),
        serde_json::Value::Null | serde_json::Value::Bool(_) | serde_json::Value::Number(_) => None,
    }
}

#[tokio::test]
async fn a_full_disk_fails_the_deployment_and_the_old_release_runs_on() {
    let Some(disk) = SmallDisk::make("a full disk on the device", 8 << 20) else { return };
    let server = ServerProcess::start().await;
    let operator = server.admin();
    let string = operator.enrollment_string(EnrollToken::default()).await;
    let agent = AgentProcess::enroll_at(&disk.path().join("data"), &server.url(), &string).await;

    let small = make_folder(server.scratch(), MIB, 1);
    publish(&server, &small, "1.0.0").await;
    assign(&server, "1.0.0", &agent.name()).await;
    assert!(agent.once().await.status.success());
    assert_installed(&agent, &small);

    // Fits neither whole nor unpacked; and fits whole, but not unpacked beside itself.
    for (version, size) in [("2.0.0", 16 * MIB), ("3.0.0", 4 * MIB)] {
        let large = make_folder(server.scratch(), size, size);
        publish(&server, &large, version).await;
        assign(&server, version, &agent.name()).await;
        agent.once().await;
        let deployment = ended(&operator, &agent.name()).await;
        let failure = deployment.failure.clone().unwrap_or_default();
        assert_eq!(
            (deployment.state(), failure.code.as_str()),
            (DeploymentState::Failed, "NO_SPACE"),
            "{deployment:?}"
        );
        assert_installed(&agent, &small);
        assert_eq!(operator.device(&agent.name()).await.running[0].version, "1.0.0");
    }

    // What was given up left no rubbish behind: the next one that fits goes in.
    let fits = make_folder(server.scratch(), MIB, 2);
    publish(&server, &fits, "4.0.0").await;
    assign(&server, "4.0.0", &agent.name()).await;
    agent.once().await;
    fleet::succeeded(&operator, &agent.name()).await;
    assert_installed(&agent, &fits);
}

#[tokio::test]
async fn a_file_is_installed_and_replaced() {
    let server = ServerProcess::start().await;
    let operator = server.admin();
    let agent = fleet::enroll(&server, &server.url()).await;
    for version in ["1.0.0", "2.0.0"] {
        let file = server.scratch().join("program");
        tree::write(&file, format!("#!/bin/sh\necho {version}\n").as_bytes(), 0o755);
        publish(&server, &file, version).await;
        assign(&server, version, &agent.name()).await;
        assert!(agent.once().await.status.success());
        fleet::succeeded(&operator, &agent.name()).await;
        let installed = fs::read_to_string(agent.current("app").join("app")).unwrap();
        assert_eq!(installed, format!("#!/bin/sh\necho {version}\n"));
    }
}
