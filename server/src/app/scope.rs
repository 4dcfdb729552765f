//! What a caller's role is limited to, held against what they ask for.
//!
//! What is out of sight does not exist for who reads; who would change it is told that they may not.

use ota_domain::{DeviceId, Labels, PackageName, Scope, rollout::Target};
use sqlx::PgConnection;

use super::{Error, Reason, Result};
use crate::{auth::Caller, db};

/// The refusal of a change to something outside the caller's scope.
pub(super) fn out_of_scope(what: impl std::fmt::Display) -> Error {
    Error::refused(Reason::OutOfScope, format!("your role is limited, and {what} lies outside"))
}

/// Makes sure that the caller may change a device with these labels.
///
/// # Errors
/// `OUT_OF_SCOPE`.
pub(super) fn may_change(caller: &Caller, id: DeviceId, labels: &Labels) -> Result<()> {
    if caller.scope().has_device(labels) { Ok(()) } else { Err(out_of_scope(format_args!("devices/{id}"))) }
}

/// Makes sure that the caller may change these packages: create them, publish in them, assign from them.
///
/// # Errors
/// `OUT_OF_SCOPE`.
pub fn may_publish<'a>(caller: &Caller, packages: impl IntoIterator<Item = &'a PackageName>) -> Result<()> {
    let outside = packages.into_iter().find(|package| !caller.scope().has_package(package));
    outside.map_or(Ok(()), |package| Err(out_of_scope(format_args!("packages/{package}"))))
}

/// Makes sure that the caller may do what concerns everything there is.
///
/// # Errors
/// `OUT_OF_SCOPE`.
pub fn unlimited(caller: &Caller, what: &str) -> Result<()> {
    if caller.scope().is_limited() { Err(out_of_scope(what)) } else { Ok(()) }
}

/// Makes sure that the caller may change all the devices that a target names. One that does not exist is no matter here.
///
/// # Errors
/// `OUT_OF_SCOPE`.
pub(super) async fn may_target(connection: &mut PgConnection, caller: &Caller, target: &Target) -> Result<()> {
    match (target, &caller.scope().devices) {
        (Target::Devices(devices), Some(selector)) => {
            let outside = db::device::outside(connection, devices, selector).await?;
            outside.first().map_or(Ok(()), |device| Err(out_of_scope(format_args!("devices/{device}"))))
        }
        (Target::Selector(_) | Target::All, Some(_)) | (_, None) => Ok(()),
    }
}

/// Whether the caller sees a device.
///
/// # Errors
/// When the database does not answer.
pub async fn sees_device(connection: &mut PgConnection, scope: &Scope, id: DeviceId) -> Result<bool> {
    match &scope.devices {
        None => Ok(true),
        Some(selector) => Ok(db::device::labels(connection, id).await?.is_some_and(|labels| selector.matches(&labels))),
    }
}
