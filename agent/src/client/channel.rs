//! Connections to the server: their settings, and whom they believe.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use chrono::{DateTime, Utc};
use ota_tls::{Connector, IdentitySlot, ServerTrust, TimeProvider, UnixTime};
use tonic::transport::{Channel, Endpoint};

use super::Error;
use crate::clock::Clock;
use crate::server_url::ServerUrl;

/// How long to wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How often a silent connection is asked for a sign of life, and how long it may take to give one. Holds the doorbell's
/// connection open through address translation as well.
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(15));

/// Bytes that the server may send ahead in one stream: what an interruption costs at most, beside the block in hand.
const STREAM_WINDOW_BYTES: u32 = 512 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;

/// The time that certificates are judged by: the clock's, but not before what was learned from certificates since.
#[derive(Debug, Clone)]
pub(super) struct TlsClock {
    clock: Clock,
    floor: Arc<AtomicI64>,
}

impl TlsClock {
    pub(super) fn new(clock: Clock) -> Self {
        Self { clock, floor: Arc::default() }
    }

    /// Learns that it is no earlier than this.
    pub(super) fn raise(&self, time: DateTime<Utc>) {
        self.floor.fetch_max(time.timestamp(), Ordering::Relaxed);
    }

    pub(super) fn now(&self) -> DateTime<Utc> {
        let floor = DateTime::from_timestamp(self.floor.load(Ordering::Relaxed), 0).unwrap_or_default();
        self.clock.now().max(floor)
    }
}

impl TimeProvider for TlsClock {
    fn current_time(&self) -> Option<UnixTime> {
        let seconds = u64::try_from(self.now().timestamp()).ok()?;
        Some(UnixTime::since_unix_epoch(Duration::from_secs(seconds)))
    }
}

/// The way to a server, over which any number of channels can be opened.
#[derive(Debug, Clone)]
pub(super) struct Way {
    connector: Connector,
    endpoint: Endpoint,
}

impl Way {
    /// Plans the way. What is trusted and shown matters to `https://` alone.
    pub(super) fn new(
        server: &ServerUrl,
        trust: ServerTrust,
        identity: IdentitySlot,
        clock: TlsClock,
    ) -> Result<Self, ota_tls::Error> {
        let connector = if server.is_tls() {
            Connector::tls(server.uri(), trust, identity, Arc::new(clock))?
        } else {
            Connector::plain(server.uri())?
        };
        let endpoint = connector
            .endpoint()
            .connect_timeout(CONNECT_TIMEOUT)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .http2_keep_alive_interval(KEEP_ALIVE.0)
            .keep_alive_timeout(KEEP_ALIVE.1)
            .keep_alive_while_idle(true);
        let endpoint = endpoint
            .user_agent(concat!("ota-agent/", env!("CARGO_PKG_VERSION")))
            .expect("a name and a version are a header's value");
        Ok(Self { connector, endpoint })
    }

    /// Opens a channel; it connects with the first call and again whenever it has to.
    pub(super) fn channel(&self) -> Channel {
        self.connector.channel(&self.endpoint)
    }
}

impl From<ota_tls::Error> for Error {
    fn from(error: ota_tls::Error) -> Self {
        Self::Setup { reason: crate::failure::chain(&error) }
    }
}
