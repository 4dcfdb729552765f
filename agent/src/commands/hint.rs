//! Says what went wrong in one line, and what to do about it in another.

use ota_proto::device::v1::ErrorReason;
use ota_tls::ConnectError;

use crate::agent;
use crate::client;
use crate::config;
use crate::data_dir;
use crate::enroll;
use crate::failure;

const INSECURE: &str = "use https://, or say --insecure if you trust the network between: anybody on it could read and \
                        change what is sent";

/// Writes an error and its causes in one line.
pub(super) fn chain(error: &anyhow::Error) -> String {
    failure::chain(error.as_ref())
}

/// Returns what a person can do about an error.
pub(super) fn hint(error: &anyhow::Error) -> Option<String> {
    if let Some(error) = error.downcast_ref::<client::Error>() {
        return of_client(error);
    }
    if let Some(error) = error.downcast_ref::<data_dir::Error>() {
        return Some(of_data(error));
    }
    if let Some(error) = error.downcast_ref::<config::Error>() {
        return match error {
            config::Error::Read { .. } => Some("name another file with --config".to_owned()),
            config::Error::Syntax { .. } | config::Error::Invalid { .. } => None,
        };
    }
    if let Some(error) = error.downcast_ref::<enroll::Error>() {
        return match error {
            enroll::Error::Insecure { .. } => Some(INSECURE.to_owned()),
            enroll::Error::WrongPin { .. } => Some(
                "is the address right, and was the string made by the server at this address? Somebody between may \
                 pretend to be it"
                    .to_owned(),
            ),
            enroll::Error::Client { source, .. } => of_client(source),
            enroll::Error::Taken { .. }
            | enroll::Error::Identity(_)
            | enroll::Error::Trust(_)
            | enroll::Error::Tls(_) => None,
        };
    }
    match error.downcast_ref::<agent::Error>()? {
        agent::Error::Data(error) => Some(of_data(error)),
        agent::Error::NotEnrolled => Some(
            "get an enrolment string with `otactl enroll-token create`, then run `ota-agent enroll STRING`, \
             with the same --data-dir as now"
                .to_owned(),
        ),
        agent::Error::Insecure { .. } => Some(INSECURE.to_owned()),
        agent::Error::CheckIn { source, .. } => of_client(source),
        agent::Error::NotForThisDevice { .. } => Some("make one for it with `otactl export --device`".to_owned()),
        agent::Error::AtWork { .. } => Some("let it finish with `ota-agent once` first".to_owned()),
        agent::Error::Bundle(_) | agent::Error::BundleAnswer(_) => Some("copy it again, or make it again".to_owned()),
        agent::Error::Identity(_)
        | agent::Error::Tls(_)
        | agent::Error::Driver(_)
        | agent::Error::Trust(_)
        | agent::Error::NotBelieved(_) => None,
    }
}

fn of_data(error: &data_dir::Error) -> String {
    match error {
        data_dir::Error::Unusable { .. } => {
            "run as a user who may write there, or name another folder with --data-dir".to_owned()
        }
        data_dir::Error::Busy { .. } => {
            "stop the other agent first, or name another folder with --data-dir; `ota-agent status` shows what it does"
                .to_owned()
        }
    }
}

fn of_connect(error: &ConnectError) -> Option<&'static str> {
    Some(match error {
        ConnectError::WrongAuthority | ConnectError::WrongName { .. } => {
            "is this the right server? If its certificate comes from another authority, name that with --ca-file"
        }
        ConnectError::WrongPurpose => "is this the address of an ota-server?",
        ConnectError::Expired { .. } | ConnectError::NotYetValid { .. } => "is the clock of this device right?",
        ConnectError::NotTls => "if the server does not use TLS, its address starts with http://",
        ConnectError::OnlyTls => "use the address with https:// in place of http://",
        ConnectError::Closed | ConnectError::NotHttp2 | ConnectError::Refused { .. } => {
            "does an ota-server listen there, and is nothing between that does not pass on HTTP/2?"
        }
        ConnectError::Handshake { .. } => return None,
    })
}

fn of_client(error: &client::Error) -> Option<String> {
    let hint = match error {
        client::Error::Unreachable { .. } => "does ota-server run, and is this its address? See --server",
        client::Error::Connect(error) => of_connect(error)?,
        client::Error::Setup { .. } => return None,
        client::Error::Nonsense { .. } => "is this the address of an ota-server?",
        client::Error::Refused { reason, .. } => match reason.as_ref()? {
            ErrorReason::EnrollTokenInvalid => "check that the enrolment string was copied whole",
            ErrorReason::EnrollTokenExpired | ErrorReason::EnrollTokenRevoked | ErrorReason::EnrollTokenUsedUp => {
                "get another one with `otactl enroll-token create`"
            }
            ErrorReason::HardwareNotAllowed => "see --hardware, or get another string for this hardware type",
            ErrorReason::CredentialInvalid | ErrorReason::CredentialMissing => {
                "was the server's database replaced? Then enrol the device again, with a new data directory"
            }
            ErrorReason::CertificateInvalid => "this device is enrolled at another server; see --server",
            ErrorReason::DevicePending => "an operator has to approve it: `otactl device approve DEVICE`",
            ErrorReason::DeviceRejected => "an operator rejected this device",
            ErrorReason::DeviceDecommissioned => {
                "an operator took this device out of the fleet; it can join again with a new data directory"
            }
            ErrorReason::DatabaseUnavailable
            | ErrorReason::BlobStoreUnavailable
            | ErrorReason::ShuttingDown
            | ErrorReason::ChallengeExpired
            | ErrorReason::RateLimited => "try again in a moment",
            ErrorReason::Unspecified
            | ErrorReason::FieldsInvalid
            | ErrorReason::RoleInsufficient
            | ErrorReason::WatchReplaced
            | ErrorReason::PayloadNotAssigned
            | ErrorReason::RangeInvalid
            | ErrorReason::EncodingUnavailable
            | ErrorReason::DeploymentNotFound
            | ErrorReason::NotImplemented
            | ErrorReason::CertificateExpired
            | ErrorReason::Internal => return None,
        },
    };
    Some(hint.to_owned())
}
