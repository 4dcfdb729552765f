//! The embedded Postgres: a private cluster, run as a child process on a Unix socket inside one folder, so that a
//! newcomer starts one program. It ends when its [`Cluster`] is stopped or dropped, and also when this process dies,
//! however it dies. It must never touch a Postgres that it did not start: with a database URL none of this runs.
//!
//! The folder belongs to the cluster alone:
//! ```text
//! lock           held while a server uses the folder; names its process
//! data/          the cluster (data.new.* while initdb works, so a killed first run leaves no half cluster)
//! run/           the socket, in a folder only its owner may enter (elsewhere when the path would be too long)
//! postgres.log   what Postgres itself has to say
//! ```
//! Under systemd use `KillMode=mixed`: the default sends SIGTERM to Postgres too, which then refuses the connections
//! that a draining server still needs.

mod account;
mod binaries;
mod cluster;
mod error;
mod lock;
mod log;
mod orphan;
mod pidfile;
mod socket;
mod supervisor;
#[cfg(test)]
mod tests;

pub use binaries::FindError;
pub use cluster::{Cluster, Durability};
pub use error::{StartError, StopError};
