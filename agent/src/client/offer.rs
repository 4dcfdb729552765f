//! Reads what a check-in offers.

use ota_domain::release::{Installer, Payload};
use ota_domain::{DeploymentId, Sha256Digest};
use ota_proto::convert;
use ota_proto::device::v1 as wire;

use crate::failure::{Failure, FailureCode, failure};
use crate::release::{Job, Release};

/// One deployment that the server offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Offer {
    /// Work that this agent understands.
    Job {
        /// The work.
        job: Box<Job>,
        /// May it start.
        gate: Gate,
    },
    /// Work that this agent cannot do at all.
    Unusable {
        /// The deployment.
        deployment: DeploymentId,
        /// Its attempt.
        attempt: u32,
        /// What to tell the server.
        failure: Failure,
    },
}

/// Whether offered work may start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gate {
    /// At once.
    Open,
    /// When a person at the device says so.
    Confirm,
    /// Not yet.
    Closed,
}

/// Reads one deployment; `None` for one that cannot even be answered.
pub(super) fn read(deployment: wire::Deployment) -> Option<Offer> {
    let Ok(id) = deployment.deployment.parse() else {
        tracing::warn!(deployment.id = deployment.deployment, "ignoring a deployment whose id is none");
        return None;
    };
    let attempt = deployment.attempt;
    let gate = gate(deployment.gates.unwrap_or_default());
    Some(match read_job(id, &deployment) {
        Ok(job) => Offer::Job { job: Box::new(job), gate },
        Err(failure) => Offer::Unusable { deployment: id, attempt, failure },
    })
}

fn read_job(id: DeploymentId, deployment: &wire::Deployment) -> Result<Job, Failure> {
    let wrong = |what: &str| failure(FailureCode::Install, format!("the server sent a deployment with a wrong {what}"));
    let installer = match deployment.installer() {
        wire::Installer::Directory => Installer::Directory,
        wire::Installer::File => Installer::File,
        wire::Installer::Unspecified | wire::Installer::Slot | wire::Installer::Module | wire::Installer::Mcu => {
            let message = format!("this agent cannot install by {:?}", deployment.installer());
            return Err(failure(FailureCode::Installer, message));
        }
    };
    let payload = deployment.payload.as_ref().ok_or_else(|| wrong("payload"))?;
    let payload = Payload {
        sha256: Sha256Digest::try_from(&payload.sha256[..]).map_err(|_| wrong("payload digest"))?,
        size_bytes: u64::try_from(payload.size_bytes).ok().filter(|&size| size > 0).ok_or_else(|| wrong("size"))?,
    };
    let release = Release {
        package: deployment.package.parse().map_err(|_| wrong("package"))?,
        version: deployment.version.parse().map_err(|_| wrong("version"))?,
        payload,
        release_counter: deployment.release_counter,
        installer,
    };
    let hardware = deployment.hardware.iter().map(|name| name.parse().map_err(|_| wrong("hardware type")));
    let deadlines = deployment.deadlines.as_ref();
    Ok(Job {
        deployment: id,
        attempt: deployment.attempt,
        release,
        hardware: hardware.collect::<Result<_, _>>()?,
        unpacked_size_bytes: u64::try_from(deployment.unpacked_size_bytes).unwrap_or(0),
        bandwidth_limit: u64::try_from(deployment.bandwidth_limit_bytes_per_second).ok().filter(|&limit| limit > 0),
        download_deadline: deadlines.and_then(|deadlines| deadlines.download.as_ref()).and_then(convert::from_duration),
        verify_deadline: deadlines.and_then(|deadlines| deadlines.verify.as_ref()).and_then(convert::from_duration),
    })
}

/// One decision out of the gates: work starts only when it may go through to its end.
fn gate(gates: wire::Gates) -> Gate {
    let gates = [gates.download(), gates.install()].map(|gate| match gate {
        wire::Gate::Unspecified | wire::Gate::Open => Gate::Open,
        wire::Gate::Confirm => Gate::Confirm,
        wire::Gate::Closed | wire::Gate::NextReboot => Gate::Closed,
    });
    if gates.contains(&Gate::Closed) {
        Gate::Closed
    } else if gates.contains(&Gate::Confirm) {
        Gate::Confirm
    } else {
        Gate::Open
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deployment() -> wire::Deployment {
        wire::Deployment {
            deployment: "01890a5d-ac96-774b-bcce-b302099a8057".to_owned(),
            attempt: 2,
            package: "app".to_owned(),
            version: "1.2.3".to_owned(),
            installer: wire::Installer::Directory.into(),
            payload: Some(wire::Payload { sha256: vec![1; 32].into(), size_bytes: 10 }),
            hardware: vec!["rpi4".to_owned()],
            ..Default::default()
        }
    }

    #[test]
    fn a_complete_offer_becomes_a_job() {
        let Some(Offer::Job { job, gate }) = read(deployment()) else { panic!("should be a job") };
        assert_eq!((job.attempt, job.release.to_string().as_str()), (2, "app@1.2.3"));
        assert_eq!((job.hardware[0].as_str(), gate), ("rpi4", Gate::Open));
    }

    #[test]
    fn an_offer_that_cannot_be_done_is_answered_with_the_reason() {
        let code = |change: fn(&mut wire::Deployment)| {
            let mut changed = deployment();
            change(&mut changed);
            match read(changed) {
                Some(Offer::Unusable { failure, attempt: 2, .. }) => failure.code,
                other => panic!("should be unusable: {other:?}"),
            }
        };
        assert_eq!(code(|d| d.installer = wire::Installer::Mcu.into()), FailureCode::Installer);
        assert_eq!(code(|d| d.installer = 99), FailureCode::Installer);
        assert_eq!(code(|d| d.package = "../etc".to_owned()), FailureCode::Install);
        assert_eq!(code(|d| d.version = "one".to_owned()), FailureCode::Install);
        assert_eq!(code(|d| d.payload = None), FailureCode::Install);
        assert_eq!(code(|d| d.payload.as_mut().unwrap().sha256 = vec![1; 31].into()), FailureCode::Install);
        assert_eq!(code(|d| d.payload.as_mut().unwrap().size_bytes = 0), FailureCode::Install);
        assert_eq!(code(|d| d.payload.as_mut().unwrap().size_bytes = -1), FailureCode::Install);
    }

    #[test]
    fn an_offer_without_an_id_is_ignored() {
        assert_eq!(read(wire::Deployment { deployment: "x".to_owned(), ..deployment() }), None);
    }

    #[test]
    fn work_starts_only_when_every_gate_lets_it_through() {
        let gates = |download: wire::Gate, install: wire::Gate| {
            gate(wire::Gates { download: download.into(), install: install.into(), ..Default::default() })
        };
        assert_eq!(gates(wire::Gate::Open, wire::Gate::Unspecified), Gate::Open);
        assert_eq!(gates(wire::Gate::Open, wire::Gate::Confirm), Gate::Confirm);
        assert_eq!(gates(wire::Gate::Closed, wire::Gate::Confirm), Gate::Closed);
        assert_eq!(gates(wire::Gate::Open, wire::Gate::NextReboot), Gate::Closed);
    }
}
