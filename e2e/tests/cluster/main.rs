//! Several servers as one: real processes on one Postgres and one S3-compatible store, which share nothing else.

#![expect(clippy::unwrap_used, reason = "a test ends at what it did not expect")]

mod fleet;
mod replicas;

mod first_start;
mod migrate;
mod object_store;
mod rolling_restart;
