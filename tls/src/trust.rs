//! Whether to believe a server's certificate.

use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, TrustAnchor, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, OtherError, RootCertStore, SignatureScheme};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};

use crate::error::Error;

/// Id of the extended key usage `serverAuth`, 1.3.6.1.5.5.7.3.1, without tag and length.
const SERVER_AUTH: &[u8] = &[43, 6, 1, 5, 5, 7, 3, 1];

/// Whom to believe.
#[derive(Debug, Clone)]
pub enum ServerTrust {
    /// Any certificate for servers that this authority signed and that has not expired. The host name does not matter,
    /// because the authority signs for the replicas of one server alone, and devices know those under many names. A
    /// certificate that is not valid yet is taken: clocks that lag are common on devices, and must not lock them out;
    /// nobody gains from showing tomorrow's certificate.
    Authority(CertificateDer<'static>),
    /// Certificates that one of these authorities signed, valid, and for the name in the address.
    Roots(Vec<CertificateDer<'static>>),
    /// Any certificate. For the one call whose answer is checked against a pin: nothing secret may be sent.
    Pinning(SeenCertificates),
}

/// What a server showed that was not checked: the chain of its last handshake.
#[derive(Debug, Clone, Default)]
pub struct SeenCertificates(Arc<Mutex<Vec<CertificateDer<'static>>>>);

impl SeenCertificates {
    /// Returns the chain, leaf first; empty before the first handshake.
    #[must_use]
    pub fn chain(&self) -> Vec<CertificateDer<'static>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ServerTrust {
    pub(crate) fn verifier(self, provider: &Arc<CryptoProvider>) -> Result<Arc<dyn ServerCertVerifier>, Error> {
        let judge = match self {
            Self::Authority(certificate) => {
                Judge::Authority(anchor_from_trusted_cert(&certificate).map_err(|_| Error::NotAuthority)?.to_owned())
            }
            Self::Roots(certificates) => {
                let mut roots = RootCertStore::empty();
                for certificate in certificates {
                    roots.add(certificate).map_err(|_| Error::NotAuthority)?;
                }
                let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
                return Ok(verifier.build().map_err(|_| Error::NotAuthority)?);
            }
            Self::Pinning(seen) => Judge::Pinning(seen),
        };
        Ok(Arc::new(Verifier { judge, algorithms: provider.signature_verification_algorithms }))
    }
}

/// Which certificates are believed, apart from names. That the server holds the certificate's key is proven in any case.
#[derive(Debug)]
enum Judge {
    /// What this authority signed for servers.
    Authority(TrustAnchor<'static>),
    /// Everything, and what was shown is kept.
    Pinning(SeenCertificates),
}

#[derive(Debug)]
struct Verifier {
    judge: Judge,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Verifier {
    fn signed_for_servers(
        &self,
        anchor: &TrustAnchor<'static>,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), rustls::Error> {
        let certificate = EndEntityCert::try_from(leaf).map_err(described)?;
        let verify = |now| {
            // Without the usage spelled out, a certificate for devices could be taken for a server's.
            let usage = KeyUsage::required(SERVER_AUTH);
            let anchors = std::slice::from_ref(anchor);
            certificate
                .verify_for_usage(self.algorithms.all, anchors, intermediates, now, usage, None, None)
                .map(|_| ())
        };
        let mut verdict = verify(now);
        if let Err(webpki::Error::CertNotValidYet { not_before, .. }) = verdict {
            verdict = verify(not_before);
        }
        verdict.map_err(described)
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match &self.judge {
            Judge::Authority(anchor) => self.signed_for_servers(anchor, end_entity, intermediates, now)?,
            Judge::Pinning(SeenCertificates(seen)) => {
                let chain = std::iter::once(end_entity).chain(intermediates);
                let chain = chain.map(|certificate| certificate.clone().into_owned()).collect();
                *seen.lock().unwrap_or_else(PoisonError::into_inner) = chain;
            }
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Says what is wrong with a certificate in the words of rustls, so that the server gets the fitting alert and both
/// verifiers fail alike.
fn described(error: webpki::Error) -> rustls::Error {
    let certificate = if let webpki::Error::CertExpired { time, not_after } = error {
        CertificateError::ExpiredContext { time, not_after }
    } else if let webpki::Error::CertNotValidYet { time, not_before } = error {
        CertificateError::NotValidYetContext { time, not_before }
    } else if let webpki::Error::UnknownIssuer = error {
        CertificateError::UnknownIssuer
    } else if let webpki::Error::InvalidSignatureForPublicKey = error {
        CertificateError::BadSignature
    } else if let webpki::Error::RequiredEkuNotFoundContext(_) = error {
        CertificateError::InvalidPurpose
    } else {
        CertificateError::Other(OtherError(Arc::new(error)))
    };
    certificate.into()
}
