//! The server's error reasons, and what a person can do about each.

use ota_proto::admin::v1::ErrorReason;
use tonic_types::StatusExt;

/// The `domain` of the server's `google.rpc.ErrorInfo`.
const DOMAIN: &str = "ota";

/// Returns the reason of an error of our server's, when this version knows it.
pub fn reason_of(status: &tonic::Status) -> Option<ErrorReason> {
    let info = status.get_details_error_info().filter(|info| info.domain == DOMAIN)?;
    ErrorReason::from_str_name(&format!("ERROR_REASON_{}", info.reason))
}

/// Returns what to do next, when the reason alone tells.
pub(super) fn hint(reason: ErrorReason) -> Option<&'static str> {
    use ErrorReason as R;
    match reason {
        R::CredentialMissing | R::CredentialInvalid => {
            Some("log in with `otactl login URL`; an administrator makes tokens with `otactl token create`")
        }
        R::RoleInsufficient => {
            Some("an administrator can give you another token with `otactl token create NAME --role ROLE`")
        }
        R::PackageNotFound => Some("see `otactl package list`"),
        R::ReleaseNotFound => Some("see `otactl release list`"),
        R::DeviceNotFound => Some("see `otactl device list`"),
        R::EnrollTokenNotFound => Some("see `otactl enroll-token list`"),
        R::ApiTokenNotFound => Some("see `otactl token list`"),
        R::RolloutNotFound => Some("see `otactl rollout list`"),
        R::DeploymentNotFound => Some("see `otactl deployment list`"),
        R::ReleaseExists => Some("releases never change: choose another version"),
        R::EtagMismatch => Some("somebody changed it meanwhile: read it again, then repeat the command"),
        R::PackageNotEmpty => Some("see `otactl release list PACKAGE`"),
        R::ReleaseInUse => Some("`otactl release yank` keeps it from being installed anywhere else"),
        R::SelectionEmpty => Some("see which devices match with `otactl device list -l SELECTOR`"),
        R::HardwareMismatch => {
            Some("see what the release fits with `otactl release get`, what devices are with `otactl device list`")
        }
        R::DeviceState => Some("see the device's state with `otactl device get`"),
        R::BlobStoreUnavailable
        | R::DatabaseUnavailable
        | R::IdentityProviderUnavailable
        | R::ShuttingDown
        | R::UploadBusy
        | R::RateLimited => Some("try again in a moment"),
        R::ReleaseNotSigned => Some("sign it with `otactl release sign`, or upload it again with `otactl upload`"),
        R::MetadataOutdated => Some("somebody else published meanwhile: repeat the command"),
        R::RootAdopted => Some("the root keys are yours: sign with `otactl keys rotate --root-key FILE`"),
        R::OutOfScope => {
            Some("your token is limited to some devices or packages: see `otactl token list`, or ask an administrator")
        }
        R::IdentityProviderMissing => Some("log in with a token: `otactl login URL --token-file FILE`"),
        R::Internal => Some("the server's log has the request id"),
        R::NotImplemented => Some("a later version of the server will do this"),
        R::Unspecified
        | R::FieldsInvalid
        | R::PayloadNotFound
        | R::UploadNotFound
        | R::GroupNotFound
        | R::PackageExists
        | R::PayloadInUse
        | R::ReleaseYanked
        | R::RolloutState
        | R::PayloadTooLarge
        | R::ChecksumMismatch
        | R::ChunkCorrupt
        | R::OffsetMismatch
        | R::UploadIncomplete
        | R::BlobStoreFull
        | R::MetadataInvalid
        | R::MetadataNotFound
        | R::PageTokenInvalid => None,
    }
}
