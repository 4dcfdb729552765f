//! Runs the programs with which a release is stopped, started and asked for its health.
//!
//! A hook is `ota/hooks/{stop,start,health}` in the release's tree, or a program that the agent's configuration names
//! for the package. It has a deadline and is killed with all it started when it passes that. It may run twice, after a
//! crash even beside its orphaned first run, and has to bear that. A start hook may leave a program running: nothing of
//! the agent's is held by it, its output goes to a file.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use ota_domain::deployment::MAX_LOG_TAIL_BYTES;
use rustix::process::{Pid, Signal, kill_process_group};
use serde::Deserialize;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

use crate::durable;
use crate::failure::{Failure, FailureCode, chain, failure};
use crate::release::Release;
use crate::releases::Releases;

/// Most of a hook's output that goes into a report.
const LOG_TAIL_BYTES: u64 = 4 * 1024;

/// How long a hook that is still open for writing somewhere is waited for before the next look.
const BUSY_PAUSE: Duration = Duration::from_millis(20);

/// The three things a release is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// Stop running.
    Stop,
    /// Start running.
    Start,
    /// Say by the exit code whether all is well.
    Health,
}

impl Hook {
    /// Returns the hook's file name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Start => "start",
            Self::Health => "health",
        }
    }
}

/// Programs that the configuration names for a package. They come before those in the release.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Programs {
    /// Stops the release.
    pub stop: Option<PathBuf>,
    /// Starts the release.
    pub start: Option<PathBuf>,
    /// Asks for the release's health.
    pub health: Option<PathBuf>,
}

/// How long hooks may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadlines {
    /// For one run of the stop hook.
    pub stop: Duration,
    /// For one run of the start hook.
    pub start: Duration,
    /// Until the health hook has succeeded once.
    pub health: Duration,
    /// Between two runs of the health hook.
    pub health_interval: Duration,
}

/// Why a hook did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be started.
    #[error("cannot run the {hook} hook {program}")]
    Start {
        /// The hook's name.
        hook: &'static str,
        /// The program.
        program: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// It ended with an error.
    #[error("the {hook} hook ended with {status}")]
    Status {
        /// The hook's name.
        hook: &'static str,
        /// How it ended.
        status: ExitStatus,
    },
    /// It was killed because it took too long.
    #[error("the {hook} hook did not end within {} s and was killed", deadline.as_secs_f32())]
    Deadline {
        /// The hook's name.
        hook: &'static str,
        /// Its time.
        deadline: Duration,
    },
}

/// The hooks of one release.
#[derive(Debug)]
pub struct Hooks<'a> {
    releases: &'a Releases,
    release: &'a Release,
    /// The release on the other side of the switch, which the hook may want to take data over from.
    other: Option<&'a Release>,
    programs: &'a Programs,
    deadlines: Deadlines,
}

impl<'a> Hooks<'a> {
    /// Names the hooks of `release`; `other` is the release that runs before or after it.
    pub fn new(
        releases: &'a Releases,
        release: &'a Release,
        other: Option<&'a Release>,
        programs: &'a Programs,
        deadlines: Deadlines,
    ) -> Self {
        Self { releases, release, other, programs, deadlines }
    }

    /// Stops the release.
    pub async fn stop(&self) -> Result<(), Failure> {
        let result = self.run(Hook::Stop, self.deadlines.stop).await;
        result.map_err(|error| self.failure(FailureCode::Hook, Hook::Stop, &error))
    }

    /// Starts the release.
    pub async fn start(&self) -> Result<(), Failure> {
        let result = self.run(Hook::Start, self.deadlines.start).await;
        result.map_err(|error| self.failure(FailureCode::Hook, Hook::Start, &error))
    }

