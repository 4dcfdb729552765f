//! How a use case fails, named for what the caller can do about it.

use std::{error::Error as StdError, fmt, time::Duration};

use ota_domain::Violation;

use crate::{blobs, keys::OpenError};

/// An error that is not the caller's.
pub(super) type Source = Box<dyn StdError + Send + Sync>;

/// Why a use case did nothing.
#[derive(Debug)]
pub enum Error {
    /// Mend these fields and call again.
    Invalid(Vec<Violation>),
    /// The request is well formed and refused as things stand.
    Refused {
        /// The class a program can act on.
        reason: Reason,
        /// For a person.
        message: String,
    },
    /// Called too often. Call again after this time, the request as it is.
    RateLimited {
        /// How long to wait.
        retry_after: Duration,
    },
    /// Call again later, the request as it is.
    Unavailable {
        /// What does not answer.
        dependency: Dependency,
        /// What it said.
        source: Source,
    },
    /// A fault of ours. The caller learns only that.
    Internal(Source),
}

/// What the server cannot work without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dependency {
    /// Postgres.
    Database,
    /// Where payloads are kept.
    BlobStore,
    /// Where people log in.
    IdentityProvider,
}

/// The result of a use case.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// A refusal.
    pub fn refused(reason: Reason, message: impl Into<String>) -> Self {
        Self::Refused { reason, message: message.into() }
    }

    /// One field that breaks its rule.
    pub fn invalid(field: &str, description: impl fmt::Display) -> Self {
        Self::Invalid(vec![Violation { field: field.to_owned(), description: description.to_string() }])
    }

    /// A fault of ours.
    pub fn internal(source: impl Into<Source>) -> Self {
        Self::Internal(source.into())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid(violations) => {
                f.write_str("invalid request")?;
                violations
                    .iter()
                    .try_for_each(|violation| write!(f, "; {}: {}", violation.field, violation.description))
            }
            Self::Refused { message, .. } => f.write_str(message),
            Self::RateLimited { retry_after } => {
                write!(f, "too many calls; try again in {} s", retry_after.as_secs_f64().ceil())
            }
            Self::Unavailable { dependency: Dependency::Database, .. } => f.write_str("the database does not answer"),
            Self::Unavailable { dependency: Dependency::BlobStore, source } => {
                match source.downcast_ref::<blobs::Refusal>() {
                    Some(refusal) => refusal.fmt(f),
                    None => f.write_str("the blob store does not answer"),
                }
            }
            Self::Unavailable { dependency: Dependency::IdentityProvider, .. } => {
                f.write_str("the identity provider does not answer")
            }
            Self::Internal(_) => f.write_str("internal error"),
        }
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Unavailable { source, .. } | Self::Internal(source) => Some(source.as_ref()),
            Self::Invalid(_) | Self::Refused { .. } | Self::RateLimited { .. } => None,
        }
    }
}

impl From<Vec<Violation>> for Error {
    fn from(violations: Vec<Violation>) -> Self {
        Self::Invalid(violations)
    }
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        if is_outage(&error) {
            Self::Unavailable { dependency: Dependency::Database, source: error.into() }
        } else {
            Self::internal(error)
        }
    }
}

impl From<OpenError> for Error {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Database(error) => error.into(),
            OpenError::KeyFile(_)
            | OpenError::KeyFileMissing
            | OpenError::NoKeys
            | OpenError::OtherKey { .. }
            | OpenError::Damaged { .. }
            | OpenError::Generate(_)
            | OpenError::Sign(_) => Self::internal(error),
        }
    }
}

/// Whether the statement may succeed when it is simply tried again later.
pub fn is_outage(error: &sqlx::Error) -> bool {
    let severed = matches!(
        error,
        sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::Protocol(_)
            | sqlx::Error::WorkerCrashed
    );
    // Connection exception, insufficient resources, operator intervention, deadlock, serialisation failure:
    // https://www.postgresql.org/docs/current/errcodes-appendix.html
    let refused = || {
        let code = error.as_database_error()?.code()?;
        Some(["08", "53", "57", "40001", "40P01"].iter().any(|class| code.starts_with(class)))
    };
    severed || refused().unwrap_or(false)
}

