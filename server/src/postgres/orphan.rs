//! The Postgres of a killed predecessor. It shuts down by itself (see `supervisor`), which takes a moment; a new one
//! must not be started on the same data before it is gone. It must never signal a process that merely has its number.

use std::{
    fs, io,
    path::Path,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::Command;

use super::pidfile;

/// How often to look; a fast shutdown of an idle cluster takes some tens of milliseconds.
const INTERVAL: Duration = Duration::from_millis(20);

/// What to do next to an orphan that is still there, and how long that may take. A shutdown writes a checkpoint, hence
/// the long second step; the third leaves recovery to the next start.
const STEPS: [(Option<Signal>, Duration); 3] = [
    (None, Duration::from_secs(5)),
    (Some(Signal::INT), Duration::from_secs(60)),
    (Some(Signal::QUIT), Duration::from_secs(10)),
];

/// Why the data is not free.
#[derive(Debug)]
pub(super) enum OrphanError {
    /// It did not end.
    Stays(Pid),
    Io(io::Error),
}

/// Waits until no postmaster serves `data`, asking one that stays to shut down.
pub(super) async fn gone(data: &Path) -> Result<(), OrphanError> {
    let file = data.join("postmaster.pid");
    let text = match fs::read_to_string(&file) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(OrphanError::Io(error)),
    };
    let Some(found) = pidfile::parse(&text) else {
        return Ok(());
    };
    for (signal, patience) in STEPS {
        if !serves(found.pid, data).await {
            break;
        }
        if let Some(signal) = signal {
            tracing::warn!(pid = found.pid.as_raw_nonzero().get(), ?signal, "asking a left-over Postgres to shut down");
            // It may have ended by itself since, which is just as well.
            kill_process(found.pid, signal).ok();
        }
        let began = Instant::now();
        while began.elapsed() < patience && serves(found.pid, data).await {
            tokio::time::sleep(INTERVAL).await;
        }
    }
    if serves(found.pid, data).await {
        return Err(OrphanError::Stays(found.pid));
    }
    disown(&file).map_err(OrphanError::Io)
}

/// Rewrites a file that outlived its postmaster, so that it does not point at whatever has the number by then.
fn disown(file: &Path) -> io::Result<()> {
    match fs::read_to_string(file) {
        // Writing keeps the owner, which Postgres checks.
        Ok(text) => fs::write(file, pidfile::disowned(&text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Whether that process is a postmaster of that cluster: its current folder is the data.
async fn serves(pid: Pid, data: &Path) -> bool {
    let pid = pid.as_raw_nonzero().get();
    match fs::read_link(format!("/proc/{pid}/cwd")) {
        Ok(folder) => folder == data,
        // Gone, a zombie, or somebody else's.
        Err(_) if Path::new("/proc/self").exists() => false,
        // macOS: its command line names the data.
        Err(_) => match Command::new("ps").args(["-o", "command=", "-p", &pid.to_string()]).output().await {
            Ok(output) => String::from_utf8_lossy(&output.stdout).contains(&*data.to_string_lossy()),
            Err(_) => false,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn living_stranger_with_the_number_is_left_alone() {
        let data = tempfile::tempdir().unwrap();
        let file = data.path().join("postmaster.pid");
        fs::write(&file, format!("{}\n/srv\n1\n5432\n/srv/run\n\n  1  2\nready   \n", std::process::id())).unwrap();
        gone(data.path()).await.unwrap();
        assert!(fs::read_to_string(&file).unwrap().starts_with("2147483647\n/srv\n"));
    }

    #[tokio::test]
    async fn clean_folder_has_no_orphan() {
        let data = tempfile::tempdir().unwrap();
        gone(data.path()).await.unwrap();
    }
}