    /// Asks the release for its health until it is well or its time has passed.
    pub async fn wait_until_healthy(&self) -> Result<(), Failure> {
        let end = Instant::now() + self.deadlines.health;
        let mut told: Option<Failure> = None;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let Err(error) = self.run(Hook::Health, left).await else { return Ok(()) };
            let failure = self.failure(FailureCode::Health, Hook::Health, &error);
            // The run that the deadline cut off may not have come to say why; the one before it did.
            let failure = if failure.log_tail.is_empty() { told.take().unwrap_or(failure) } else { failure };
            if Instant::now() + self.deadlines.health_interval >= end {
                return Err(failure);
            }
            told = Some(failure);
            tracing::debug!(package = %self.release.package, "not healthy yet: {}", chain(&error));
            sleep(self.deadlines.health_interval).await;
        }
    }

    /// Returns the program of a hook, if the release has one.
    fn program(&self, hook: Hook) -> Option<PathBuf> {
        let configured = match hook {
            Hook::Stop => &self.programs.stop,
            Hook::Start => &self.programs.start,
            Hook::Health => &self.programs.health,
        };
        let in_tree = || {
            let path = self.tree(self.release).join("ota/hooks").join(hook.name());
            path.is_file().then_some(path)
        };
        configured.clone().or_else(in_tree)
    }

    fn tree(&self, release: &Release) -> PathBuf {
        self.releases.tree(release.payload.sha256)
    }

    async fn run(&self, hook: Hook, deadline: Duration) -> Result<(), Error> {
        let Some(program) = self.program(hook) else { return Ok(()) };
        let name = hook.name();
        let end = Instant::now() + deadline;
        let mut child = loop {
            match self.spawn(&program, hook) {
                Ok(child) => break child,
                // Some other process still has the program open for writing, if only between its fork and its exec.
                Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy && Instant::now() < end => {
                    sleep(BUSY_PAUSE).await;
                }
                Err(source) => return Err(Error::Start { hook: name, program, source }),
            }
        };
        let group = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        match timeout(end.saturating_duration_since(Instant::now()), child.wait()).await {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(status)) => Err(Error::Status { hook: name, status }),
            Ok(Err(source)) => Err(Error::Start { hook: name, program, source }),
            Err(_) => {
                if let Some(group) = group {
                    // Fails only when all of the group has ended by itself.
                    kill_process_group(group, Signal::KILL).ok();
                }
                child.wait().await.map_err(|source| Error::Start { hook: name, program, source })?;
                Err(Error::Deadline { hook: name, deadline })
            }
        }
    }

    fn spawn(&self, program: &Path, hook: Hook) -> io::Result<Child> {
        // A file of its own for each run: what an earlier run left running keeps writing to the file it knows.
        let log = self.releases.log(hook.name());
        durable::remove(&log)?;
        let output = OpenOptions::new().create_new(true).append(true).open(&log)?;
        let tree = self.tree(self.release);
        Command::new(program)
            .current_dir(&tree)
            .env("OTA_PACKAGE", self.release.package.as_str())
            .env("OTA_VERSION", self.release.version.to_string())
            .env("OTA_RELEASE_DIR", &tree)
            .env("OTA_PREVIOUS_DIR", self.other.map(|other| self.tree(other)).unwrap_or_default())
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .process_group(0)
            .spawn()
    }

    fn failure(&self, code: FailureCode, hook: Hook, error: &Error) -> Failure {
        let message = format!("{}: {}", self.release, chain(error));
        // Without its output a failure is still a failure.
        let log_tail = tail(&self.releases.log(hook.name())).unwrap_or_default();
        Failure { log_tail, ..failure(code, message) }
    }
}

