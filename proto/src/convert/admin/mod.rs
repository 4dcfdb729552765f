//! The admin API.

pub mod access;
pub mod device;
pub mod enroll_token;
pub mod event;
pub mod name;
pub mod package;
pub mod rollout;
