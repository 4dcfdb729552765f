//! One module for each noun, or verb that stands alone.
//!
//! Each holds the arguments, what `--help` says about them, the calls to the server and how the noun is shown.

pub mod assign;
pub mod completion;
pub mod context;
pub mod deployment;
pub mod device;
pub mod enroll_token;
pub mod event;
pub mod export;
pub mod health;
pub mod keys;
pub mod login;
pub mod man;
pub mod package;
pub mod release;
pub mod rollout;
pub mod status;
pub mod token;
pub mod upload;
