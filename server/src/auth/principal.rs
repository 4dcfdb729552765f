//! Who is calling.

use std::{fmt, net::IpAddr, sync::Arc};

use chrono::{DateTime, Utc};
use ota_domain::{ApiTokenId, DeviceId, Scope, role::Role};

/// Who is calling, once their credential has been checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Principal {
    /// Nobody known: no credential was sent to an RPC that needs none.
    Anonymous,
    /// An accepted device.
    Device(DeviceId),
    /// A person or a program that may run the fleet.
    Operator {
        /// By what they are known.
        identity: Identity,
        /// Their name.
        display_name: String,
        /// What they may do.
        role: Role,
        /// What their role is limited to.
        scope: Scope,
    },
    /// The server itself.
    Server,
}

/// By what an operator is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Identity {
    /// Their API token.
    ApiToken(ApiTokenId),
    /// What the identity provider calls them.
    User {
        /// The subject of their token.
        subject: String,
        /// When that token ends.
        expires_at: DateTime<Utc>,
    },
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ApiToken(token) => write!(f, "apiTokens/{token}"),
            Self::User { subject, .. } => write!(f, "users/{subject}"),
        }
    }
}

impl Principal {
    /// The name that goes into the event log beside the resource name.
    #[must_use]
    pub fn display_name(&self) -> &str {
        match self {
            Self::Operator { display_name, .. } => display_name,
            Self::Anonymous | Self::Device(_) | Self::Server => "",
        }
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anonymous => f.write_str("anonymous"),
            Self::Device(device) => write!(f, "devices/{device}"),
            Self::Operator { identity, .. } => identity.fmt(f),
            Self::Server => f.write_str("server"),
        }
    }
}

/// A principal and the request it came with: what the event log needs to know.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Who.
    pub principal: Principal,
    /// The request's id, as in the log. Empty when no request caused the work.
    pub request_id: Arc<str>,
    /// The address the request came from. `None` when no request caused the work.
    pub source: Option<IpAddr>,
}

impl Caller {
    /// The server, acting by itself.
    #[must_use]
    pub fn server() -> Self {
        Self { principal: Principal::Server, request_id: Arc::default(), source: None }
    }

    /// What the caller's role is limited to: nothing, for callers whose rights are no matter of roles.
    #[must_use]
    pub fn scope(&self) -> &Scope {
        const EVERYTHING: &Scope = &Scope { devices: None, packages: None };
        match &self.principal {
            Principal::Operator { scope, .. } => scope,
            Principal::Anonymous | Principal::Device(_) | Principal::Server => EVERYTHING,
        }
    }

    /// The address the request came from, as text; empty when no request caused the work.
    #[must_use]
    pub fn source_address(&self) -> String {
        self.source.map(|address| address.to_string()).unwrap_or_default()
    }
}