fn tail(log: &Path) -> io::Result<String> {
    let mut file = File::open(log)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL_BYTES)))?;
    let mut bytes = Vec::new();
    file.take(LOG_TAIL_BYTES).read_to_end(&mut bytes)?;
    let mut text = String::from_utf8_lossy(&bytes).replace('\0', "");
    // What is not UTF-8 grows when it is replaced.
    text.truncate(text.floor_char_boundary(MAX_LOG_TAIL_BYTES));
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use ota_domain::Sha256Digest;
    use ota_domain::release::{Installer, Payload};

    use super::*;

    const DEADLINES: Deadlines = Deadlines {
        stop: Duration::from_secs(20),
        start: Duration::from_secs(20),
        health: Duration::from_secs(20),
        health_interval: Duration::from_millis(1),
    };

    struct Fixture {
        _data: tempfile::TempDir,
        releases: Releases,
        release: Release,
        programs: Programs,
    }

    impl Fixture {
        fn new() -> Self {
            let data = tempfile::tempdir().unwrap();
            let releases = Releases::new(data.path(), &"app".parse().unwrap());
            releases.create().unwrap();
            let release = Release {
                package: "app".parse().unwrap(),
                version: "1.2.3".parse().unwrap(),
                payload: Payload { sha256: Sha256Digest([7; 32]), size_bytes: 1 },
                release_counter: 1,
                installer: Installer::Directory,
            };
            fs::create_dir_all(releases.tree(release.payload.sha256).join("ota/hooks")).unwrap();
            Self { _data: data, releases, release, programs: Programs::default() }
        }

        fn tree(&self) -> PathBuf {
            self.releases.tree(self.release.payload.sha256)
        }

        fn script(&self, hook: Hook, script: &str) -> PathBuf {
            let path = self.tree().join("ota/hooks").join(hook.name());
            fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
            path
        }

        fn hooks(&self, deadlines: Deadlines) -> Hooks<'_> {
            Hooks::new(&self.releases, &self.release, None, &self.programs, deadlines)
        }
    }

    #[tokio::test]
    async fn a_release_without_hooks_is_well() {
        let fixture = Fixture::new();
        let hooks = fixture.hooks(DEADLINES);
        hooks.stop().await.unwrap();
        hooks.start().await.unwrap();
        hooks.wait_until_healthy().await.unwrap();
    }

    #[tokio::test]
    async fn a_hook_learns_what_it_is_run_for() {
        let fixture = Fixture::new();
        fixture.script(Hook::Start, "echo $OTA_PACKAGE $OTA_VERSION $OTA_RELEASE_DIR [$OTA_PREVIOUS_DIR] $PWD; exit 3");
        let failure = fixture.hooks(DEADLINES).start().await.unwrap_err();
        let tree = fixture.tree().display().to_string();
        assert_eq!(failure.log_tail, format!("app 1.2.3 {tree} [] {tree}\n"));
        assert_eq!(failure.code, FailureCode::Hook);
        assert_eq!(failure.message, "app@1.2.3: the start hook ended with exit status: 3");
    }

    #[tokio::test]
    async fn health_is_asked_again_until_it_is_there() {
        let fixture = Fixture::new();
        fixture.script(Hook::Health, "echo x >> count; test $(wc -l < count) -ge 3");
        fixture.hooks(DEADLINES).wait_until_healthy().await.unwrap();
        assert_eq!(fs::read_to_string(fixture.tree().join("count")).unwrap(), "x\nx\nx\n");
    }

    #[tokio::test]
    async fn health_that_never_comes_is_a_failure_with_the_last_words() {
        let fixture = Fixture::new();
        fixture.script(Hook::Health, "echo the database is missing; exit 1");
        let deadlines = Deadlines { health: Duration::from_millis(100), ..DEADLINES };
        let failure = fixture.hooks(deadlines).wait_until_healthy().await.unwrap_err();
        assert_eq!((failure.code, failure.log_tail.as_str()), (FailureCode::Health, "the database is missing\n"));
    }

    #[tokio::test]
    async fn a_hook_past_its_deadline_is_killed_with_all_it_started() {
        let fixture = Fixture::new();
        fixture.script(Hook::Stop, "echo $$; sleep 600 & wait");
        let deadlines = Deadlines { stop: Duration::from_millis(300), ..DEADLINES };
        let failure = fixture.hooks(deadlines).stop().await.unwrap_err();
        assert!(failure.message.contains("did not end within"), "{}", failure.message);
        let group = Pid::from_raw(failure.log_tail.trim().parse().unwrap()).unwrap();
        // The shell is reaped; its child goes to init, which may take a moment to reap it.
        let end = Instant::now() + Duration::from_secs(10);
        while rustix::process::test_kill_process_group(group).is_ok() {
            assert!(Instant::now() < end, "the group lives on");
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn what_a_start_hook_leaves_running_outlives_it() {
        let fixture = Fixture::new();
        fixture.script(Hook::Start, "sleep 600 & echo $! > pid");
        fixture.hooks(DEADLINES).start().await.unwrap();
        let pid = fs::read_to_string(fixture.tree().join("pid")).unwrap();
        let pid = Pid::from_raw(pid.trim().parse().unwrap()).unwrap();
        rustix::process::kill_process(pid, Signal::KILL).expect("the program should be running");
    }

    #[tokio::test]
    async fn the_configured_program_comes_before_the_one_in_the_tree() {
        let mut fixture = Fixture::new();
        fixture.script(Hook::Start, "exit 1");
        fixture.programs.start = Some(PathBuf::from("/bin/true"));
        fixture.hooks(DEADLINES).start().await.unwrap();
    }

    #[tokio::test]
    async fn a_hook_that_cannot_be_executed_is_a_failure() {
        let fixture = Fixture::new();
        let path = fixture.script(Hook::Start, "true");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let failure = fixture.hooks(DEADLINES).start().await.unwrap_err();
        assert!(failure.message.contains("cannot run the start hook"), "{}", failure.message);
    }
}
