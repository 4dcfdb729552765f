//! The client's side of a connection: whom to believe, what to show, and how to say what went wrong.
//!
//! `trust` decides about the server's certificate, `identity` holds the client's own, `connector` makes connections for
//! gRPC, `error` has words for people. Time is an argument everywhere: a device whose clock starts in 1970 passes a
//! better one. Never picks a cryptography provider by looking at the process: it is always aws-lc-rs.

mod connector;
mod error;
mod identity;
mod pem;
mod plain;
mod trust;

use std::sync::Arc;

use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;

pub use connector::Connector;
pub use error::{ConnectError, Error};
pub use identity::{Identity, IdentitySlot};
pub use pem::{certificates, parse_certificates, write_certificate};
pub use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, UnixTime};
pub use rustls::time_provider::{DefaultTimeProvider, TimeProvider};
pub use trust::{SeenCertificates, ServerTrust};

/// The protocol that is asked for: gRPC needs HTTP/2.
const H2: &[u8] = b"h2";

/// Makes the settings of a TLS client that speaks HTTP/2.
///
/// Sessions are never resumed: a resumed one would go on with the identity and the verdict of its first connection, and
/// both change.
///
/// # Errors
/// When the trust names no usable certificate.
pub fn client_config(
    trust: ServerTrust,
    identity: IdentitySlot,
    clock: Arc<dyn TimeProvider>,
) -> Result<ClientConfig, Error> {
    let provider = provider();
    let verifier = trust.verifier(&provider)?;
    let mut config = ClientConfig::builder_with_details(provider, clock)
        .with_safe_default_protocol_versions()
        .map_err(|source| Error::Setup { source })?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_cert_resolver(Arc::new(identity));
    config.alpn_protocols = vec![H2.to_vec()];
    config.resumption = Resumption::disabled();
    Ok(config)
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}
