//! The service unit: what it takes from the server, and that the server runs without it, under a systemd of its own.

use std::{
    env, fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    time::Duration,
};

use ota_e2e::{
    Binaries,
    binaries::{run, succeed},
    container::Container,
    database,
    database_port::DatabasePort,
    eventually,
};
use tempfile::TempDir;
use tokio::process::Command;

const SYSTEMD: &str = "/usr/lib/systemd/systemd";

/// On a machine mounts are shared with what services see; credentials count on that, and containers begin without.
const BOOT: &str = "mount --make-rshared / && exec /usr/lib/systemd/systemd";

/// A machine with nothing on it but systemd has started long before.
const PATIENCE: Duration = Duration::from_secs(120);

/// What the unit's directives leave open, as `systemd-analyze security` counts it, in tenths: 0 to 100.
const MOST_EXPOSED: &str = "25";

fn units() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/systemd")
}

fn is_there(program: &str, tested: &str) -> bool {
    let found = program.starts_with('/') && Path::new(program).exists()
        || env::split_paths(&env::var_os("PATH").unwrap_or_default()).any(|folder| folder.join(program).exists());
    if !found {
        assert!(env::var("CI").as_deref() != Ok("true"), "{program} is missing: scripts/setup.sh systemd podman");
        eprintln!("NOT TESTED: {tested}. It takes {program}: scripts/setup.sh systemd podman.");
    }
    found
}

/// Copies the unit and its drop-in to where systemd looks, and has the unit start the server under test.
fn install(folder: &Path, drop_ins: &[(&str, &str)]) {
    let drop_in_folder = folder.join("ota-server.service.d");
    fs::create_dir_all(&drop_in_folder).expect("a file that can be made");
    fs::copy(units().join("ota-server.service"), folder.join("ota-server.service")).expect("a file that can be made");
    for (name, content) in drop_ins {
        fs::write(drop_in_folder.join(name), content).expect("a file that can be made");
    }
}

#[tokio::test]
async fn the_unit_has_no_mistakes_and_leaves_little_open() {
    if !is_there("systemd-analyze", "the service unit's directives") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let external_database = fs::read_to_string(units().join("external-database.conf")).unwrap();
    let program = "[Service]\nExecStart=\nExecStart=/bin/true\n";
    install(folder.path(), &[("external-database.conf", &external_database), ("program.conf", program)]);
    let unit = folder.path().join("ota-server.service");

    // What it does not know it skips, with a word on standard error and success.
    let verified = succeed(Command::new("systemd-analyze").arg("verify").arg(&unit)).await;
    assert_eq!(String::from_utf8_lossy(&verified.stderr), "");
    let security = ["security", "--offline=yes", "--threshold", MOST_EXPOSED];
    succeed(Command::new("systemd-analyze").args(security).arg(&unit)).await;

    let open =
        fs::read_to_string(&unit).unwrap().replace("CapabilityBoundingSet=\n", "").replace("PrivateDevices=", "#");
    fs::write(&unit, open).unwrap();
    let security = run(Command::new("systemd-analyze").args(security).arg(&unit)).await;
    assert!(!security.status.success(), "a unit with fewer restrictions is within the limit too");
}

/// A machine in a container: this one's programs, nothing else of it, and systemd as its first process.
struct Machine {
    container: Container,
    _root: TempDir,
}

