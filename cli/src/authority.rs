//! Whom to believe that a server is the one: the authority that signed its certificate.
//!
//! A server makes an authority of its own when it first starts, and signs its replicas with it. A client that knows that
//! authority needs no host names. Any other authority signs for others too, so that names are checked as usual.

use std::{fmt, path::Path, str::FromStr};

use ota_domain::Sha256Digest;
use ota_tls::{CertificateDer, ServerTrust};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::error::Failure;

/// The name that a server gives to the authority it makes.
const BUILT_IN_NAME: &str = "ota certificate authority";

/// How a pin is written.
const PIN_PREFIX: &str = "sha256:";

/// Names an authority by its public key: the SHA-256 of its SubjectPublicKeyInfo.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pin(Sha256Digest);

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PIN_PREFIX}{}", self.0)
    }
}

/// The text is no pin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be the SHA-256 of the authority's public key: 64 hexadecimal digits")]
pub struct ParsePinError;

impl FromStr for Pin {
    type Err = ParsePinError;

    fn from_str(text: &str) -> Result<Self, ParsePinError> {
        let digits = text.trim().strip_prefix(PIN_PREFIX).unwrap_or(text.trim());
        digits.parse().map(Self).map_err(|_| ParsePinError)
    }
}

/// The authorities that may have signed a server's certificate: at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authority {
    certificates: Vec<CertificateDer<'static>>,
}

impl Authority {
    /// Reads a PEM file of certificates.
    pub fn read(path: &Path) -> Result<Self, Failure> {
        let certificates = ota_tls::certificates(path).map_err(|error| match error {
            ota_tls::Error::Read { path, source } => {
                Failure::because(format!("cannot read {}", path.display()), &source)
            }
            other @ (ota_tls::Error::Address { .. }
            | ota_tls::Error::NotAuthority
            | ota_tls::Error::EmptyChain
            | ota_tls::Error::Key { .. }
            | ota_tls::Error::Setup { .. }
            | ota_tls::Error::NotCertificates { .. }
            | ota_tls::Error::NotPem) => Failure::usage(other.to_string())
                .hint("the server writes its authority's certificate to ca.pem in its data directory"),
        })?;
        Ok(Self { certificates })
    }

    /// Finds the authority that a server made itself in the chain that it shows. `None` when another one signed.
    pub fn of_chain(chain: Vec<CertificateDer<'static>>) -> Option<Self> {
        let certificate = chain.into_iter().skip(1).find(|certificate| is_built_in(certificate))?;
        Some(Self { certificates: vec![certificate] })
    }

    /// Tells whether it is one that a server made itself, and host names do not matter.
    pub fn is_built_in(&self) -> bool {
        matches!(self.certificates.as_slice(), [one] if is_built_in(one))
    }

    /// Returns the pin of the one certificate there is. `None` when there are several: no pin stands for them all.
    pub fn pin(&self) -> Option<Pin> {
        let [certificate] = self.certificates.as_slice() else { return None };
        let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
        Some(Pin(Sha256Digest(Sha256::digest(certificate.public_key().raw).into())))
    }

    /// Returns the rule to verify a server's certificate by.
    pub fn server_trust(&self) -> ServerTrust {
        match self.certificates.as_slice() {
            [one] if is_built_in(one) => ServerTrust::Authority(one.clone()),
            several => ServerTrust::Roots(several.to_vec()),
        }
    }

    /// Says in a line whom it believes.
    pub fn describe(&self) -> String {
        match (self.is_built_in(), self.pin()) {
            (true, Some(pin)) => format!("the server's own authority {pin}"),
            (false, Some(pin)) => format!("authority {pin}, host name checked"),
            (_, None) => format!("one of {} authorities, host name checked", self.certificates.len()),
        }
    }
}

fn is_built_in(certificate: &CertificateDer<'_>) -> bool {
    let Ok((_, certificate)) = X509Certificate::from_der(certificate) else { return false };
    let mut names = certificate.subject().iter_common_name().map(|name| name.as_str());
    let named = matches!((names.next(), names.next()), (Some(Ok(BUILT_IN_NAME)), None));
    named && certificate.is_ca() && certificate.subject() == certificate.issuer()
}

impl Serialize for Authority {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text: String = self.certificates.iter().map(ota_tls::write_certificate).collect();
        serializer.serialize_str(&text)
    }
}

impl<'de> Deserialize<'de> for Authority {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let certificates = ota_tls::parse_certificates(text.as_bytes()).map_err(de::Error::custom)?;
        Ok(Self { certificates })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair};

    use super::*;

    /// Makes a self-signed certificate, and the pin that another program computes from its key.
    fn certificate(name: &str, ca: bool) -> (CertificateDer<'static>, Sha256Digest) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        if ca {
            params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        }
        let spki = rcgen::PublicKeyData::subject_public_key_info(&key);
        (params.self_signed(&key).unwrap().der().clone(), Sha256Digest(Sha256::digest(spki).into()))
    }

    /// Makes an authority as a server does.
    pub(crate) fn built_in() -> Authority {
        Authority { certificates: vec![certificate(BUILT_IN_NAME, true).0] }
    }

    #[test]
    fn only_the_servers_own_authority_goes_without_host_names() {
        assert!(matches!(built_in().server_trust(), ServerTrust::Authority(_)));
        let others = [
            vec![certificate("Example Root CA", true).0],
            vec![certificate(BUILT_IN_NAME, false).0],
            vec![certificate(BUILT_IN_NAME, true).0, certificate("Example Root CA", true).0],
            vec![CertificateDer::from(vec![1, 2, 3])],
        ];
        for certificates in others {
            assert!(matches!(Authority { certificates }.server_trust(), ServerTrust::Roots(_)));
        }
    }

    #[test]
    fn a_pin_is_over_the_public_key_and_read_as_written() {
        let (certificate, expected) = certificate(BUILT_IN_NAME, true);
        let pin = Authority { certificates: vec![certificate] }.pin().unwrap();
        assert_eq!(pin, Pin(expected));
        assert_eq!(pin.to_string().parse(), Ok(pin));
        assert_eq!(expected.to_string().to_uppercase().parse(), Ok(pin));
        assert_eq!("abc".parse::<Pin>(), Err(ParsePinError));
    }

    #[test]
    fn an_authority_is_found_behind_the_servers_certificate_and_never_in_its_place() {
        let (ca, leaf) = (certificate(BUILT_IN_NAME, true).0, certificate("ota server", false).0);
        let found = Authority::of_chain(vec![leaf.clone(), ca.clone()]);
        assert_eq!(found, Some(Authority { certificates: vec![ca.clone()] }));
        assert_eq!(Authority::of_chain(vec![ca]), None);
        assert_eq!(Authority::of_chain(vec![leaf.clone(), certificate("Example Root CA", true).0]), None);
        assert_eq!(Authority::of_chain(vec![leaf]), None);
    }
}
