//! Rollouts and deployments.

use ota_domain::{
    DeviceId, RolloutId, Violation, Violations,
    deployment::{self, Deployment},
    rollout::{self, Counts, Draft, MAX_NAMED_DEVICES, Preview, Rollout, Target},
};

use super::name;
use crate::{admin::v1 as wire, convert::timestamp};

/// How an error writes a rollout's name.
pub const ROLLOUT: &str = "rollouts/{rollout}";
/// How an error writes a deployment's name.
pub const DEPLOYMENT: &str = "deployments/{deployment}";
/// How an error writes a device's name.
pub const DEVICE: &str = "devices/{device}";

/// Most bad names of one list that are told: an error has to fit into headers.
const MOST_TOLD: usize = 20;

/// The fields a caller set that this server does not serve yet. None of them may be ignored: who asks for one percent of
/// a fleet must not get all of it.
#[must_use]
pub fn unserved(told: &wire::Rollout) -> Vec<&'static str> {
    let mut fields = Vec::new();
    if let Some(wire::Target { choice: Some(wire::target::Choice::Group(_)) }) = &told.target {
        fields.push("rollout.target.group");
    }
    let Some(policy) = &told.policy else { return fields };
    let set = [
        (!policy.phases.is_empty(), "rollout.policy.phases"),
        (!policy.abort_rules.is_empty(), "rollout.policy.abort_rules"),
        (!policy.retry_rules.is_empty(), "rollout.policy.retry_rules"),
        (policy.max_in_flight != 0, "rollout.policy.max_in_flight"),
        (!policy.windows.is_empty(), "rollout.policy.windows"),
        (policy.deadlines.is_some(), "rollout.policy.deadlines"),
        (policy.continuous, "rollout.policy.continuous"),
        (policy.delta_policy != 0, "rollout.policy.delta_policy"),
        (policy.bandwidth_limit_bytes_per_second != 0, "rollout.policy.bandwidth_limit_bytes_per_second"),
        (policy.apply_at != 0, "rollout.policy.apply_at"),
    ];
    fields.extend(set.into_iter().filter(|(set, _)| *set).map(|(_, field)| field));
    fields
}

/// Reads what a rollout should be, and the id it should have when the caller chose one.
///
/// # Errors
/// When a field breaks its rule: all of them.
pub fn draft(rollout_id: &str, told: &wire::Rollout) -> Result<(Option<RolloutId>, Draft), Vec<Violation>> {
    let mut violations = Violations::default();
    let id = match rollout_id {
        "" => None,
        id => violations.take("rollout_id", id.parse()),
    };
    let release = violations.take("rollout.release", name::parse_release(&told.release));
    let target = target(told.target.as_ref(), &mut violations);
    let draft = release.zip(target).map(|((package, version), target)| Draft { package, version, target });
    Ok((id, violations.finish(draft)?))
}

fn target(told: Option<&wire::Target>, violations: &mut Violations) -> Option<Target> {
    match told.and_then(|target| target.choice.as_ref()) {
        Some(wire::target::Choice::Devices(list)) => devices(&list.names, violations),
        Some(wire::target::Choice::Selector(selector)) => {
            violations.take("rollout.target.selector", selector.parse()).map(Target::Selector)
        }
        Some(wire::target::Choice::All(true)) => Some(Target::All),
        Some(wire::target::Choice::All(false)) => {
            violations.add("rollout.target.all", "must be true when it is set");
            None
        }
        Some(wire::target::Choice::Group(_)) => {
            violations.add("rollout.target.group", "is not part of this server yet");
            None
        }
        None => {
            violations.add("rollout.target", "must say which devices: by name, by selector, or all");
            None
        }
    }
}

