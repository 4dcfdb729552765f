//! `ota.admin.v1`, one module for each service.

use std::{fmt::Display, str::FromStr};

use chrono::{DateTime, SubsecRound, Utc};
use ota_proto::convert::admin::name::parse;

use crate::app::{Error, Result};

pub mod access;
pub mod device;
pub mod enroll_token;
pub mod event;
pub mod group;
pub mod package;
pub mod rollout;
pub mod status;
pub mod trust;

/// The time, to the microsecond as Postgres keeps it, so that an answer tells the same as a later one.
fn now() -> DateTime<Utc> {
    Utc::now().trunc_subsecs(6)
}

/// The id in a request's `name`; `pattern` is as for [`parse`].
fn name<T: FromStr<Err: Display>>(text: &str, pattern: &'static str) -> Result<T> {
    named("name", text, pattern)
}

/// The id in the resource name that a request has in `field`.
fn named<T: FromStr<Err: Display>>(field: &str, text: &str, pattern: &'static str) -> Result<T> {
    parse(text, pattern).map_err(|error| Error::invalid(field, error))
}
