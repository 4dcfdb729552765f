//! A program under measurement, in a process of its own: what it costs is read from `/proc`.

use std::{
    collections::HashMap,
    fs,
    io::{BufRead as _, BufReader},
    process::{ChildStderr, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

/// `USER_HZ`: Linux has told times in hundredths of a second to all its programs since it has had programs.
const TICKS_PER_SECOND: f64 = 100.0;

/// How long a program may take to stop when asked to.
const STOP_LIMIT: Duration = Duration::from_secs(30);
/// The same when nobody waits for it.
const DROP_LIMIT: Duration = Duration::from_secs(5);

/// A running program. Killed when dropped.
#[derive(Debug)]
pub(crate) struct Child {
    process: std::process::Child,
    name: String,
}

impl Child {
    /// Starts a program.
    pub(crate) fn start(name: &str, command: &mut Command) -> anyhow::Result<Self> {
        let process = command.stdin(Stdio::null()).spawn().with_context(|| format!("cannot start {name}"))?;
        Ok(Self { process, name: name.to_owned() })
    }

    /// Starts a program that says on its first line of output where it listens, and returns that line too.
    pub(crate) fn start_listening(name: &str, command: &mut Command) -> anyhow::Result<(Self, String)> {
        let mut child = Self::start(name, command.stdout(Stdio::piped()))?;
        let output = child.process.stdout.take().context("the output is piped")?;
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line).with_context(|| format!("cannot read where {name} listens"))?;
        if line.is_empty() {
            bail!("{name} ended before it listened");
        }
        Ok((child, line.trim().to_owned()))
    }

    /// What it logs, if that was piped and nobody has taken it.
    pub(crate) fn stderr(&mut self) -> Option<ChildStderr> {
        self.process.stderr.take()
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Processor time that it and its children used so far.
    pub(crate) fn cpu_seconds(&self) -> anyhow::Result<f64> {
        tree_cpu_seconds(self.pid())
    }

    /// Asks it to stop, and waits. Its children go with it, which they would not if it were killed.
    pub(crate) fn stop(mut self) -> anyhow::Result<()> {
        ensure!(self.stops(STOP_LIMIT)?, "{} does not stop", self.name);
        Ok(())
    }

    fn stops(&mut self, limit: Duration) -> anyhow::Result<bool> {
        let asked = Instant::now();
        if self.process.try_wait()?.is_none() {
            kill_process(Pid::from_child(&self.process), Signal::TERM)?;
        }
        while self.process.try_wait()?.is_none() {
            if asked.elapsed() > limit {
                return Ok(false);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(true)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if !self.stops(DROP_LIMIT).unwrap_or(false) {
            self.process.kill().ok();
            self.process.wait().ok();
        }
    }
}

/// Processor time of a process, of its living descendants and of those it has waited for.
pub(crate) fn tree_cpu_seconds(root: u32) -> anyhow::Result<f64> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    let mut ticks: HashMap<u32, u64> = HashMap::new();
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // Processes come and go while the folder is read.
        let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
        let Some((parent, used)) = parse_stat(&stat) else { continue };
        children.entry(parent).or_default().push(pid);
        ticks.insert(pid, used);
    }
    let mut sum = 0;
    let mut rest = vec![root];
    while let Some(pid) = rest.pop() {
        sum += ticks.get(&pid).copied().unwrap_or(0);
        rest.extend(children.remove(&pid).unwrap_or_default());
    }
    Ok(seconds(sum))
}

/// Reads the parent and the ticks used, by itself and by the children it waited for. The name may hold anything, also
/// parentheses, so the fields are counted from the last one.
fn parse_stat(stat: &str) -> Option<(u32, u64)> {
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let parent = fields.get(1)?.parse().ok()?;
    let used = fields.get(11..15)?.iter().map(|ticks| ticks.parse::<u64>().ok()).sum::<Option<u64>>()?;
    Some((parent, used))
}

/// Ticks as seconds.
pub(crate) fn seconds(ticks: u64) -> f64 {
    ticks as f64 / TICKS_PER_SECOND
}

/// Memory of a process in MiB.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Memory {
    /// What it has.
    pub(crate) now: f64,
    /// The most it had since [`forget_peak`].
    pub(crate) peak: f64,
}

/// Reads the memory of a process.
pub(crate) fn memory(pid: u32) -> anyhow::Result<Memory> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).context("the measured process is gone")?;
    let mib = |field: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        let kib: Option<f64> = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok());
        kib.map(|kib| kib / 1024.0).with_context(|| format!("no {field} in the status of process {pid}"))
    };
    Ok(Memory { now: mib("VmRSS")?, peak: mib("VmHWM")? })
}

/// Makes the kernel measure the peak from here on.
pub(crate) fn forget_peak(pid: u32) -> anyhow::Result<()> {
    fs::write(format!("/proc/{pid}/clear_refs"), "5").context("cannot reset the memory peak")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let stat = "7 (a) b (c)) S 3 7 7 0 -1 4194560 1 0 0 0 10 20 30 40 20 0 1 0 5 0 0";
        assert_eq!(parse_stat(stat), Some((3, 100)));
        assert_eq!(parse_stat("7 (a) S 3"), None);
    }

    #[test]
    fn own_memory_can_be_read() {
        let memory = memory(std::process::id()).unwrap();
        assert!(memory.now > 0.0 && memory.peak >= memory.now);
    }
}
