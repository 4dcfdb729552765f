//! Who is calling.

use std::{fmt, net::IpAddr};

use ota_domain::{ApiTokenId, DeviceId, role::Role};

/// Who is calling, once their credential has been checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Principal {
    /// Nobody known: no credential was sent to an RPC that needs none.
    Anonymous,
    /// An accepted device.
    Device(DeviceId),
    /// A person or a program with an API token.
    Operator {
        /// Their token.
        token: ApiTokenId,
        /// Their name.
        display_name: String,
        /// What they may do.
        role: Role,
    },
    /// The server itself.
    Server,
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
            Self::Operator { token, .. } => write!(f, "apiTokens/{token}"),
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
    pub request_id: String,
    /// The address the request came from. `None` when no request caused the work.
    pub source: Option<IpAddr>,
}

impl Caller {
    /// The server, acting by itself.
    #[must_use]
    pub fn server() -> Self {
        Self { principal: Principal::Server, request_id: String::new(), source: None }
    }

    /// The address the request came from, as text; empty when no request caused the work.
    #[must_use]
    pub fn source_address(&self) -> String {
        self.source.map(|address| address.to_string()).unwrap_or_default()
    }
}
