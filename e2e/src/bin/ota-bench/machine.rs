//! The machine a figure was measured on, and how busy others kept it meanwhile.

use std::{fs, process::Command, time::Instant};

use anyhow::Context as _;
use serde::Serialize;

use crate::{
    child,
    figure::{self, round},
};

/// The state of the machine when a scenario began.
#[derive(Debug)]
pub(crate) struct Watch {
    scenario: &'static str,
    began: Instant,
    load: String,
    busy_seconds: f64,
    own_seconds: f64,
}

#[derive(Debug, Serialize)]
struct Line<'a> {
    machine: &'a str,
    cores: usize,
    cpu: String,
    kernel: String,
    commit: String,
    load_before: &'a str,
    load_after: &'a str,
    seconds: f64,
    /// Cores' worth of work that other programs did meanwhile: above a few percent, only ratios mean anything.
    others_cores: f64,
}

impl Watch {
    /// Notes how the machine is.
    pub(crate) fn begin(scenario: &'static str) -> anyhow::Result<Self> {
        Ok(Self {
            scenario,
            began: Instant::now(),
            load: load()?,
            busy_seconds: busy_seconds()?,
            own_seconds: child::tree_cpu_seconds(std::process::id())?,
        })
    }

    /// Prints the line that belongs to the scenario's figures.
    pub(crate) fn end(self) -> anyhow::Result<()> {
        let seconds = self.began.elapsed().as_secs_f64();
        let own = child::tree_cpu_seconds(std::process::id())? - self.own_seconds;
        let busy = busy_seconds()? - self.busy_seconds;
        figure::print(&Line {
            machine: self.scenario,
            cores: std::thread::available_parallelism()?.get(),
            cpu: cpu_model()?,
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned(),
            commit: commit(),
            load_before: &self.load,
            load_after: &load()?,
            seconds: round(seconds),
            others_cores: round(((busy - own) / seconds).max(0.0)),
        })
    }
}

fn load() -> anyhow::Result<String> {
    let line = fs::read_to_string("/proc/loadavg").context("cannot read the load")?;
    Ok(line.split_whitespace().take(3).collect::<Vec<_>>().join(" "))
}

/// Seconds of work on all cores since the start, stolen time included: a neighbour of the virtual machine is load too.
fn busy_seconds() -> anyhow::Result<f64> {
    let stat = fs::read_to_string("/proc/stat").context("cannot read the work done")?;
    let ticks: Vec<u64> =
        stat.lines().next().unwrap_or_default().split_whitespace().skip(1).filter_map(|n| n.parse().ok()).collect();
    // user nice system idle iowait irq softirq steal
    let [user, nice, system, _, _, irq, softirq, steal, ..] = ticks[..] else {
        anyhow::bail!("/proc/stat is not as expected");
    };
    Ok(child::seconds(user + nice + system + irq + softirq + steal))
}

fn cpu_model() -> anyhow::Result<String> {
    let info = fs::read_to_string("/proc/cpuinfo").context("cannot read the processor's name")?;
    let name = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    Ok(name.map_or("unknown", |(_, name)| name).to_owned())
}

/// The commit that was built, marked when the tree has other changes.
fn commit() -> String {
    let described = Command::new("git").args(["describe", "--always", "--dirty", "--abbrev=10"]).output();
    match described {
        Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        Ok(_) | Err(_) => "unknown".to_owned(),
    }
}