/// What a caller should do with a refusal, in the terms of any RPC protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Mend the request.
    InvalidArgument,
    /// Give a credential that works.
    Unauthenticated,
    /// Give up, or ask for more rights.
    PermissionDenied,
    /// Name something that exists.
    NotFound,
    /// It is there already.
    AlreadyExists,
    /// Change the state of things first.
    FailedPrecondition,
    /// Read again and retry.
    Aborted,
    /// Ask for a range that exists.
    OutOfRange,
    /// Wait or ask for less.
    ResourceExhausted,
    /// Send the bytes again.
    DataLoss,
    /// Go on where it stopped.
    Cancelled,
    /// Try again later.
    Unavailable,
    /// Wait for a later version.
    Unimplemented,
    /// Tell the operators.
    Internal,
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $reason:ident = $text:literal $class:ident,)*) => {
        /// Why a request was refused, as a program reads it. The texts are the `ErrorReason`s of the APIs.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Reason {
            $($(#[$doc])* $reason,)*
        }

        impl Reason {
            /// All reasons.
            pub const ALL: &[Self] = &[$(Self::$reason,)*];

            /// The text in the API.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$reason => $text,)*
                }
            }

            /// What the caller should do.
            #[must_use]
            pub fn class(self) -> Class {
                match self {
                    $(Self::$reason => Class::$class,)*
                }
            }
        }
    };
}