fn devices(names: &[String], violations: &mut Violations) -> Option<Target> {
    const FIELD: &str = "rollout.target.devices.names";
    if names.is_empty() || names.len() > MAX_NAMED_DEVICES {
        violations.add(FIELD, format!("must hold 1 to {MAX_NAMED_DEVICES} devices"));
        return None;
    }
    let mut devices = Vec::with_capacity(names.len());
    let mut bad = 0;
    for (index, name) in names.iter().enumerate() {
        match name::parse::<DeviceId>(name, DEVICE) {
            Ok(device) => devices.push(device),
            Err(error) => {
                if bad < MOST_TOLD {
                    violations.add(format!("{FIELD}[{index}]"), error);
                }
                bad += 1;
            }
        }
    }
    if bad > MOST_TOLD {
        violations.add(FIELD, format!("{} more are no names of devices", bad - MOST_TOLD));
    }
    devices.sort_unstable();
    devices.dedup();
    Some(Target::Devices(devices))
}

/// A rollout for the wire.
#[must_use]
pub fn rollout(rollout: &Rollout) -> wire::Rollout {
    wire::Rollout {
        name: format!("rollouts/{}", rollout.id),
        release: name::release(&rollout.draft.package, &rollout.draft.version),
        target: Some(wire::Target { choice: Some(choice(&rollout.draft.target)) }),
        policy: None,
        state: state(rollout.state).into(),
        counts: Some(counts(&rollout.counts)),
        create_time: Some(timestamp(rollout.created_at)),
        creator: rollout.creator.clone(),
        end_time: rollout.ended_at.map(timestamp),
        waiting_on: rollout.waiting_on(),
    }
}

fn choice(target: &Target) -> wire::target::Choice {
    match target {
        Target::Devices(devices) => wire::target::Choice::Devices(wire::DeviceList {
            names: devices.iter().map(|device| format!("devices/{device}")).collect(),
        }),
        Target::Selector(selector) => wire::target::Choice::Selector(selector.to_string()),
        Target::All => wire::target::Choice::All(true),
    }
}

fn state(state: rollout::State) -> wire::RolloutState {
    match state {
        rollout::State::Active => wire::RolloutState::Active,
        rollout::State::Completed => wire::RolloutState::Completed,
        rollout::State::Canceled => wire::RolloutState::Canceled,
    }
}

fn counts(counts: &Counts) -> wire::DeploymentCounts {
    wire::DeploymentCounts {
        total: number(counts.total()),
        queued: number(counts.queued),
        in_progress: number(counts.in_progress),
        succeeded: number(counts.succeeded),
        failed: number(counts.failed),
        canceled: number(counts.canceled),
    }
}

/// A preview for the wire.
#[must_use]
pub fn preview(preview: &Preview) -> wire::PreviewRolloutResponse {
    wire::PreviewRolloutResponse {
        device_count: number(preview.devices),
        unfit_count: number(preview.unfit),
        current_count: number(preview.current),
        samples: preview.samples.iter().map(|device| format!("devices/{device}")).collect(),
        download_bytes: number(preview.download_bytes),
    }
}

/// A deployment for the wire.
#[must_use]
pub fn deployment(deployment: &Deployment) -> wire::Deployment {
    wire::Deployment {
        name: format!("deployments/{}", deployment.id),
        rollout: format!("rollouts/{}", deployment.rollout),
        device: format!("devices/{}", deployment.device),
        release: name::release(&deployment.package, &deployment.version),
        state: deployment_state(deployment.state).into(),
        attempt: i32::try_from(deployment.attempt).unwrap_or(i32::MAX),
        bytes_done: number(deployment.bytes_done),
        bytes_total: number(deployment.bytes_total),
        failure: deployment.failure.as_ref().map(|failure| wire::Failure {
            code: failure.code.as_str().to_owned(),
            message: failure.message.clone(),
            log_tail: failure.log_tail.clone(),
        }),
        create_time: Some(timestamp(deployment.created_at)),
        update_time: Some(timestamp(deployment.updated_at)),
        end_time: deployment.ended_at.map(timestamp),
    }
}

