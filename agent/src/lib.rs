//! The agent: keeps one device's software up to date and survives anything on the way.
//!
//! `machine` decides, `driver` does. The machine is pure: a state and an event in, a state and effects out; `journal`
//! keeps the state before the effects run, so that a power cut at any moment ends in the old release or the new one.
//! `agent` checks in through `client` and hands offers to the driver, which fetches (`download`), unpacks (`install`,
//! `archive`), switches (`releases`), runs what the release brings (`hooks`) and reports. `commands` is the command line.
//! `tuf_client` is another program's.

pub mod agent;
pub mod archive;
pub mod backoff;
pub mod client;
pub mod clock;
pub mod commands;
pub mod config;
pub mod data_dir;
pub mod doorbell;
pub mod download;
pub mod driver;
pub mod durable;
pub mod enroll;
pub mod failure;
mod frame;
pub mod guard;
pub mod hooks;
pub mod identity;
pub mod install;
pub mod inventory;
pub mod journal;
pub mod machine;
pub mod progress;
pub mod release;
pub mod releases;
pub mod renewal;
pub mod server_url;
pub mod status;
pub mod tree;
pub mod trust_store;
pub mod tuf_client;
