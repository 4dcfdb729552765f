//! The device API.

pub mod check_in;
pub mod enrollment;
pub mod inventory;
pub mod progress;
pub mod trust_fault;