/// A deployment's state for the wire.
#[must_use]
pub fn deployment_state(state: deployment::State) -> wire::DeploymentState {
    use deployment::State;
    match state {
        State::Queued => wire::DeploymentState::Queued,
        State::Granted => wire::DeploymentState::Granted,
        State::Downloading => wire::DeploymentState::Downloading,
        State::Installing => wire::DeploymentState::Installing,
        State::Rebooting => wire::DeploymentState::Rebooting,
        State::Verifying => wire::DeploymentState::Verifying,
        State::Succeeded => wire::DeploymentState::Succeeded,
        State::Failed => wire::DeploymentState::Failed,
        State::RolledBack => wire::DeploymentState::RolledBack,
        State::Rejected => wire::DeploymentState::Rejected,
        State::TimedOut => wire::DeploymentState::TimedOut,
        State::Canceled => wire::DeploymentState::Canceled,
        State::Superseded => wire::DeploymentState::Superseded,
    }
}

/// A count for the wire, which has no unsigned numbers of that size.
fn number(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

    fn told(choice: wire::target::Choice) -> wire::Rollout {
        wire::Rollout {
            release: "packages/app/releases/1.0.0".into(),
            target: Some(wire::Target { choice: Some(choice) }),
            ..Default::default()
        }
    }

    fn named(names: Vec<String>) -> wire::Rollout {
        told(wire::target::Choice::Devices(wire::DeviceList { names }))
    }

    fn faults(rollout_id: &str, told: &wire::Rollout) -> Vec<(String, String)> {
        let told = draft(rollout_id, told).unwrap_err();
        told.into_iter().map(|violation| (violation.field, violation.description)).collect()
    }

    #[test]
    fn every_fault_of_a_rollout_is_told() {
        let fields: Vec<_> = faults("x", &wire::Rollout::default()).into_iter().map(|(field, _)| field).collect();
        assert_eq!(fields, ["rollout_id", "rollout.release", "rollout.target"]);
    }

    #[test]
    fn a_malformed_selector_is_told_with_its_position() {
        let fault = |selector: &str| faults("", &told(wire::target::Choice::Selector(selector.into()))).remove(0);
        assert_eq!(fault("a=b,,c"), ("rollout.target.selector".into(), "at character 5: expected a label key".into()));
        assert!(fault("").1.contains("say `all`"));
    }

    #[test]
    fn a_device_named_twice_takes_part_once() {
        let (_, draft) = draft("", &named(vec![format!("devices/{ID}"); 2])).unwrap();
        assert_eq!(draft.target, Target::Devices(vec![ID.parse().unwrap()]));
    }

    #[test]
    fn named_devices_are_limited_and_so_is_what_is_told_of_them() {
        assert_eq!(faults("", &named(vec![])).len(), 1);
        assert_eq!(faults("", &named(vec![format!("devices/{ID}"); MAX_NAMED_DEVICES + 1])).len(), 1);
        let bad = faults("", &named(vec!["groups/x".into(); MAX_NAMED_DEVICES]));
        assert_eq!(bad.len(), MOST_TOLD + 1);
        assert_eq!(bad[0].0, "rollout.target.devices.names[0]");
    }

    #[test]
    fn no_part_of_a_policy_is_ignored() {
        let all = |policy| wire::Rollout { policy: Some(policy), ..told(wire::target::Choice::All(true)) };
        assert!(unserved(&all(wire::RolloutPolicy::default())).is_empty());
        let every_field = wire::RolloutPolicy {
            phases: vec![wire::Phase::default()],
            abort_rules: vec![wire::AbortRule::default()],
            retry_rules: vec![wire::RetryRule::default()],
            max_in_flight: 1,
            windows: vec![wire::Window::default()],
            deadlines: Some(wire::Deadlines::default()),
            continuous: true,
            delta_policy: 1,
            bandwidth_limit_bytes_per_second: 1,
            apply_at: 1,
        };
        assert_eq!(unserved(&all(every_field)).len(), 10);
        assert_eq!(unserved(&told(wire::target::Choice::Group("groups/g".into()))), ["rollout.target.group"]);
    }
}
