//! Why a device is or is not being updated, in sentences. Reads nothing and changes nothing.

use std::{collections::BTreeMap, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};
use ota_domain::{
    PackageName, Version,
    deployment::{Deployment, State},
    device::{self, Device},
};

/// One package's story on one device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// The package.
    pub package: PackageName,
    /// The version that runs.
    pub running: Option<Version>,
    /// The version the device should come to run. `None` when nothing is wanted.
    pub desired: Option<Version>,
    /// What the device waits for, one sentence each, the nearest first.
    pub waiting_on: Vec<String>,
}

/// Tells each package's story. Of `deployments`, the first open one of a package counts, else its first one at all.
pub(super) fn explain(
    device: &Device,
    online: bool,
    deployments: &[Deployment],
    check_in_interval: Duration,
    now: DateTime<Utc>,
) -> Vec<Explanation> {
    let mut stories: BTreeMap<&PackageName, (Option<&Version>, Option<&Deployment>)> = BTreeMap::new();
    for entry in &device.running {
        stories.insert(&entry.running.package, (Some(&entry.running.version), None));
    }
    for deployment in deployments {
        let (_, told) = stories.entry(&deployment.package).or_default();
        if told.is_none_or(|told| told.state.is_ended() && !deployment.state.is_ended()) {
            *told = Some(deployment);
        }
    }
    stories
        .into_iter()
        .map(|(package, (running, deployment))| Explanation {
            package: package.clone(),
            running: running.cloned(),
            desired: deployment.filter(|told| !told.state.is_ended()).map(|told| told.version.clone()),
            waiting_on: match deployment {
                None => vec!["Nothing was ever assigned.".to_owned()],
                Some(told) if told.state.is_ended() => vec![ended(told, running)],
                Some(told) => open(device, online, told, check_in_interval, now),
            },
        })
        .collect()
}

/// What an open deployment waits for.
fn open(
    device: &Device,
    online: bool,
    told: &Deployment,
    check_in_interval: Duration,
    now: DateTime<Utc>,
) -> Vec<String> {
    let admission = match device.state {
        device::State::Accepted => None,
        device::State::Pending => Some("An operator has to approve the device.".to_owned()),
        device::State::Rejected => Some("An operator rejected the device.".to_owned()),
        device::State::Decommissioned => Some("The device was taken out of the fleet.".to_owned()),
    };
    let silence = match &device.presence {
        Some(_) if online => None,
        Some(presence) => {
            Some(format!("The device has to come back: it was last seen {} ago.", span(now - presence.last_seen_at)))
        }
        None => Some("The device has to check in: it was never seen.".to_owned()),
    };
    let disbelief = device.trust_fault.map(|fault| {
        let fault = fault.as_str();
        format!("The device does not believe what the server sends it ({fault}), and installs nothing until it does.")
    });
    let since = span(now - told.updated_at);
    let step = match told.state {
        State::Queued => {
            let interval = humantime::format_duration(check_in_interval);
            format!("The deployment waits for the device's next check-in, which comes every {interval}.")
        }
        State::Granted => format!("The device was told {since} ago and has not reported since."),
        State::Downloading => format!(
            "The device downloads: {} % of {} bytes, reported {since} ago.",
            percent(told.bytes_done, told.bytes_total),
            told.bytes_total
        ),
        State::Installing => format!("The device unpacks and switches, reported {since} ago."),
        State::Rebooting => format!("The device reboots, reported {since} ago."),
        State::Verifying => format!("The release runs on trial, reported {since} ago."),
        State::Succeeded
        | State::Failed
        | State::RolledBack
        | State::Rejected
        | State::TimedOut
        | State::Canceled
        | State::Superseded => ended(told, None),
    };
    admission.into_iter().chain(silence).chain(disbelief).chain([step]).collect()
}

/// How a deployment ended, and what that means for what runs.
fn ended(told: &Deployment, running: Option<&Version>) -> String {
    let version = &told.version;
    let why = match &told.failure {
        Some(failure) if !failure.message.is_empty() => format!(" ({}: {})", failure.code.as_str(), failure.message),
        Some(failure) => format!(" ({})", failure.code.as_str()),
        None => String::new(),
    };
    match told.state {
        State::Succeeded if running == Some(version) => "Nothing: the device runs what was last assigned.".to_owned(),
        State::Succeeded => format!("A new assignment: {version} was installed, and the device no longer runs it."),
        State::Failed => format!("A person: the deployment of {version} failed{why}. Retry it or assign another."),
        State::RolledBack => {
            format!("A person: {version} was installed and undone{why}. Retry the deployment or assign another.")
        }
        State::Rejected => format!("A person: the device refused {version}{why}."),
        State::TimedOut => format!("A person: the deployment of {version} passed its deadline."),
        State::Canceled => format!("A new assignment: the deployment of {version} was canceled."),
        State::Superseded
        | State::Queued
        | State::Granted
        | State::Downloading
        | State::Installing
        | State::Rebooting
        | State::Verifying => "A new assignment: nothing is assigned at the moment.".to_owned(),
    }
}

