//! Puts a credential into every call.

use std::sync::Arc;

use http::HeaderValue;
use ota_tls::{Connector, DefaultTimeProvider, Identity, IdentitySlot, SeenCertificates, ServerTrust};
use tonic::{
    Request, Status,
    metadata::MetadataValue,
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Channel, Uri},
};

/// A connection that says who is calling.
pub type Authorized = InterceptedService<Channel, Bearer>;

/// What goes behind `authorization: Bearer`, or nothing.
#[derive(Debug, Clone)]
pub struct Bearer(Option<String>);

impl Bearer {
    /// Calls with this token.
    #[must_use]
    pub fn new(token: &str) -> Self {
        Self(Some(token.to_owned()))
    }

    /// Calls without any.
    #[must_use]
    pub fn anonymous() -> Self {
        Self(None)
    }

    /// Returns the token, if there is one.
    #[must_use]
    pub fn token(&self) -> Option<&str> {
        self.0.as_deref()
    }
}

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            let value = HeaderValue::try_from(format!("Bearer {token}")).expect("a token has no control characters");
            let value = MetadataValue::try_from(value.as_bytes()).expect("the same");
            request.metadata_mut().insert("authorization", value);
        }
        Ok(request)
    }
}

/// Connects to a server when first used, and again whenever that is needed. Over TLS it believes any server: who checks
/// servers says whom to believe with [`connect_as`].
///
/// # Panics
/// When the URL is none.
#[must_use]
pub fn connect(url: &str) -> Channel {
    connect_as(url, ServerTrust::Pinning(SeenCertificates::default()), None)
}

/// The same, believing these servers and showing this certificate.
///
/// # Panics
/// When the URL is none.
#[must_use]
pub fn connect_as(url: &str, trust: ServerTrust, identity: Option<Identity>) -> Channel {
    let server: Uri = url.parse().expect("a URL");
    let slot = IdentitySlot::default();
    if let Some(identity) = identity {
        slot.set(identity);
    }
    let connector = if server.scheme_str() == Some("https") {
        Connector::tls(&server, trust, slot, Arc::new(DefaultTimeProvider))
    } else {
        Connector::plain(&server)
    };
    let connector = connector.expect("an address");
    connector.channel(&connector.endpoint())
}
