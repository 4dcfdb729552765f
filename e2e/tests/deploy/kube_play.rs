//! The chart's Deployment, run by podman from the manifest that Helm renders: with its security context, its limits, its
//! Secrets and its probes, on a real Postgres and a real object store.

mod manifest;
mod pod;

use std::{fs, time::Duration};

use ota_e2e::{
    CountingProxy, Operator, binaries::succeed, container::image, database, database_port::DatabasePort, eventually,
    object_store::ObjectStore, process::AgentProcess, tree,
};
use ota_proto::admin::v1::DeploymentState;
use rand::{Rng as _, SeedableRng as _, rngs::SmallRng};
use serde_json::json;
use tokio::process::Command;

use manifest::Release;
use pod::Pod;

const MIB: u64 = 1024 * 1024;
const PAYLOAD_BYTES: u64 = 48 * MIB;

/// How long a broken test takes to fail.
const PATIENCE: Duration = Duration::from_secs(300);

/// Ports of the chart. They cannot be chosen, so only one test may use them.
const DEVICES: &str = "127.0.0.1:8443";
const ADMIN: &str = "https://127.0.0.1:8444";

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_is_deleted_amid_a_download_is_replaced_and_the_update_comes_to_its_end() {
    let Some(image) = image("the chart's Deployment under podman") else { return };
    let Some(helm) = manifest::helm() else { return };
    let Some(store) = ObjectStore::start().await else { return };
    let _ports = crate::PORTS.lock().await;
    let database = database::empty().await;
    let port = DatabasePort::open(&database.connect_options()).await;
    let scratch = tempfile::tempdir().unwrap();
    let release = release(&image, &store, &port, &helm);

    // The schema is the Job's work: the server only waits for it.
    let job = release.render(&[]).await;
    Pod::play(job.migration_pod()).await.succeeded().await;

    let pod = Pod::play(job.deployment()).await;
    pod.passes_its_probes().await;
    pod.is_confined().await;

    let authority = scratch.path().join("ca.pem");
    fs::write(&authority, succeed(&mut pod.exec(&["/ota-server", "authority"])).await.stdout).unwrap();
    let token = job.secret("story-ota-admin-token", "admin-token");
    let token_file = scratch.path().join("admin-token");
    fs::write(&token_file, &token).unwrap();
    let otactl = |arguments: &[&str]| {
        let mut command = Command::new(&ota_e2e::Binaries::get().otactl);
        command.env("OTACTL_CONFIG", scratch.path().join("otactl.toml")).arg("--no-input");
        command.args(["--server", ADMIN, "--token-file"]).arg(&token_file).arg("--ca-file").arg(&authority);
        command.args(arguments);
        command
    };

    let folder = scratch.path().join("app");
    tree::write(&folder.join("bin/start"), b"#!/bin/sh\n", 0o755);
    let mut content = vec![0; usize::try_from(PAYLOAD_BYTES).unwrap()];
    SmallRng::seed_from_u64(1).fill_bytes(&mut content);
    tree::write(&folder.join("lib/app.so"), &content, 0o644);
    let upload = otactl(&["upload", folder.to_str().unwrap(), "--package", "app", "--version", "1.0.0"]).output().await;
    let upload = upload.unwrap();
    assert!(upload.status.success(), "{}", String::from_utf8_lossy(&upload.stderr));
    assert!(!store.objects().await.is_empty(), "the payload is in the object store");

    let made = succeed(&mut otactl(&["enroll-token", "create", "--output", "json"])).await;
    let made = String::from_utf8(made.stdout).unwrap();
    let string = made.split('"').find(|part| part.starts_with("ota1.")).expect("an enrolment string");
    let proxy = CountingProxy::start(DEVICES.parse().unwrap()).await;
    let mut agent = AgentProcess::enroll(&proxy.url(), string).await;
    let device = agent.name();
    succeed(&mut otactl(&["assign", "app@1.0.0", device.strip_prefix("devices/").unwrap(), "--yes"])).await;

    let half = proxy.down() + PAYLOAD_BYTES / 2;
    proxy.let_come_down(half);
    agent.start();
    proxy.came_down(half).await;
    // As when its node dies: nobody waits for the download.
    pod.delete().await;
    proxy.let_come_down(u64::MAX);

    // Its replacement is from an upgrade to the other way to migrate: each pod does so itself before it serves.
    let init = release.render(&["--set", "migrations.mode=init"]).await.keeping(&job);
    let pod = Pod::play(init.deployment()).await;
    pod.passes_its_probes().await;

    let operator = Operator::new(ADMIN, token.trim());
    let deployment = eventually("the deployment ends", PATIENCE, async || {
        let deployment = operator.deployments(&device).await.into_iter().next()?;
        deployment.end_time.is_some().then_some(deployment)
    })
    .await;
    assert_eq!(deployment.state(), DeploymentState::Succeeded, "{deployment:?}");
    assert_eq!(tree::read(&agent.current("app")), tree::read(&folder));
    let events = operator.events_of(&device).await;
    let kinds: Vec<_> = events.iter().map(|event| event.kind.as_str()).collect();
    assert_eq!(kinds.iter().filter(|kind| **kind == "deployment.succeeded").count(), 1, "{kinds:?}");
    let came = proxy.down();
    assert!(came < PAYLOAD_BYTES * 5 / 4, "{came} bytes came for a payload of {PAYLOAD_BYTES}: it began anew");

    agent.terminate().await;
    assert_eq!(pod.stop().await, 0, "the server ends well when its pod is deleted");
}

/// What the values of this release say.
fn release(image: &str, store: &ObjectStore, port: &DatabasePort, helm: &std::path::Path) -> Release {
    let environment = store.environment();
    let variable =
        |name: &str| environment.iter().find(|(known, _)| known == name).expect("a variable of the store").1.clone();
    let (repository, tag) = image.rsplit_once(':').expect("an image with a tag");
    let (registry, repository) = repository.split_once('/').expect("an image in a registry");
    let url = store.url();
    let (bucket, prefix) = url.trim_start_matches("s3://").split_once('/').expect("a bucket and a prefix");
    let values = json!({
        "image": { "registry": registry, "repository": repository, "tag": tag },
        "replicas": 1,
        "database": { "existingSecret": "story-database" },
        "objectStore": {
            "bucket": bucket, "prefix": prefix, "endpoint": variable("AWS_ENDPOINT"), "region": variable("AWS_REGION"),
            "existingSecret": "story-store",
        },
        "tls": { "names": ["127.0.0.1"] },
        "server": { "checkInInterval": "1s" },
    });
    Release::new(helm, values).secret("story-database", &[("uri", &port.url("127.0.0.1"))]).secret(
        "story-store",
        &[("access-key-id", &variable("AWS_ACCESS_KEY_ID")), ("secret-access-key", &variable("AWS_SECRET_ACCESS_KEY"))],
    )
}
