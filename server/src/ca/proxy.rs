//! Which proxies are trusted to say what certificate they were shown.

use std::{net::IpAddr, str::FromStr, sync::Arc};

use chrono::{DateTime, Utc};
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, DnsName, UnixTime},
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};
use url::Url;
use x509_parser::{certificate::X509Certificate, extensions::GeneralName};

/// A name in a proxy's certificate: a host name, an address, or a URI such as `spiffe://cluster/ns/edge/sa/envoy`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProxyName {
    /// A host name, in lower case.
    Host(String),
    /// An address.
    Address(IpAddr),
    /// A URI, compared letter by letter.
    Uri(String),
}

/// The text is no name that a certificate has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be a host name without wildcards, an address or a URI, as it stands in the proxy's certificate")]
pub struct ParseProxyNameError;

impl FromStr for ProxyName {
    type Err = ParseProxyNameError;

    fn from_str(text: &str) -> Result<Self, ParseProxyNameError> {
        if let Ok(address) = text.parse() {
            return Ok(Self::Address(address));
        }
        if text.contains(':') {
            return Url::parse(text).map(|_| Self::Uri(text.to_owned())).map_err(|_| ParseProxyNameError);
        }
        let host = text.to_ascii_lowercase();
        DnsName::try_from(host.as_str()).map_err(|_| ParseProxyNameError)?;
        Ok(Self::Host(host))
    }
}

impl ProxyName {
    fn is(&self, name: &GeneralName<'_>) -> bool {
        match self {
            Self::Host(host) => matches!(name, GeneralName::DNSName(name) if name.eq_ignore_ascii_case(host)),
            Self::Uri(uri) => matches!(name, GeneralName::URI(name) if *name == uri.as_str()),
            Self::Address(IpAddr::V4(address)) => {
                matches!(name, GeneralName::IPAddress(name) if *name == address.octets())
            }
            Self::Address(IpAddr::V6(address)) => {
                matches!(name, GeneralName::IPAddress(name) if *name == address.octets())
            }
        }
    }
}

/// No proxy can be trusted as configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProxyJudgeError {
    /// No authority that certificates can be checked with.
    #[error("a certificate is no authority's")]
    NotAuthority,
    /// The proxies' authority would be the devices' own.
    #[error("this is the server's own authority, whose certificates every device has")]
    OwnAuthority,
}

/// Tells trusted proxies from others.
#[derive(Debug)]
pub struct ProxyJudge {
    verifier: Arc<dyn ClientCertVerifier>,
    names: Vec<ProxyName>,
}

impl ProxyJudge {
    /// Trusts who has one of these names in a certificate that one of these authorities signed. None of them may be
    /// `own_key`, the SubjectPublicKeyInfo of the authority that signs devices.
    ///
    /// # Errors
    /// When an authority is none, or is the one that signs devices.
    pub fn new(
        authorities: &[CertificateDer<'static>],
        names: Vec<ProxyName>,
        own_key: &[u8],
    ) -> Result<Self, ProxyJudgeError> {
        let mut roots = RootCertStore::empty();
        for authority in authorities {
            let (_, parsed) =
                x509_parser::parse_x509_certificate(authority).map_err(|_| ProxyJudgeError::NotAuthority)?;
            if parsed.public_key().raw == own_key {
                return Err(ProxyJudgeError::OwnAuthority);
            }
            roots.add(authority.clone()).map_err(|_| ProxyJudgeError::NotAuthority)?;
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .map_err(|_| ProxyJudgeError::NotAuthority)?;
        Ok(Self { verifier, names })
    }

    /// Whether these certificates, leaf first, are a trusted proxy's, good at `now`.
    ///
    /// # Errors
    /// Why not.
    pub fn judge(&self, chain: &[CertificateDer<'_>], now: DateTime<Utc>) -> Result<(), String> {
        let (leaf, intermediates) = chain.split_first().ok_or("nothing is shown")?;
        let now =
            UnixTime::since_unix_epoch(std::time::Duration::from_secs(now.timestamp().try_into().unwrap_or_default()));
        self.verifier.verify_client_cert(leaf, intermediates, now).map_err(|error| error.to_string())?;
        let (_, parsed) = x509_parser::parse_x509_certificate(leaf).map_err(|error| error.to_string())?;
        if self.is_named(&parsed) { Ok(()) } else { Err("it has none of the trusted proxies' names".to_owned()) }
    }

    fn is_named(&self, certificate: &X509Certificate<'_>) -> bool {
        let Ok(Some(names)) = certificate.subject_alternative_name() else { return false };
        names.value.general_names.iter().any(|name| self.names.iter().any(|trusted| trusted.is(name)))
    }
}

#[cfg(test)]
mod tests;