reasons! {
    /// A field breaks its rule.
    FieldsInvalid = "FIELDS_INVALID" InvalidArgument,
    /// No credential was sent.
    CredentialMissing = "CREDENTIAL_MISSING" Unauthenticated,
    /// The credential is not known, has expired or was revoked.
    CredentialInvalid = "CREDENTIAL_INVALID" Unauthenticated,
    /// No such enrolment token, or the secret is wrong.
    EnrollTokenInvalid = "ENROLL_TOKEN_INVALID" Unauthenticated,
    /// The enrolment token's time has passed.
    EnrollTokenExpired = "ENROLL_TOKEN_EXPIRED" Unauthenticated,
    /// The enrolment token was revoked.
    EnrollTokenRevoked = "ENROLL_TOKEN_REVOKED" Unauthenticated,
    /// The enrolment token has been used as often as it may.
    EnrollTokenUsedUp = "ENROLL_TOKEN_USED_UP" Unauthenticated,
    /// The enrolment token is not for this hardware type.
    HardwareNotAllowed = "HARDWARE_NOT_ALLOWED" PermissionDenied,
    /// The caller is known and may not do this.
    RoleInsufficient = "ROLE_INSUFFICIENT" PermissionDenied,
    /// The device waits for approval.
    DevicePending = "DEVICE_PENDING" PermissionDenied,
    /// The device was rejected.
    DeviceRejected = "DEVICE_REJECTED" PermissionDenied,
    /// The device was decommissioned.
    DeviceDecommissioned = "DEVICE_DECOMMISSIONED" PermissionDenied,
    /// A newer stream of the same device took over.
    WatchReplaced = "WATCH_REPLACED" Aborted,
    /// None of the device's deployments needs the payload.
    PayloadNotAssigned = "PAYLOAD_NOT_ASSIGNED" NotFound,
    /// The range does not lie in the payload.
    RangeInvalid = "RANGE_INVALID" OutOfRange,
    /// The payload is not to be had in this encoding.
    EncodingUnavailable = "ENCODING_UNAVAILABLE" FailedPrecondition,
    /// No such package.
    PackageNotFound = "PACKAGE_NOT_FOUND" NotFound,
    /// No such release.
    ReleaseNotFound = "RELEASE_NOT_FOUND" NotFound,
    /// No such payload.
    PayloadNotFound = "PAYLOAD_NOT_FOUND" NotFound,
    /// No such upload.
    UploadNotFound = "UPLOAD_NOT_FOUND" NotFound,
    /// No such device.
    DeviceNotFound = "DEVICE_NOT_FOUND" NotFound,
    /// No such enrolment token.
    EnrollTokenNotFound = "ENROLL_TOKEN_NOT_FOUND" NotFound,
    /// No such API token.
    ApiTokenNotFound = "API_TOKEN_NOT_FOUND" NotFound,
    /// No such rollout.
    RolloutNotFound = "ROLLOUT_NOT_FOUND" NotFound,
    /// No such deployment.
    DeploymentNotFound = "DEPLOYMENT_NOT_FOUND" NotFound,
    /// No such group.
    GroupNotFound = "GROUP_NOT_FOUND" NotFound,
    /// The package exists.
    PackageExists = "PACKAGE_EXISTS" AlreadyExists,
    /// The version exists.
    ReleaseExists = "RELEASE_EXISTS" AlreadyExists,
    /// Changed since it was read.
    EtagMismatch = "ETAG_MISMATCH" Aborted,
    /// The package still has releases.
    PackageNotEmpty = "PACKAGE_NOT_EMPTY" FailedPrecondition,
    /// A release needs the payload.
    PayloadInUse = "PAYLOAD_IN_USE" FailedPrecondition,
    /// A rollout or a device needs the release.
    ReleaseInUse = "RELEASE_IN_USE" FailedPrecondition,
    /// The release was yanked.
    ReleaseYanked = "RELEASE_YANKED" FailedPrecondition,
    /// The release does not fit the device.
    HardwareMismatch = "HARDWARE_MISMATCH" FailedPrecondition,
    /// No device is chosen.
    SelectionEmpty = "SELECTION_EMPTY" FailedPrecondition,
    /// The device's state does not allow it.
    DeviceState = "DEVICE_STATE" FailedPrecondition,
    /// The rollout's or deployment's state does not allow it.
    RolloutState = "ROLLOUT_STATE" FailedPrecondition,
    /// Larger than the server takes.
    PayloadTooLarge = "PAYLOAD_TOO_LARGE" FailedPrecondition,
    /// The bytes do not hash to what was declared.
    ChecksumMismatch = "CHECKSUM_MISMATCH" InvalidArgument,
    /// A piece's checksum is wrong.
    ChunkCorrupt = "CHUNK_CORRUPT" DataLoss,
    /// The piece does not start where the upload stands.
    OffsetMismatch = "OFFSET_MISMATCH" Aborted,
    /// The stream ended before the last byte.
    UploadIncomplete = "UPLOAD_INCOMPLETE" Cancelled,
    /// Another stream writes to the upload.
    UploadBusy = "UPLOAD_BUSY" Aborted,
    /// No space left in the blob store.
    BlobStoreFull = "BLOB_STORE_FULL" ResourceExhausted,
    /// The blob store does not answer.
    BlobStoreUnavailable = "BLOB_STORE_UNAVAILABLE" Unavailable,
    /// The database does not answer.
    DatabaseUnavailable = "DATABASE_UNAVAILABLE" Unavailable,
    /// The server is stopping.
    ShuttingDown = "SHUTTING_DOWN" Unavailable,
    /// The page token is not one of this list's.
    PageTokenInvalid = "PAGE_TOKEN_INVALID" InvalidArgument,
    /// The device's certificate has expired.
    CertificateExpired = "CERTIFICATE_EXPIRED" Unauthenticated,
    /// The client certificate is not one of this server's.
    CertificateInvalid = "CERTIFICATE_INVALID" Unauthenticated,
    /// The challenge is too old.
    ChallengeExpired = "CHALLENGE_EXPIRED" Unauthenticated,
    /// Too many calls from this caller.
    RateLimited = "RATE_LIMITED" ResourceExhausted,
    /// No signed targets document lists the release.
    ReleaseNotSigned = "RELEASE_NOT_SIGNED" FailedPrecondition,
    /// The document breaks a rule or lacks signatures.
    MetadataInvalid = "METADATA_INVALID" InvalidArgument,
    /// Another document was published meanwhile.
    MetadataOutdated = "METADATA_OUTDATED" Aborted,
    /// No such document.
    MetadataNotFound = "METADATA_NOT_FOUND" NotFound,
    /// The operators hold the root keys.
    RootAdopted = "ROOT_ADOPTED" FailedPrecondition,
    /// The caller's role is limited to other devices or packages.
    OutOfScope = "OUT_OF_SCOPE" PermissionDenied,
    /// The server has no identity provider.
    IdentityProviderMissing = "IDENTITY_PROVIDER_MISSING" FailedPrecondition,
    /// The identity provider does not answer.
    IdentityProviderUnavailable = "IDENTITY_PROVIDER_UNAVAILABLE" Unavailable,
    /// Not part of this server yet.
    NotImplemented = "NOT_IMPLEMENTED" Unimplemented,
    /// A fault of ours.
    Internal = "INTERNAL" Internal,
}
