//! A pod that podman runs.

use std::{fs, process::Stdio, time::Duration};

use ota_e2e::{
    binaries::succeed,
    container::{inspect, podman},
    credential, eventually,
};
use serde_json::Value;
use tokio::process::Command;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};

use super::manifest::Played;

const PATIENCE: Duration = Duration::from_secs(120);

/// The server's container, as the chart names it.
const SERVER: &str = "ota-server";

/// A pod with its volumes and Secrets, which go when this is dropped.
pub(super) struct Pod {
    played: Played,
}

impl Pod {
    /// Plays it. Its init containers have run then, and its containers have started.
    pub(super) async fn play(played: Played) -> Self {
        // What a run that was killed may have left has the same names.
        let pod = Self { played };
        pod.remove();
        let folder = tempfile::tempdir().expect("a scratch folder");
        for (name, content) in &pod.played.secrets {
            let file = folder.path().join(name);
            fs::write(&file, content).expect("a file that can be made");
            succeed(podman(&["secret", "create", name]).arg(&file)).await;
        }
        let file = folder.path().join("played.yaml");
        fs::write(&file, pod.played.file()).expect("a file that can be made");
        succeed(podman(&["kube", "play"]).arg(&file)).await;
        pod
    }

    /// Deletes it without waiting for what it does.
    pub(super) async fn delete(self) {
        succeed(&mut podman(&["pod", "kill", &self.played.name])).await;
    }

    /// Deletes it as a cluster does, and returns the server's exit code.
    pub(super) async fn stop(self) -> i64 {
        let seconds = self.played.spec["terminationGracePeriodSeconds"].to_string();
        succeed(&mut podman(&["pod", "stop", "--time", &seconds, &self.played.name])).await;
        self.state(SERVER).await["ExitCode"].as_i64().expect("a number")
    }

    /// Waits until its only container has ended well.
    pub(super) async fn succeeded(self) {
        let name = self.played.spec["containers"][0]["name"].as_str().expect("a text").to_owned();
        let code = eventually("the container ends", PATIENCE, async || {
            let state = self.state(&name).await;
            (state["Running"] == false).then(|| state["ExitCode"].as_i64().expect("a number"))
        })
        .await;
        let logs = succeed(&mut podman(&["logs", &self.container(&name)])).await;
        assert_eq!(code, 0, "{}", String::from_utf8_lossy(&logs.stderr));
    }

    /// Returns a command that runs a program beside the server.
    pub(super) fn exec(&self, arguments: &[&str]) -> Command {
        let mut command = podman(&["exec", &self.container(SERVER)]);
        command.args(arguments);
        command
    }

    fn container(&self, name: &str) -> String {
        format!("{}-{name}", self.played.name)
    }

    /// The server's container, as it was rendered.
    fn server(&self) -> &Value {
        let containers = self.played.spec["containers"].as_array().expect("a list");
        containers.iter().find(|one| one["name"] == SERVER).expect("the server")
    }

    async fn state(&self, name: &str) -> Value {
        self.inspect(name).await["State"].clone()
    }

    async fn inspect(&self, name: &str) -> Value {
        inspect(&["inspect", &self.container(name)]).await
    }

    /// Asks its probes as the kubelet does, until all have passed.
    pub(super) async fn passes_its_probes(&self) {
        let server = self.server();
        for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
            let grpc = &server[probe]["grpc"];
            let url = format!("http://127.0.0.1:{}", grpc["port"]);
            let service = grpc["service"].as_str().expect("a text").to_owned();
            eventually(&format!("the {probe} passes"), PATIENCE, async || {
                let running = self.state(SERVER).await["Running"] == true;
                assert!(running, "the server ended");
                let mut client = HealthClient::new(credential::connect(&url));
                let answer = client.check(HealthCheckRequest { service: service.clone() }).await;
                answer.is_ok_and(|answer| answer.into_inner().status() == ServingStatus::Serving).then_some(())
            })
            .await;
        }
    }

    /// Asserts that the server's process has no more than the manifest gives it.
    pub(super) async fn is_confined(&self) {
        let wanted = self.server();
        let security = &wanted["securityContext"];
        let seen = self.inspect(SERVER).await;
        assert_eq!(seen["HostConfig"]["ReadonlyRootfs"], security["readOnlyRootFilesystem"]);
        assert_eq!(security["readOnlyRootFilesystem"], true);
        let memory = wanted["resources"]["limits"]["memory"].as_str().expect("a text");
        assert_eq!(seen["HostConfig"]["Memory"], bytes(memory));

        let process = &seen["State"]["Pid"];
        let status = fs::read_to_string(format!("/proc/{process}/status")).expect("a file that can be read");
        let line = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.expect("a line of the status").split_whitespace().next().expect("a value").to_owned()
        };
        assert_eq!(line("Uid"), security["runAsUser"].to_string());
        assert_eq!(line("Gid"), security["runAsGroup"].to_string());
        assert_eq!(security["capabilities"]["drop"][0], "ALL");
        for set in ["CapPrm", "CapEff", "CapBnd"] {
            assert_eq!(line(set), "0000000000000000", "{set}");
        }
        assert_eq!(security["allowPrivilegeEscalation"], false);
        assert_eq!(line("NoNewPrivs"), "1");
        assert_eq!(line("Seccomp"), "2");
        let groups = fs::read_to_string(format!("/proc/{process}/cgroup")).expect("a file that can be read");
        let memory_group = groups.lines().find_map(|line| line.split_once(":memory:")).map(|(_, path)| path.to_owned());
        if let Some(group) = memory_group {
            let limit = fs::read_to_string(format!("/sys/fs/cgroup/memory{group}/memory.limit_in_bytes"))
                .expect("a file that can be read");
            assert_eq!(limit.trim(), bytes(memory).to_string(), "what the kernel knows of the limit");
        }
    }

    fn remove(&self) {
        let quietly = |arguments: &[&str]| {
            // Whatever is not there cannot be removed.
            podman(arguments).into_std().stdout(Stdio::null()).stderr(Stdio::null()).status().ok();
        };
        quietly(&["pod", "rm", "--force", "--time", "0", &self.played.name]);
        for volume in self.played.volumes() {
            quietly(&["volume", "rm", volume]);
        }
        for secret in self.played.secrets.keys() {
            quietly(&["secret", "rm", secret]);
        }
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let logs = podman(&["logs", "--tail", "40", &self.container(SERVER)]).into_std().output();
            if let Ok(logs) = logs {
                eprintln!("--- the end of {SERVER}\n{}", String::from_utf8_lossy(&logs.stderr));
            }
        }
        self.remove();
    }
}

/// Reads a quantity of memory.
fn bytes(quantity: &str) -> u64 {
    let mebibytes: u64 = quantity.strip_suffix("Mi").expect("an amount in MiB").parse().expect("a number");
    mebibytes << 20
}
