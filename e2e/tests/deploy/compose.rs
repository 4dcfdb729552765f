//! `deploy/compose.yaml`: its first evening, word for word, with podman in docker's place.
//!
//! No registry is needed: `compose/images.sh` makes images with the names of the database's and the store's, of the same
//! programs. Podman's own health checks want systemd, so the test asks what they would.

use std::{env, fs, os::unix::fs::PermissionsExt as _, path::Path, process::Stdio, time::Duration};

use ota_e2e::{
    Binaries,
    binaries::{run, succeed},
    container::{image, inspect, podman},
    eventually, tree,
};
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Command;

const PATIENCE: Duration = Duration::from_secs(120);

/// In the order in which they need each other.
const SERVICES: [&str; 3] = ["database", "store", "server"];

/// Docker runs health checks; here the test does. And podman would have containers ask this machine's name server too, which
/// does not know them and may answer first.
const OVERRIDE: &str = "services:
  server: { healthcheck: { disable: true }, dns: 10.213.57.1 }
  database: { healthcheck: { disable: true }, dns: 10.213.57.1 }
  store: { healthcheck: { disable: true }, dns: 10.213.57.1 }
networks:
  default: { ipam: { config: [{ subnet: 10.213.57.0/24 }] } }
";

fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a folder lies in one")
}

/// The file's services, of which all goes when this is dropped.
struct Project {
    name: String,
    folder: TempDir,
    image: String,
    file: Value,
}

impl Project {
    /// Copies the file to where it makes no secrets in the source tree.
    fn new(image: String) -> Self {
        let folder = tempfile::tempdir().expect("a scratch folder");
        let text = fs::read_to_string(project().join("deploy/compose.yaml")).expect("a file that can be read");
        fs::write(folder.path().join("compose.yaml"), &text).expect("a file that can be made");
        fs::write(folder.path().join("override.yaml"), OVERRIDE).expect("a file that can be made");
        // What people type is `docker compose`.
        let docker = "#!/bin/sh\n[ \"$1\" = compose ] && shift && exec podman-compose -p $PROJECT -f compose.yaml -f override.yaml \"$@\"\n";
        tree::write(&folder.path().join("bin/docker"), docker.as_bytes(), 0o755);
        let name = format!("ota-test-{}", std::process::id());
        Self { name, folder, image, file: serde_saphyr::from_str(&text).expect("YAML") }
    }

    /// Returns the commands in the comment at the top.
    fn first_evening(&self) -> Vec<String> {
        let text = fs::read_to_string(self.folder.path().join("compose.yaml")).expect("a file that can be read");
        let comment = text.lines().take_while(|line| line.starts_with('#'));
        comment.filter_map(|line| line.strip_prefix("#   ")).map(str::to_owned).collect()
    }

    /// Returns a shell that runs one.
    fn shell(&self, command: &str) -> Command {
        let otactl = Binaries::get().otactl.parent().expect("a folder lies in one");
        let own = [self.folder.path().join("bin"), project().join(".tools/compose/bin"), otactl.to_owned()];
        let path = env::var_os("PATH").unwrap_or_default();
        let path = env::join_paths(own.into_iter().chain(env::split_paths(&path))).expect("paths without colons");
        let mut shell = Command::new("/bin/sh");
        shell
            .args(["-euc", command])
            .current_dir(self.folder.path())
            .env("PATH", path)
            .env("PROJECT", &self.name)
            .env("OTA_IMAGE", &self.image)
            .env("OTACTL_CONFIG", self.folder.path().join("otactl.toml"))
            .env("CONTAINERS_CONF", Path::new(env!("CARGO_MANIFEST_DIR")).join("containers.conf"))
            .stdin(Stdio::null());
        shell
    }

    fn container(&self, service: &str) -> String {
        format!("{}_{service}_1", self.name)
    }

    /// Waits until a service's health check passes.
    async fn healthy(&self, service: &str) {
        let check = self.file["services"][service]["healthcheck"]["test"].as_array().expect("a list");
        let words: Vec<_> = check.iter().map(|word| word.as_str().expect("a text")).collect();
        assert_eq!(words[0], "CMD");
        let container = self.container(service);
        eventually(&format!("{service} is healthy"), PATIENCE, async || {
            let output = run(podman(&["exec", &container]).args(&words[1..])).await;
            output.status.success().then_some(())
        })
        .await;
    }
}

