//! Reports of a device on its work.

use ota_domain::{
    Violation, Violations,
    deployment::{Failure, FailureCode, Progress, Report, Verdict},
};

use super::{check_in::running, trust_fault};
use crate::device::v1 as wire;

/// Reads a report.
///
/// # Errors
/// When a field breaks its rule: all of them.
pub fn report(told: wire::ReportProgressRequest) -> Result<Report, Vec<Violation>> {
    let mut violations = Violations::default();
    let deployment = violations.take("deployment", told.deployment.parse());
    violations.require(told.attempt >= 1, "attempt", "must be at least 1");
    let sequence = u64::try_from(told.sequence).ok().filter(|&sequence| sequence >= 1);
    violations.require(sequence.is_some(), "sequence", "must be at least 1");
    let progress = wire::DeploymentState::try_from(told.state).ok().and_then(progress);
    violations.require(progress.is_some(), "state", "must be one of the states a device reports");
    let bytes_done = u64::try_from(told.bytes_done).ok();
    violations.require(bytes_done.is_some(), "bytes_done", "must not be negative");
    let fault = told.failure.as_ref().and_then(|failure| trust_fault::from_wire(failure.trust_fault));
    let failure = told.failure.map(failure);
    let trust_fault = fault.filter(|_| failure.as_ref().is_some_and(|failure| failure.code == FailureCode::Trust));
    if let Some(failure) = &failure {
        failure.check("failure", &mut violations);
    }
    if let Some(progress) = progress {
        violations.require(
            progress.is_failure() == failure.is_some(),
            "failure",
            "must be set with FAILED, ROLLED_BACK and REJECTED, and with no other state",
        );
    }
    let running = running(&told.running, &mut violations);
    let parts = (|| Some((deployment?, sequence?, progress?, bytes_done?)))();
    let (deployment, sequence, progress, bytes_done) = violations.finish(parts)?;
    Ok(Report { deployment, attempt: told.attempt, sequence, progress, bytes_done, failure, trust_fault, running })
}

/// A verdict for the wire.
#[must_use]
pub fn verdict(verdict: Verdict) -> wire::Verdict {
    match verdict {
        Verdict::Continue => wire::Verdict::Continue,
        Verdict::Abort => wire::Verdict::Abort,
    }
}

fn progress(told: wire::DeploymentState) -> Option<Progress> {
    match told {
        wire::DeploymentState::Unspecified => None,
        wire::DeploymentState::Downloading => Some(Progress::Downloading),
        wire::DeploymentState::Installing => Some(Progress::Installing),
        wire::DeploymentState::Rebooting => Some(Progress::Rebooting),
        wire::DeploymentState::Verifying => Some(Progress::Verifying),
        wire::DeploymentState::Succeeded => Some(Progress::Succeeded),
        wire::DeploymentState::Failed => Some(Progress::Failed),
        wire::DeploymentState::RolledBack => Some(Progress::RolledBack),
        wire::DeploymentState::Rejected => Some(Progress::Rejected),
    }
}

fn failure(told: wire::Failure) -> Failure {
    // A class that came after this server must not keep the report of an end from arriving.
    let code = wire::FailureCode::try_from(told.code).map_or(FailureCode::Unspecified, failure_code);
    Failure { code, message: told.message, log_tail: told.log_tail }
}

fn failure_code(told: wire::FailureCode) -> FailureCode {
    match told {
        wire::FailureCode::Unspecified => FailureCode::Unspecified,
        wire::FailureCode::Download => FailureCode::Download,
        wire::FailureCode::Checksum => FailureCode::Checksum,
        wire::FailureCode::NoSpace => FailureCode::NoSpace,
        wire::FailureCode::Archive => FailureCode::Archive,
        wire::FailureCode::Install => FailureCode::Install,
        wire::FailureCode::Hook => FailureCode::Hook,
        wire::FailureCode::Health => FailureCode::Health,
        wire::FailureCode::Deadline => FailureCode::Deadline,
        wire::FailureCode::Hardware => FailureCode::Hardware,
        wire::FailureCode::Installer => FailureCode::Installer,
        wire::FailureCode::Trust => FailureCode::Trust,
        wire::FailureCode::JournalLost => FailureCode::JournalLost,
        wire::FailureCode::TriesExhausted => FailureCode::TriesExhausted,
        wire::FailureCode::Refused => FailureCode::Refused,
    }
}

#[cfg(test)]
mod tests {
    use ota_domain::TrustFault;

    use super::*;

    const ID: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

    fn fields(told: wire::ReportProgressRequest) -> Vec<String> {
        report(told).unwrap_err().into_iter().map(|violation| violation.field).collect()
    }

    #[test]
    fn every_fault_of_a_report_is_told() {
        let told = wire::ReportProgressRequest {
            deployment: "x".into(),
            bytes_done: -1,
            failure: Some(wire::Failure { message: "\0".into(), ..Default::default() }),
            running: vec![wire::RunningRelease::default()],
            ..Default::default()
        };
        assert_eq!(
            fields(told),
            [
                "deployment",
                "attempt",
                "sequence",
                "state",
                "bytes_done",
                "failure.message",
                "running[0].package",
                "running[0].version",
                "running[0].payload_sha256"
            ]
        );
    }

    #[test]
    fn a_failure_comes_with_the_states_that_have_one() {
        let told = |state: wire::DeploymentState, failure: Option<wire::Failure>| wire::ReportProgressRequest {
            deployment: ID.into(),
            attempt: 1,
            sequence: 1,
            state: state.into(),
            failure,
            ..Default::default()
        };
        let some = || Some(wire::Failure { code: 9999, ..Default::default() });
        for state in [wire::DeploymentState::Failed, wire::DeploymentState::RolledBack, wire::DeploymentState::Rejected]
        {
            assert_eq!(fields(told(state, None)), ["failure"]);
            assert_eq!(report(told(state, some())).unwrap().failure.unwrap().code, FailureCode::Unspecified);
        }
        assert_eq!(fields(told(wire::DeploymentState::Downloading, some())), ["failure"]);
        assert!(report(told(wire::DeploymentState::Downloading, None)).is_ok());
    }

    #[test]
    fn only_a_failure_of_trust_says_which_check_failed() {
        let fault = |code: wire::FailureCode| {
            let failure =
                wire::Failure { code: code.into(), trust_fault: wire::TrustFault::Freeze.into(), ..Default::default() };
            let told = wire::ReportProgressRequest {
                deployment: ID.into(),
                attempt: 1,
                sequence: 1,
                state: wire::DeploymentState::Failed.into(),
                failure: Some(failure),
                ..Default::default()
            };
            report(told).unwrap().trust_fault
        };
        assert_eq!(fault(wire::FailureCode::Trust), Some(TrustFault::Freeze));
        assert_eq!(fault(wire::FailureCode::Health), None);
    }
}
