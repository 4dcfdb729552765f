//! The authority that signs devices and servers. Pure: keys, `now` and random numbers come from outside.
//!
//! A device is its key. Its certificate names the device and lives a few days; the server's own names nothing that a
//! client has to check, because every certificate of this authority for servers is one of this server's replicas.

use std::{net::IpAddr, time::Duration};

use chrono::{DateTime, Utc};
use ota_domain::DeviceId;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType, SerialNumber, SubjectPublicKeyInfo, date_time_ymd,
};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};

mod key;
mod peer;
mod proxy;
mod request;

pub use key::{DeviceKey, KeyError};
pub use peer::{DeviceCertificate, PeerIdentity, PeerJudge};
pub use proxy::{ParseProxyNameError, ProxyJudge, ProxyJudgeError, ProxyName};
pub use request::{MAX_REQUEST_BYTES, RequestError, parse as parse_request};

/// How long an authority lives: longer than any device is expected to.
pub const AUTHORITY_LIFETIME: Duration = Duration::from_secs(3_650 * 24 * 3600);
/// Certificates count from this long ago, because clocks differ.
pub const BACKDATED: Duration = Duration::from_secs(3600);

/// What a device's certificate says of the device, before its id.
const DEVICE_URN: &str = "urn:ota:device:";

/// A certificate cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// The authority's key or certificate cannot be read, or signing fails.
    #[error("the authority cannot sign")]
    Sign(#[from] rcgen::Error),
    /// The authority's certificate cannot be read.
    #[error("the authority's certificate cannot be read")]
    Certificate,
    /// A name that no certificate can carry.
    #[error("{0:?} is no name that a certificate can carry")]
    Name(String),
}

/// A certificate that was just signed.
#[derive(Debug, Clone)]
pub struct Issued {
    /// The certificate.
    pub certificate: CertificateDer<'static>,
    /// Its last second.
    pub not_after: DateTime<Utc>,
}

/// A key and a self-signed certificate with which others are signed.
pub struct Authority {
    certificate: CertificateDer<'static>,
    public_key: Vec<u8>,
    issuer: Issuer<'static, KeyPair>,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}

impl Authority {
    /// Opens an authority that was made before.
    ///
    /// # Errors
    /// When the key or the certificate cannot be read.
    pub fn open(certificate: CertificateDer<'static>, key: &PrivatePkcs8KeyDer<'_>) -> Result<Self, CaError> {
        let key = KeyPair::from_pkcs8_der_and_sign_algo(key, &PKCS_ECDSA_P256_SHA256)?;
        let public_key = key.subject_public_key_info();
        let (_, parsed) = x509_parser::parse_x509_certificate(&certificate).map_err(|_| CaError::Certificate)?;
        if parsed.public_key().raw != public_key {
            return Err(CaError::Certificate);
        }
        let issuer = Issuer::from_ca_cert_der(&certificate, key)?;
        Ok(Self { certificate, public_key, issuer })
    }

    /// Returns its certificate.
    #[must_use]
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// Returns its public key: a SubjectPublicKeyInfo in DER.
    #[must_use]
    pub fn public_key(&self) -> &[u8] {
        &self.public_key
    }

    /// Returns its certificate in PEM.
    #[must_use]
    pub fn to_pem(&self) -> String {
        pem(&self.certificate)
    }

    /// Signs a certificate for a device. `serial` is random.
    ///
    /// # Errors
    /// When signing fails.
    pub fn device_certificate(
        &self,
        device: DeviceId,
        key: &DeviceKey,
        serial: [u8; 16],
        now: DateTime<Utc>,
        lifetime: Duration,
    ) -> Result<Issued, CaError> {
        let mut params = leaf(&format!("device {device}"), serial, now, lifetime);
        params.subject_alt_names = vec![SanType::URI(name(&format!("{DEVICE_URN}{device}"))?)];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(&params, &SubjectPublicKeyInfo::from_der(key.as_spki())?, now, lifetime)
    }

    /// Signs a certificate for a server that goes by these names. `serial` is random.
    ///
    /// # Errors
    /// When a name is none, or signing fails.
    pub fn server_certificate(
        &self,
        names: &[String],
        key: &KeyPair,
        serial: [u8; 16],
        now: DateTime<Utc>,
        lifetime: Duration,
    ) -> Result<Issued, CaError> {
        let mut params = leaf("ota server", serial, now, lifetime);
        for text in names {
            params.subject_alt_names.push(match text.parse::<IpAddr>() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => SanType::DnsName(name(text)?),
            });
        }
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.sign(&params, key, now, lifetime)
    }

    fn sign(
        &self,
        params: &CertificateParams,
        key: &impl PublicKeyData,
        now: DateTime<Utc>,
        lifetime: Duration,
    ) -> Result<Issued, CaError> {
        let certificate = params.signed_by(key, &self.issuer)?.der().clone();
        // Certificates count in whole seconds.
        let not_after = DateTime::from_timestamp(seconds(now + lifetime), 0).ok_or(CaError::Certificate)?;
        Ok(Issued { certificate, not_after })
    }
}

/// Makes an authority's self-signed certificate for its key. `serial` is random.
///
/// # Errors
/// When signing fails.
pub fn authority_certificate(
    key: &KeyPair,
    serial: [u8; 16],
    now: DateTime<Utc>,
) -> Result<CertificateDer<'static>, CaError> {
    let mut params = leaf("ota certificate authority", serial, now, AUTHORITY_LIFETIME);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params.self_signed(key)?.der().clone())
}

/// Writes a certificate in PEM.
#[must_use]
pub fn pem(certificate: &[u8]) -> String {
    let text = data_encoding::BASE64.encode(certificate);
    let lines: String = text.as_bytes().chunks(64).map(|line| format!("{}\n", line.escape_ascii())).collect();
    format!("-----BEGIN CERTIFICATE-----\n{lines}-----END CERTIFICATE-----\n")
}

fn leaf(common_name: &str, serial: [u8; 16], now: DateTime<Utc>, lifetime: Duration) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.not_before = date_time_ymd(1970, 1, 1) + since_1970(now - BACKDATED);
    params.not_after = date_time_ymd(1970, 1, 1) + since_1970(now + lifetime);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    // Without it the serial would come from the key, and every certificate of one device would have the same.
    params.serial_number = Some(SerialNumber::from(serial.to_vec()));
    params
}

fn seconds(time: DateTime<Utc>) -> i64 {
    time.timestamp().max(0)
}

fn since_1970(time: DateTime<Utc>) -> Duration {
    Duration::from_secs(seconds(time).unsigned_abs())
}

fn name(text: &str) -> Result<rcgen::string::Ia5String, CaError> {
    text.try_into().map_err(|_| CaError::Name(text.to_owned()))
}

#[cfg(test)]
mod tests;
