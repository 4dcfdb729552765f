//! Certificates that a proxy passes on in a header, because it ended TLS itself.
//!
//! Whoever can write the header can be any device: certificates are no secret. So it is read only from a connection on which
//! a trusted proxy has proven its own key ([`PeerIdentity::Proxy`]), in the one form the operator said it writes, and what it
//! holds is judged as if it had been shown in a handshake. That the device held the key was proven to the proxy alone.

use http::{HeaderMap, HeaderName};
use rustls::pki_types::CertificateDer;

use crate::{
    app::{Error, Reason, Result},
    ca::{CaError, PeerIdentity, PeerJudge},
};

mod format;

pub use format::{Format, FormatError, ParseFormatError};

/// Reads and judges what trusted proxies pass on.
#[derive(Debug)]
pub struct Forwarding {
    header: HeaderName,
    format: Format,
    judge: PeerJudge,
}

impl Forwarding {
    /// Reads this header, and judges by what this authority signed.
    ///
    /// # Errors
    /// When the authority's certificate cannot be read.
    pub fn new(format: Format, authority: &CertificateDer<'_>) -> std::result::Result<Self, CaError> {
        let header = HeaderName::from_static(format.header());
        Ok(Self { header, format, judge: PeerJudge::new(authority)? })
    }

    /// Says who called a trusted proxy that sends these headers.
    ///
    /// # Errors
    /// When the header does not say clearly which certificate was shown.
    pub fn caller(&self, headers: &HeaderMap) -> Result<PeerIdentity> {
        let mut values = headers.get_all(&self.header).iter();
        let value = match (values.next(), values.next()) {
            (None, _) => return Ok(PeerIdentity::None),
            (Some(value), None) => value,
            (Some(_), Some(_)) => return Err(self.refused("comes more than once")),
        };
        let value = value.to_str().map_err(|_| self.refused("is no text"))?;
        let chain = self.format.read(value).map_err(|error| self.refused(error))?;
        let chain: Vec<CertificateDer<'_>> = chain.into_iter().map(CertificateDer::from).collect();
        Ok(self.judge.judge(&chain))
    }

    fn refused(&self, what: impl std::fmt::Display) -> Error {
        Error::refused(Reason::CredentialInvalid, format!("the proxy's header {} {what}", self.header))
    }
}

/// Takes out whatever claims to be a forwarded certificate: nothing behind the gate may come to believe it.
pub(super) fn strip(headers: &mut HeaderMap) {
    for format in Format::ALL {
        headers.remove(format.header());
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};

    use super::*;
    use crate::ca::{Authority, authority_certificate};

    fn forwarding() -> Forwarding {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let certificate = authority_certificate(&key, [1; 16], chrono::Utc::now()).unwrap();
        let authority = Authority::open(certificate, &key.serialize_der().into()).unwrap();
        Forwarding::new(Format::Envoy, authority.certificate()).unwrap()
    }

    fn headers(headers: &[(&'static str, &[u8])]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_bytes(value).unwrap());
        }
        map
    }

    #[test]
    fn only_the_header_that_was_named_counts() {
        let others = headers(&[("ssl-client-cert", b"AQID"), ("x-forwarded-tls-client-cert", b"AQID")]);
        assert_eq!(forwarding().caller(&others).unwrap(), PeerIdentity::None);
        assert_eq!(forwarding().caller(&headers(&[("x-forwarded-client-cert", b"")])).unwrap(), PeerIdentity::None);
    }

    #[test]
    fn a_header_that_is_not_clear_is_an_invalid_credential_and_says_so() {
        for (values, due) in [
            ([("x-forwarded-client-cert", b"Cert=AQID".as_slice()); 2].as_slice(), "more than once"),
            (&[("x-forwarded-client-cert", b"\xff")], "no text"),
            (&[("x-forwarded-client-cert", b"Hash=00")], "no certificate"),
        ] {
            match forwarding().caller(&headers(values)) {
                Err(Error::Refused { reason: Reason::CredentialInvalid, message }) if message.contains(due) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn nothing_of_it_is_left_for_those_behind_the_gate() {
        let mut sent = headers(&[
            ("x-forwarded-client-cert", b"a"),
            ("x-forwarded-client-cert", b"b"),
            ("ssl-client-cert", b"c"),
            ("x-forwarded-tls-client-cert", b"d"),
            ("te", b"trailers"),
        ]);
        strip(&mut sent);
        assert_eq!(sent.keys().collect::<Vec<_>>(), ["te"]);
    }
}
