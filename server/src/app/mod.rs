//! The use cases. They own the transactions, decide with `ota_domain` and know nothing of any wire protocol.

use std::{sync::Arc, time::Duration};

use sqlx::PgPool;

use crate::{
    auth::{TrustedProxies, forwarded::Forwarding, limits::Limits, oidc},
    blobs::Blobs,
    fleet::Fleet,
    keys::Keyring,
    metrics::Metrics,
};

pub mod access;
pub mod check_in;
pub mod deployments;
pub mod devices;
pub mod download;
pub mod enroll_tokens;
pub mod enrollment;
mod error;
pub mod event_seals;
pub mod events;
pub mod identity;
pub mod inventory;
pub mod packages;
pub mod payloads;
pub mod progress;
pub mod releases;
pub mod rollouts;
pub mod scope;
pub mod status;
pub mod trust;
pub mod uploads;

pub use error::{Class, Dependency, Error, Reason, Result, is_outage};

/// What every use case works with. Cheap to clone.
#[derive(Debug, Clone)]
pub struct App {
    /// Postgres.
    pub pool: PgPool,
    /// Where payloads are kept.
    pub blobs: Arc<Blobs>,
    /// The server's own keys.
    pub keys: Arc<Keyring>,
    /// The signed metadata as this replica last read it.
    pub published: Arc<trust::Published>,
    /// What the server keeps in memory of the devices.
    pub fleet: Arc<Fleet>,
    /// What the operator set.
    pub settings: Settings,
    /// How often callers may call.
    pub limits: Arc<Limits>,
    /// Proxies that are believed when they say for whom they call.
    pub trusted_proxies: Arc<TrustedProxies>,
    /// What is done with certificates that trusted proxies pass on, when any are trusted.
    pub forwarding: Option<Arc<Forwarding>>,
    /// Who vouches for people, when anybody does.
    pub oidc: Option<Arc<oidc::Provider>>,
    /// What this replica counts.
    pub metrics: Arc<Metrics>,
}

/// What the operator set.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Largest payload taken, in bytes.
    pub max_payload_bytes: u64,
    /// How often devices check in when nothing wakes them.
    pub check_in_interval: Duration,
    /// How long a device's certificate is good.
    pub device_certificate_lifetime: Duration,
    /// Whether connections are encrypted.
    pub tls: bool,
    /// Whether the server runs its own Postgres.
    pub embedded_database: bool,
}
