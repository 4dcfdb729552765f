//! Real processes: started, killed, started again. Their logs are kept and shown when the test fails, and none of them
//! outlives the test.

mod agent;
mod server;

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};

pub use agent::AgentProcess;
pub use server::ServerProcess;

use crate::eventually;

/// How much of a log is shown when a test fails.
const SHOWN_LOG_BYTES: u64 = 16 * 1024;

/// How long a process may take to end when told to. Longer than the server's own patience with calls in progress.
const END_LIMIT: Duration = Duration::from_secs(90);

/// A process with its output in a file. Killed and reaped when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a command. What it writes goes to the end of `log`; standard output to `out`, when that is given.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start(command: &mut Command, log: &Path, out: Option<&Path>) -> Self {
        let open = |path: &Path| append(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let child = command
            .stdin(Stdio::null())
            .stdout(open(out.unwrap_or(log)))
            .stderr(open(log))
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Self { child, log: log.to_owned() }
    }

    /// Returns its id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Returns how it ended, if it has.
    ///
    /// # Panics
    /// When the system does not know this process.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child of this process")
    }

    /// Kills it as a power cut would, and reaps it.
    ///
    /// # Panics
    /// When the system does not know this process.
    pub fn kill(&mut self) {
        self.child.kill().expect("a child of this process");
        self.child.wait().expect("a child of this process");
    }

    /// Tells it to stop, as a service manager would, and waits for its end.
    ///
    /// # Panics
    /// When it does not end.
    pub async fn terminate(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.end().await
    }

    /// Sends it a signal.
    ///
    /// # Panics
    /// When it has ended.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("a child that was not reaped");
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it does not come.
    pub async fn end(&mut self) -> ExitStatus {
        let what = format!("process {} ended", self.id());
        eventually(&what, END_LIMIT, async || self.ended()).await
    }

    /// Returns a line of `/proc/<id>/status` that is given in kB, such as `VmRSS`, in bytes. `None` when it is not there.
    #[must_use]
    pub fn memory_bytes(&self, line: &str) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).ok()?;
        let value = status.lines().find_map(|text| text.strip_prefix(line)?.strip_prefix(':'))?;
        Some(value.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Either fails only when it has ended.
        self.child.kill().ok();
        self.child.wait().ok();
        if std::thread::panicking() {
            eprintln!("--- the end of {}\n{}\n---", self.log.display(), tail(&self.log));
        }
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

fn tail(path: &Path) -> String {
    let read = || -> io::Result<String> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(SHOWN_LOG_BYTES)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    read().unwrap_or_else(|error| error.to_string())
}
