//! `ota-agent` as a process.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
};

use tempfile::TempDir;

use super::Process;
use crate::{
    Binaries,
    binaries::{run, succeed},
};

/// An agent, with its folder in a scratch place. It runs when it is told to.
#[derive(Debug)]
pub struct AgentProcess {
    process: Option<Process>,
    device: String,
    data_dir: PathBuf,
    folder: TempDir,
}

impl AgentProcess {
    /// Enrols one at `url`. It does not run yet.
    ///
    /// # Panics
    /// When it cannot be enrolled.
    pub async fn enroll(url: &str, enrollment_string: &str) -> Self {
        let folder = TempDir::with_prefix("ota-agent-").expect("a scratch folder");
        let data_dir = folder.path().join("data");
        Self::enroll_in(folder, data_dir, url, enrollment_string).await
    }

    /// Enrols one that keeps its data in `data_dir`.
    ///
    /// # Panics
    /// When it cannot be enrolled.
    pub async fn enroll_at(data_dir: &Path, url: &str, enrollment_string: &str) -> Self {
        let folder = TempDir::with_prefix("ota-agent-").expect("a scratch folder");
        Self::enroll_in(folder, data_dir.to_owned(), url, enrollment_string).await
    }

    /// Prepares one that is not enrolled.
    ///
    /// # Panics
    /// When the disk does not take it.
    #[must_use]
    pub fn unenrolled() -> Self {
        let folder = TempDir::with_prefix("ota-agent-").expect("a scratch folder");
        let data_dir = folder.path().join("data");
        Self::configured(folder, data_dir)
    }

    fn configured(folder: TempDir, data_dir: PathBuf) -> Self {
        // Small devices and small disks: what is left free is not what is tested here.
        let config = "hardware = \"test\"\n[limits]\nreserve_bytes = 65536\n[hooks]\nhealth_interval = \"50ms\"\n";
        fs::write(folder.path().join("agent.toml"), config).expect("a file in the scratch folder");
        Self { process: None, device: String::new(), data_dir, folder }
    }

    /// Sets one of its limits, a line of its configuration.
    ///
    /// # Panics
    /// When the disk does not take it.
    pub fn limit(&self, line: &str) {
        let path = self.folder.path().join("agent.toml");
        let config = fs::read_to_string(&path).expect("a file in the scratch folder");
        let config = config.replace("[limits]\n", &format!("[limits]\n{line}\n"));
        fs::write(&path, config).expect("a file in the scratch folder");
    }

    async fn enroll_in(folder: TempDir, data_dir: PathBuf, url: &str, enrollment_string: &str) -> Self {
        let mut agent = Self::configured(folder, data_dir);
        let mut command = tokio::process::Command::from(agent.command("enroll"));
        command.args(["--server", url]).arg(enrollment_string);
        succeed(&mut command).await;
        agent.device = agent.enrolled_as();
        agent
    }

    /// Returns a command of the agent's.
    #[must_use]
    pub fn command(&self, name: &str) -> Command {
        let mut command = Command::new(&Binaries::get().agent);
        command.arg(name).arg("--config").arg(self.folder.path().join("agent.toml"));
        command.arg("--data-dir").arg(&self.data_dir);
        command
    }

    /// Starts it, to run until it is killed.
    ///
    /// # Panics
    /// When it runs already.
    pub fn start(&mut self) {
        self.start_with(&[]);
    }

    /// Starts it with further arguments.
    ///
    /// # Panics
    /// When it runs already.
    pub fn start_with(&mut self, arguments: &[&str]) {
        assert!(self.process.is_none(), "the agent runs");
        let log = self.folder.path().join("log");
        self.process = Some(Process::start(self.command("run").args(arguments), &log, None));
    }

    /// Lets it do what there is to do, and end.
    pub async fn once(&self) -> std::process::Output {
        run(&mut tokio::process::Command::from(self.command("once"))).await
    }

    /// Kills it as a power cut would.
    ///
    /// # Panics
    /// When it does not run.
    pub fn kill(&mut self) {
        self.process.take().expect("the agent runs").kill();
    }

    /// Tells it to stop and waits for its end.
    ///
    /// # Panics
    /// When it does not run or does not end.
    pub async fn terminate(&mut self) -> ExitStatus {
        self.process.take().expect("the agent runs").terminate().await
    }

    /// Returns the running process.
    ///
    /// # Panics
    /// When it does not run.
    pub fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("the agent runs")
    }

    /// Returns the device's resource name, as operators write it.
    #[must_use]
    pub fn name(&self) -> String {
        format!("devices/{}", self.device)
    }

    /// Returns the folder with all it keeps.
    #[must_use]
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// Returns where a package's running release is.
    #[must_use]
    pub fn current(&self, package: &str) -> PathBuf {
        self.data_dir.join("packages").join(package).join("current")
    }

    fn enrolled_as(&self) -> String {
        let text =
            fs::read_to_string(self.data_dir.join("enrollment.json")).expect("an enrolled agent keeps its enrolment");
        let json: serde_json::Value = serde_json::from_str(&text).expect("the enrolment is JSON");
        json["device"].as_str().expect("the enrolment names the device").to_owned()
    }
}