impl Drop for Project {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for service in SERVICES {
                podman(&["logs", "--tail", "20", &self.container(service)]).into_std().status().ok();
            }
        }
        let mut down = self.shell("docker compose down --volumes --timeout 1").into_std();
        down.stdout(Stdio::null()).stderr(Stdio::null()).status().ok();
    }
}

/// Makes the images that no registry gives.
async fn make_images(folder: &Path, project_file: &Value) -> bool {
    let weed = project().join(".tools/object-store/bin/weed");
    let tools = [project().join(".tools/compose/bin/podman-compose"), weed.clone(), "/bin/busybox".into()];
    if let Some(missing) = tools.iter().find(|tool| !tool.exists()) {
        let missing = missing.display();
        assert!(env::var("CI").as_deref() != Ok("true"), "{missing} is missing: scripts/setup.sh compose object-store");
        eprintln!("NOT TESTED: deploy/compose.yaml. It takes {missing}: scripts/setup.sh compose object-store.");
        return false;
    }
    let postgres = succeed(Command::new(project().join("scripts/postgres.sh")).arg("bin")).await;
    let postgres = String::from_utf8(postgres.stdout).expect("text");
    let mut images = Command::new(project().join("e2e/tests/deploy/compose/images.sh"));
    images.arg(folder).arg(weed).arg(postgres.trim());
    for service in ["database", "store"] {
        images.arg(project_file["services"][service]["image"].as_str().expect("a text"));
    }
    succeed(&mut images).await;
    true
}

#[tokio::test]
async fn the_first_evening_with_compose() {
    let Some(image) = image("deploy/compose.yaml") else { return };
    let _ports = crate::PORTS.lock().await;
    let project = Project::new(image);
    let images = tempfile::tempdir().unwrap();
    if !make_images(images.path(), &project.file).await {
        return;
    }
    let commands = project.first_evening();
    let [secrets, up, credentials, login] = commands.as_slice() else { panic!("four commands: {commands:?}") };

    succeed(&mut project.shell(secrets)).await;
    let mode = fs::metadata(project.folder.path().join("secrets")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700, "nobody else looks into the folder");

    assert_eq!(up, "docker compose up --detach --wait");
    for service in SERVICES {
        succeed(&mut project.shell(&format!("docker compose up --detach --no-deps {service}"))).await;
        project.healthy(service).await;
    }
    succeed(&mut project.shell(credentials)).await;
    succeed(&mut project.shell(login)).await;
    let upload = "otactl upload compose.yaml --package app --version 1.0.0";
    succeed(&mut project.shell(upload)).await;

    let wanted = &project.file["services"]["server"];
    let seen = inspect(&["inspect", &project.container("server")]).await;
    assert_eq!(wanted["read_only"], true);
    assert_eq!(seen["HostConfig"]["ReadonlyRootfs"], true);
    assert_eq!(seen["Config"]["User"], wanted["user"]);
    assert_eq!(seen["HostConfig"]["Memory"], 512 << 20);
    let status = fs::read_to_string(format!("/proc/{}/status", seen["State"]["Pid"])).unwrap();
    for line in ["CapBnd:\t0000000000000000", "NoNewPrivs:\t1", "Uid:\t65532\t65532\t65532\t65532"] {
        assert!(status.contains(line), "{line}: {status}");
    }
    // A port that the image names and nobody publishes is there too, bound to nothing.
    let ports = seen["HostConfig"]["PortBindings"].as_object().unwrap().values().filter_map(Value::as_array);
    let addresses: Vec<_> = ports.flatten().map(|bound| &bound["HostIp"]).collect();
    assert_eq!(addresses, ["127.0.0.1", "127.0.0.1"], "nobody else reaches it");
    for service in ["database", "store"] {
        let seen = inspect(&["inspect", &project.container(service)]).await;
        assert_eq!(seen["HostConfig"]["PortBindings"], serde_json::json!({}), "{service} is for the server only");
    }

    // What is kept survives: the same credentials, the same release.
    let again = "docker compose restart server";
    succeed(&mut project.shell(again)).await;
    project.healthy("server").await;
    let listed = succeed(&mut project.shell("otactl release list --output json")).await;
    assert!(String::from_utf8_lossy(&listed.stdout).contains("1.0.0"));
}