impl Machine {
    async fn boot(drop_ins: &[(&str, &str)]) -> Self {
        let root = tempfile::Builder::new()
            .permissions(fs::Permissions::from_mode(0o755))
            .tempdir()
            .expect("a scratch folder");
        let at = |path: &str| root.path().join(path);
        for folder in ["usr", "opt", "etc/systemd/system", "var/lib", "var/log", "run", "tmp", "proc", "sys", "dev"] {
            fs::create_dir_all(at(folder)).expect("a file that can be made");
        }
        for folder in ["bin", "sbin", "lib", "lib64"] {
            symlink(format!("usr/{folder}"), at(folder)).expect("a file that can be made");
        }
        fs::write(at("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/usr/sbin/nologin\n")
            .expect("a file that can be made");
        fs::write(at("etc/group"), "root:x:0:\nnogroup:x:65534:\n").expect("a file that can be made");
        fs::write(at("etc/nsswitch.conf"), "passwd: files systemd\ngroup: files systemd\nhosts: files\n")
            .expect("a file that can be made");
        fs::write(at("etc/machine-id"), "").expect("a file that can be made");
        fs::copy("/etc/ld.so.cache", at("etc/ld.so.cache")).expect("a file that can be made");
        fs::copy(&Binaries::get().server, at("opt/ota-server")).expect("a file that can be made");
        let system = at("etc/systemd/system");
        fs::write(system.join("default.target"), "[Unit]\nDescription=Started\n").expect("a file that can be made");
        install(&system, drop_ins);

        let options = ["--systemd=always", "--privileged", "--volume=/usr:/usr:ro", "--rootfs"];
        let container =
            Container::start(root.path().to_str().expect("a path in UTF-8"), &options, &["/bin/sh", "-c", BOOT]).await;
        let machine = Self { container, _root: root };
        eventually("systemd has started", PATIENCE, async || {
            let state = run(&mut machine.container.exec(&["systemctl", "is-system-running"])).await;
            String::from_utf8_lossy(&state.stdout).contains("running").then_some(())
        })
        .await;
        machine
    }

    async fn says(&self, command: &[&str]) -> String {
        let output = succeed(&mut self.container.exec(command)).await;
        String::from_utf8(output.stdout).expect("text")
    }

    async fn property(&self, name: &str) -> String {
        let value = self.says(&["systemctl", "show", "ota-server", "--value", "--property", name]).await;
        value.trim().to_owned()
    }
}

/// Returns a line of a process's status.
fn status(process: &str, name: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{process}/status")).expect("a file that can be read");
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {name} in {status}")).trim().to_owned()
}

#[tokio::test]
async fn the_server_and_its_private_database_run_under_the_unit() {
    let tested = "the service unit under systemd";
    if !is_there("podman", tested) || !is_there(SYSTEMD, tested) {
        return;
    }
    let program = "[Service]\nExecStart=\nExecStart=/opt/ota-server --listen 127.0.0.1:0\n";
    let machine = Machine::boot(&[("program.conf", program)]).await;
    // Comes back when the server says that it serves.
    let started = run(&mut machine.container.exec(&["systemctl", "start", "ota-server"])).await;
    let journal = machine.says(&["journalctl", "--unit", "ota-server", "--output", "cat"]).await;
    assert!(started.status.success(), "{journal}");
    let url = journal.lines().find(|line| line.starts_with("https://")).expect("it serves when it says so").to_owned();

    let address = url.strip_prefix("https://").unwrap();
    succeed(&mut machine.container.exec(&["/opt/ota-server", "healthcheck", "--listen", address])).await;

    // Postgres is confined like the server.
    let inspected = machine.container.inspect().await;
    let init = inspected["State"]["Pid"].to_string();
    let processes = descendants(&init);
    let named = |name: &str| -> Vec<&str> {
        let of_name = processes.iter().filter(|(_, known)| known == name);
        of_name.map(|(process, _)| process.as_str()).collect()
    };
    let (server, postgres) = (named("ota-server"), named("postgres"));
    assert_eq!(server.len(), 1, "{processes:?}");
    assert!(postgres.len() > 1, "{processes:?}");
    for process in server.iter().chain(&postgres) {
        assert_ne!(status(process, "Uid").split_whitespace().next(), Some("0"));
        assert_eq!(status(process, "CapBnd"), "0000000000000000");
        assert_eq!(status(process, "NoNewPrivs"), "1");
        assert_eq!(status(process, "Seccomp"), "2");
    }

    succeed(&mut machine.container.exec(&["systemctl", "stop", "ota-server"])).await;
    assert_eq!(machine.property("Result").await, "success");
    assert_eq!(machine.property("ExecMainStatus").await, "0");
    let log = machine.says(&["cat", "/var/lib/ota/postgres/postgres.log"]).await;
    assert!(log.contains("database system is shut down"), "{log}");
}

#[tokio::test]
async fn a_secret_reaches_the_server_as_a_credential_that_nobody_else_can_read() {
    let tested = "credentials of the service unit";
    if !is_there("podman", tested) || !is_there(SYSTEMD, tested) {
        return;
    }
    let database = database::empty().await;
    let port = DatabasePort::open(&database.connect_options()).await;
    let external_database = fs::read_to_string(units().join("external-database.conf")).unwrap();
    let url = port.url("127.0.0.1");
    let program = format!(
        "[Service]\nExecStart=\nExecStart=/opt/ota-server --listen 127.0.0.1:0\nEnvironment=DATABASE_URL={url}\n"
    );
    let drop_ins = [("external-database.conf", external_database.as_str()), ("program.conf", &program)];
    let machine = Machine::boot(&drop_ins).await;

    let start = ["systemctl", "start", "ota-server"];
    let started = run(&mut machine.container.exec(&start)).await;
    assert!(!started.status.success(), "it starts without the secret that the drop-in names");

    let secret = "umask 077 && mkdir /etc/ota && echo secret >/etc/ota/database-password";
    succeed(&mut machine.container.exec(&["sh", "-c", secret])).await;
    let started = run(&mut machine.container.exec(&["systemctl", "restart", "ota-server"])).await;
    let journal = machine.says(&["journalctl", "--unit", "ota-server", "--output", "cat"]).await;
    assert!(started.status.success(), "{journal}");
    let file = "/run/credentials/ota-server.service/database-password";
    let environment = "tr '\\0' '\\n' </proc/$(systemctl show --value --property MainPID ota-server)/environ";
    let environment = machine.says(&["sh", "-c", environment]).await;
    assert!(environment.lines().any(|line| line == format!("OTA_DATABASE_PASSWORD_FILE={file}")), "{environment}");
    let others = run(&mut machine.container.exec(&["setpriv", "--reuid=1", "--clear-groups", "cat", file])).await;
    assert!(!others.status.success(), "another user reads the secret");
    assert_eq!(machine.says(&["cat", file]).await, "secret\n");
}

/// Lists the processes beneath one, with their names.
fn descendants(ancestor: &str) -> Vec<(String, String)> {
    let mut found = vec![ancestor.to_owned()];
    let mut named = Vec::new();
    let all: Vec<(String, String)> = fs::read_dir("/proc")
        .expect("the kernel lists processes")
        .filter_map(|entry| {
            let process = entry.ok()?.file_name().into_string().ok()?;
            process.parse::<u32>().ok()?;
            // It may end meanwhile.
            let parent = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
            let parent = parent.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().to_owned();
            Some((process, parent))
        })
        .collect();
    while let Some(parent) = found.pop() {
        for (process, _) in all.iter().filter(|(_, of)| *of == parent) {
            found.push(process.clone());
            let name = fs::read_to_string(format!("/proc/{process}/comm")).unwrap_or_default();
            named.push((process.clone(), name.trim().to_owned()));
        }
    }
    named
}