fn percent(done: u64, total: u64) -> u64 {
    done.saturating_mul(100).checked_div(total).unwrap_or(0)
}

/// A span to the second, and to the minute from an hour on.
fn span(span: TimeDelta) -> String {
    let seconds = span.num_seconds().max(0).unsigned_abs();
    let told = if seconds < 3600 { seconds } else { seconds - seconds % 60 };
    humantime::format_duration(Duration::from_secs(told)).to_string()
}

#[cfg(test)]
mod tests {
    use ota_domain::{
        DeploymentId, DeviceId, EnrollTokenId, Labels, RolloutId, Sha256Digest,
        deployment::{Failure, FailureCode},
        device::{Presence, Running, RunningSince},
    };
    use uuid::Uuid;

    use super::*;

    const NOW: DateTime<Utc> = DateTime::UNIX_EPOCH;
    const INTERVAL: Duration = Duration::from_secs(300);

    fn device(running: &[(&str, &str)]) -> Device {
        let running = running.iter().map(|(package, version)| RunningSince {
            running: Running {
                package: package.parse().unwrap(),
                version: version.parse().unwrap(),
                payload: Sha256Digest([0; 32]),
            },
            since: NOW,
        });
        Device {
            id: DeviceId(Uuid::nil()),
            state: device::State::Accepted,
            hardware: "rpi4".parse().unwrap(),
            hardware_id: String::new(),
            labels: Labels::new(),
            running: running.collect(),
            presence: Some(Presence { last_seen_at: NOW - TimeDelta::minutes(150), agent_version: String::new() }),
            inventory: None,
            inventory_at: None,
            created_at: NOW,
            enroll_token: EnrollTokenId(Uuid::nil()),
            key_sha256: None,
            certificate_expires_at: None,
            identity_conflicts: Vec::new(),
            trust_fault: None,
            revision: 1,
        }
    }

    fn deployment(package: &str, version: &str, state: State) -> Deployment {
        Deployment {
            id: DeploymentId(Uuid::nil()),
            rollout: RolloutId(Uuid::nil()),
            device: DeviceId(Uuid::nil()),
            package: package.parse().unwrap(),
            version: version.parse().unwrap(),
            state,
            attempt: 1,
            bytes_done: 42,
            bytes_total: 100,
            failure: None,
            created_at: NOW,
            updated_at: NOW - TimeDelta::seconds(5),
            ended_at: state.is_ended().then_some(NOW),
        }
    }

    fn told(device: &Device, online: bool, deployments: &[Deployment]) -> Vec<(String, String, String)> {
        explain(device, online, deployments, INTERVAL, NOW)
            .into_iter()
            .map(|story| {
                let desired = story.desired.map(|version| version.to_string()).unwrap_or_default();
                (story.package.to_string(), desired, story.waiting_on.join(" "))
            })
            .collect()
    }

    fn story(package: &str, desired: &str, waiting_on: &str) -> (String, String, String) {
        (package.to_owned(), desired.to_owned(), waiting_on.to_owned())
    }

    #[test]
    fn an_absent_device_is_what_its_deployment_waits_for_first() {
        let queued = deployment("fw", "2.0.0", State::Queued);
        assert_eq!(
            told(&device(&[("fw", "1.0.0")]), false, &[queued]),
            [story(
                "fw",
                "2.0.0",
                "The device has to come back: it was last seen 2h 30m ago. \
                 The deployment waits for the device's next check-in, which comes every 5m."
            )]
        );
    }

    #[test]
    fn an_open_deployment_counts_before_a_newer_ended_one() {
        let deployments = [deployment("fw", "3.0.0", State::Canceled), deployment("fw", "2.0.0", State::Downloading)];
        assert_eq!(
            told(&device(&[]), true, &deployments),
            [story("fw", "2.0.0", "The device downloads: 42 % of 100 bytes, reported 5s ago.")]
        );
    }

    #[test]
    fn every_package_that_runs_or_is_to_run_has_a_story() {
        let failure = Failure {
            code: FailureCode::Health,
            message: "the health hook ended with 1".to_owned(),
            log_tail: String::new(),
        };
        let failed = Deployment { failure: Some(failure), ..deployment("c", "2.0.0", State::RolledBack) };
        let done = deployment("b", "1.0.0", State::Succeeded);
        assert_eq!(
            told(&device(&[("a", "1.0.0"), ("b", "1.0.0")]), true, &[failed, done]),
            [
                story("a", "", "Nothing was ever assigned."),
                story("b", "", "Nothing: the device runs what was last assigned."),
                story(
                    "c",
                    "",
                    "A person: 2.0.0 was installed and undone (HEALTH: the health hook ended with 1). \
                     Retry the deployment or assign another."
                ),
            ]
        );
    }

    #[test]
    fn a_device_that_was_never_approved_is_told_so_first() {
        let pending = Device { state: device::State::Pending, presence: None, ..device(&[]) };
        let waits = told(&pending, false, &[deployment("fw", "1.0.0", State::Queued)]).remove(0).2;
        assert!(waits.starts_with("An operator has to approve the device. The device has to check in"), "{waits}");
    }
}
