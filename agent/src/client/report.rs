//! What the agent tells of its work and of itself.

use ota_domain::DeploymentId;
use ota_domain::device::Running;
use ota_proto::convert::device::trust_fault;
use ota_proto::device::v1 as wire;

use crate::failure::{Failure, FailureCode};

/// How far a deployment is.
#[derive(Debug, Clone)]
pub enum Stage<'a> {
    /// Fetching bytes.
    Downloading,
    /// Unpacking and switching.
    Installing,
    /// On trial.
    Verifying,
    /// Done; this runs.
    Succeeded(&'a [Running]),
    /// Never switched.
    Failed(&'a Failure),
    /// Undone; this runs.
    RolledBack(&'a Failure, &'a [Running]),
    /// Refused.
    Rejected(&'a Failure),
}

/// One report.
#[derive(Debug, Clone)]
pub struct Report<'a> {
    /// The deployment.
    pub deployment: DeploymentId,
    /// The attempt.
    pub attempt: u32,
    /// Rises with every report.
    pub sequence: u64,
    /// How far it is.
    pub stage: Stage<'a>,
    /// Bytes of the payload that have been fetched.
    pub bytes_done: u64,
}

impl Report<'_> {
    pub(super) fn to_wire(&self) -> wire::ReportProgressRequest {
        let (state, failure, runs) = match self.stage {
            Stage::Downloading => (wire::DeploymentState::Downloading, None, &[][..]),
            Stage::Installing => (wire::DeploymentState::Installing, None, &[][..]),
            Stage::Verifying => (wire::DeploymentState::Verifying, None, &[][..]),
            Stage::Succeeded(runs) => (wire::DeploymentState::Succeeded, None, runs),
            Stage::Failed(failure) => (wire::DeploymentState::Failed, Some(failure), &[][..]),
            Stage::RolledBack(failure, runs) => (wire::DeploymentState::RolledBack, Some(failure), runs),
            Stage::Rejected(failure) => (wire::DeploymentState::Rejected, Some(failure), &[][..]),
        };
        wire::ReportProgressRequest {
            deployment: self.deployment.to_string(),
            attempt: self.attempt,
            sequence: i64::try_from(self.sequence).unwrap_or(i64::MAX),
            state: state.into(),
            bytes_done: i64::try_from(self.bytes_done).unwrap_or(i64::MAX),
            failure: failure.map(failure_to_wire),
            running: running(runs),
        }
    }
}

fn failure_to_wire(failure: &Failure) -> wire::Failure {
    let code = match failure.code {
        FailureCode::Unspecified => wire::FailureCode::Unspecified,
        FailureCode::Download => wire::FailureCode::Download,
        FailureCode::Checksum => wire::FailureCode::Checksum,
        FailureCode::NoSpace => wire::FailureCode::NoSpace,
        FailureCode::Archive => wire::FailureCode::Archive,
        FailureCode::Install => wire::FailureCode::Install,
        FailureCode::Hook => wire::FailureCode::Hook,
        FailureCode::Health => wire::FailureCode::Health,
        FailureCode::Deadline => wire::FailureCode::Deadline,
        FailureCode::Hardware => wire::FailureCode::Hardware,
        FailureCode::Installer => wire::FailureCode::Installer,
        FailureCode::Trust => wire::FailureCode::Trust,
        FailureCode::JournalLost => wire::FailureCode::JournalLost,
        FailureCode::TriesExhausted => wire::FailureCode::TriesExhausted,
        FailureCode::Refused => wire::FailureCode::Refused,
    };
    wire::Failure {
        code: code.into(),
        message: failure.message.clone(),
        log_tail: failure.log_tail.clone(),
        trust_fault: trust_fault::to_wire(failure.trust_fault).into(),
    }
}

pub(super) fn running(runs: &[Running]) -> Vec<wire::RunningRelease> {
    let to_wire = |running: &Running| wire::RunningRelease {
        package: running.package.to_string(),
        version: running.version.to_string(),
        payload_sha256: running.payload.0.to_vec().into(),
    };
    runs.iter().map(to_wire).collect()
}
