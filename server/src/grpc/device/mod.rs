//! `ota.device.v1`, one module for each service.

use std::sync::Arc;

use http::Extensions;

use crate::fleet::Record;

pub mod download;
pub mod enrollment;
pub mod update;

/// The calling device, as the gate found it.
fn record(extensions: &Extensions) -> Arc<Record> {
    extensions.get::<Arc<Record>>().cloned().expect("the gate puts the device into every request it lets through")
}
