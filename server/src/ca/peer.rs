//! Who is at the other end of a connection, by the certificate shown in its handshake.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use ota_domain::{DeviceId, Sha256Digest};
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, UnixTime},
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};
use sha2::{Digest as _, Sha256};
use x509_parser::{certificate::X509Certificate, extensions::GeneralName, time::ASN1Time};

use super::{CaError, DEVICE_URN};

/// Who is at the other end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerIdentity {
    /// Nobody showed a certificate.
    None,
    /// A device, as its certificate says. Whether the certificate is still good, and the device still welcome, is decided
    /// call by call.
    Device(DeviceCertificate),
    /// A trusted proxy. It is nobody itself; for whom it calls, it says with each call.
    Proxy,
    /// Somebody with a certificate that is none of ours for devices; why.
    Foreign(String),
}

/// What the certificate of a device says. The handshake has proven that the other end holds its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceCertificate {
    /// Whose it is.
    pub device: DeviceId,
    /// SHA-256 of its key's SubjectPublicKeyInfo.
    pub key_sha256: Sha256Digest,
    /// From when on it is good.
    pub not_before: DateTime<Utc>,
    /// Until when it is good.
    pub not_after: DateTime<Utc>,
    /// Its serial number in hexadecimal digits.
    pub serial: String,
}

impl DeviceCertificate {
    /// Whether it is good at `now`.
    #[must_use]
    pub fn is_good_at(&self, now: DateTime<Utc>) -> bool {
        (self.not_before..=self.not_after).contains(&now)
    }
}

/// Tells devices from strangers.
#[derive(Debug)]
pub struct PeerJudge {
    verifier: Arc<dyn ClientCertVerifier>,
}

impl PeerJudge {
    /// Judges by what this authority signed.
    ///
    /// # Errors
    /// When the authority's certificate cannot be read.
    pub fn new(authority: &CertificateDer<'_>) -> Result<Self, CaError> {
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone().into_owned()).map_err(|_| CaError::Certificate)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .map_err(|_| CaError::Certificate)?;
        Ok(Self { verifier })
    }

    /// Says which device shows these certificates, leaf first, if any does. A certificate's time is left to whoever knows the time of the call:
    /// a connection lives longer than it takes a certificate to expire.
    #[must_use]
    pub fn judge(&self, chain: &[CertificateDer<'_>]) -> PeerIdentity {
        let Some((leaf, intermediates)) = chain.split_first() else { return PeerIdentity::None };
        match self.device(leaf, intermediates) {
            Ok(device) => PeerIdentity::Device(device),
            Err(reason) => PeerIdentity::Foreign(reason),
        }
    }

    fn device(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
    ) -> Result<DeviceCertificate, String> {
        let (_, parsed) = x509_parser::parse_x509_certificate(leaf)
            .map_err(|_| "the client certificate cannot be read".to_owned())?;
        let not_before = parsed.validity().not_before;
        let then = UnixTime::since_unix_epoch(std::time::Duration::from_secs(
            not_before.timestamp().try_into().unwrap_or_default(),
        ));
        self.verifier
            .verify_client_cert(leaf, intermediates, then)
            .map_err(|error| format!("the client certificate is none of this server's: {error}"))?;
        Ok(DeviceCertificate {
            device: device_id(&parsed).ok_or("the client certificate names no device")?,
            key_sha256: Sha256Digest(Sha256::digest(parsed.public_key().raw).into()),
            not_before: time(not_before)?,
            not_after: time(parsed.validity().not_after)?,
            serial: hex::encode(parsed.raw_serial()),
        })
    }
}

/// The one name a device's certificate has.
fn device_id(certificate: &X509Certificate<'_>) -> Option<DeviceId> {
    let names = certificate.subject_alternative_name().ok()??;
    match names.value.general_names.as_slice() {
        [GeneralName::URI(uri)] => uri.strip_prefix(DEVICE_URN)?.parse().ok(),
        _ => None,
    }
}

fn time(time: ASN1Time) -> Result<DateTime<Utc>, String> {
    DateTime::from_timestamp(time.timestamp(), 0).ok_or_else(|| "the client certificate has no time".to_owned())
}
