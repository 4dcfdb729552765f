//! The APIs, as their users see them: a real server on a real database, called over the wire. One module for each
//! service, and one for each promise that all of them share.

#![expect(clippy::unwrap_used, reason = "a test ends at what it did not expect")]

mod access;
mod audit;
mod check_in;
mod deployments;
mod devices;
mod doorbell;
mod download;
mod enrollment;
mod errors;
mod event_seals;
mod events;
mod forwarded;
mod health;
mod identity;
mod independent;
mod inventory;
mod isolation;
mod keys;
mod metrics;
mod oidc;
mod outage;
mod packages;
mod policy;
mod pool;
mod ports;
mod progress;
mod releases;
mod replicas;
mod rollouts;
mod scope;
mod shutdown;
mod streams;
mod tls;
mod trust;
mod uploads;
