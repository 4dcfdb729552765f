//! Containers, run by podman.

use std::{
    env,
    io::Write as _,
    path::Path,
    process::Stdio,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use serde_json::Value;
use tokio::process::Command;

use crate::{
    binaries::{run, succeed},
    eventually,
};

/// Names the image under test; `make test` builds it and sets this.
const IMAGE: &str = "OTA_IMAGE";

/// How long a container may take to say where it listens.
const START_LIMIT: Duration = Duration::from_secs(90);

/// Returns the name of the image under test, or says that this is not tested.
///
/// # Panics
/// When there is none and `CI=true`.
#[must_use]
pub fn image(tested: &str) -> Option<String> {
    let image = env::var(IMAGE).ok();
    if image.is_none() {
        assert!(env::var("CI").as_deref() != Ok("true"), "{IMAGE} is not set: no image to test");
        eprintln!("NOT TESTED: {tested}. Build the image with `make image` and name it in {IMAGE}.");
    }
    image
}

/// Returns a command of podman's.
#[must_use]
pub fn podman(arguments: &[&str]) -> Command {
    let mut command = Command::new("podman");
    command.env("CONTAINERS_CONF", Path::new(env!("CARGO_MANIFEST_DIR")).join("containers.conf")).args(arguments);
    command
}

/// Runs podman and reads the first of the objects that it writes.
///
/// # Panics
/// When it fails or writes something else.
pub async fn inspect(arguments: &[&str]) -> Value {
    let output = succeed(&mut podman(arguments)).await;
    let mut objects: Vec<Value> = serde_json::from_slice(&output.stdout).expect("podman writes JSON");
    objects.swap_remove(0)
}

/// A container, which goes with its volumes when this is dropped.
#[derive(Debug)]
pub struct Container {
    name: String,
}

impl Container {
    /// Starts one on the machine's own network: `options` are podman's, `arguments` the program's.
    ///
    /// # Panics
    /// When podman does not start it.
    pub async fn start(image: &str, options: &[&str], arguments: &[&str]) -> Self {
        let container = Self::unstarted();
        let fixed = ["run", "--detach", "--network", "host", "--name", &container.name];
        succeed(podman(&fixed).args(options).arg(image).args(arguments)).await;
        container
    }

    /// Makes one that does not run.
    ///
    /// # Panics
    /// When podman does not make it.
    pub async fn create(image: &str) -> Self {
        let container = Self::unstarted();
        succeed(&mut podman(&["create", "--name", &container.name, image])).await;
        container
    }

    /// Takes over one that something else has made.
    #[must_use]
    pub fn named(name: &str) -> Self {
        Self { name: name.to_owned() }
    }

    fn unstarted() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        Self { name: format!("ota-test-{}-{number}", std::process::id()) }
    }

    /// Returns its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns a command that runs a program inside.
    #[must_use]
    pub fn exec(&self, arguments: &[&str]) -> Command {
        let mut command = podman(&["exec", &self.name]);
        command.args(arguments);
        command
    }

    /// Returns what podman knows of it.
    pub async fn inspect(&self) -> Value {
        inspect(&["inspect", &self.name]).await
    }

    /// Returns what it has written.
    pub async fn logs(&self) -> String {
        let output = run(&mut podman(&["logs", &self.name])).await;
        [output.stdout, output.stderr].iter().map(|bytes| String::from_utf8_lossy(bytes).into_owned()).collect()
    }

    /// Waits until the server in it says where it listens, and returns that URL.
    ///
    /// # Panics
    /// When it ends instead.
    pub async fn url(&self) -> String {
        eventually("the server says where it listens", START_LIMIT, async || {
            let output = succeed(podman(&["logs", &self.name]).stderr(Stdio::null())).await;
            let url = String::from_utf8_lossy(&output.stdout).lines().next().map(str::to_owned);
            if url.is_none() {
                let running = self.inspect().await["State"]["Running"] == true;
                assert!(running, "the server ended while it started:\n{}", self.logs().await);
            }
            url
        })
        .await
    }

    /// Tells it to stop, and returns its exit code.
    ///
    /// # Panics
    /// When it has to be killed.
    pub async fn stop(&self) -> i64 {
        succeed(&mut podman(&["stop", "--time", "60", &self.name])).await;
        self.inspect().await["State"]["ExitCode"].as_i64().expect("an exit code")
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let logs = podman(&["logs", "--tail", "40", &self.name]).into_std().output();
            if let Ok(logs) = logs {
                eprintln!("--- the end of {}", self.name);
                std::io::stderr().write_all(&[logs.stdout, logs.stderr].concat()).ok();
            }
        }
        let remove = ["rm", "--force", "--time", "0", "--volumes", &self.name];
        // It may be gone already.
        podman(&remove).into_std().stdout(Stdio::null()).stderr(Stdio::null()).status().ok();
    }
}
