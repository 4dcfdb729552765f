//! What devices trust: keeps the signed metadata, and signs what the server may sign.
//!
//! There are two repositories after The Update Framework. Of the image repository this server signs snapshots and
//! timestamps; its targets come signed from operators, and its roots too once these have taken the root keys over. Of the
//! director repository it signs everything but, then, the roots. Whatever is published is verified first as a device would.
//!
//! All that is signed is in Postgres; who signs the next document holds a lock there. [`published`] is what a replica
//! remembers, checked by version before it is used.

mod orders;
mod published;
mod repository;
mod roots;
mod rotation;
mod status;
mod targets;
mod upkeep;

use ota_trust::image::PublishError;

pub use orders::{Asked, Export, Held, Remembered, Update, export, update};
pub use published::Published;
pub use roots::{NewRoots, add_targets_key, publish_roots};
pub use rotation::{Rotated, RotatedKey, rotate};
pub use status::{KeyStatus, RoleStatus, TrustStatus, document, expiries, status, warning};
pub use targets::publish_targets;
pub use upkeep::keep_fresh;

use super::{Error, Reason};

/// Refuses documents that no device would believe.
fn invalid(message: impl ToString) -> Error {
    Error::refused(Reason::MetadataInvalid, message.to_string())
}

/// Refuses documents that follow others than the newest.
fn outdated(message: impl ToString) -> Error {
    Error::refused(Reason::MetadataOutdated, message.to_string())
}

/// What it means that documents which somebody gave cannot be published.
fn refused(error: PublishError) -> Error {
    match error {
        PublishError::Verify(error) => invalid(error),
        PublishError::Sign(error) => Error::internal(error),
    }
}
