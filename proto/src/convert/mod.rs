//! Between wire types and domain types.
//!
//! A conversion towards the domain checks and names every fault; one towards the wire cannot fail.

pub mod admin;
pub mod device;
mod time;

pub use time::{duration, from_duration, from_timestamp, optional_time, timestamp};
