//! The certificate authority that signs this server's and its devices' certificates.

use std::fmt;

use chrono::{DateTime, Datelike as _, Days, Utc};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, SerialNumber,
};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};

/// How long the authority's own certificate is good for. Devices pin its key, and a new one has to reach each of them, so
/// it outlives most of them.
const LIFETIME_YEARS: i32 = 10;

/// The authority: an ECDSA P-256 key and its self-signed certificate.
pub struct CertificateAuthority {
    certificate: CertificateDer<'static>,
    public_key: Vec<u8>,
    issuer: Issuer<'static, KeyPair>,
}

impl fmt::Debug for CertificateAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CertificateAuthority").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

/// An authority just made, in the forms in which it is kept.
pub(super) struct NewAuthority {
    /// PKCS#8.
    pub(super) private_key: Vec<u8>,
    /// SubjectPublicKeyInfo, DER.
    pub(super) public_key: Vec<u8>,
    /// DER.
    pub(super) certificate: Vec<u8>,
}

impl CertificateAuthority {
    pub(super) fn generate(now: DateTime<Utc>) -> Result<NewAuthority, rcgen::Error> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut name = DistinguishedName::new();
        name.push(DnType::CommonName, "OTA certificate authority");
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name = name;
        // One level: it signs servers and devices, which sign nothing.
        parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        parameters.serial_number = Some(serial_number());
        // From the day before, for clocks that are behind.
        let first = now.checked_sub_days(Days::new(1)).unwrap_or(now);
        let day = |years: i32| {
            // Every month has the 28th, in every year.
            let day = u8::try_from(first.day().min(28)).unwrap_or(28);
            rcgen::date_time_ymd(first.year() + years, u8::try_from(first.month()).unwrap_or(1), day)
        };
        (parameters.not_before, parameters.not_after) = (day(0), day(LIFETIME_YEARS));
        let certificate = parameters.self_signed(&key)?;
        Ok(NewAuthority {
            private_key: key.serialize_der(),
            public_key: public_key(&key),
            certificate: certificate.der().to_vec(),
        })
    }

    pub(super) fn open(private_key: &[u8], certificate: &[u8]) -> Result<Self, rcgen::Error> {
        let key = KeyPair::from_pkcs8_der_and_sign_algo(
            &PrivatePkcs8KeyDer::from(private_key.to_vec()),
            &PKCS_ECDSA_P256_SHA256,
        )?;
        let certificate = CertificateDer::from(certificate.to_vec());
        let public_key = public_key(&key);
        let issuer = Issuer::from_ca_cert_der(&certificate, key)?;
        Ok(Self { certificate, public_key, issuer })
    }

    /// The self-signed certificate.
    #[must_use]
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// The public key: SubjectPublicKeyInfo, DER.
    #[must_use]
    pub fn public_key(&self) -> &[u8] {
        &self.public_key
    }

    /// Signs certificates.
    #[must_use]
    pub fn issuer(&self) -> &Issuer<'static, KeyPair> {
        &self.issuer
    }
}

fn public_key(key: &KeyPair) -> Vec<u8> {
    use rcgen::PublicKeyData as _;
    key.subject_public_key_info()
}

/// A random serial number of 127 bits: positive, and told by nobody before. What rcgen takes without one is a hash of the
/// public key, which is the same for every certificate of a key.
#[must_use]
pub fn serial_number() -> SerialNumber {
    let mut bytes: [u8; 16] = rand::random();
    bytes[0] &= 0x7f;
    // Neither zero nor in need of a shorter form.
    bytes[0] |= 0x40;
    SerialNumber::from_slice(&bytes)
}

#[cfg(test)]
mod tests {
    use chrono::TimeZone as _;

    use super::*;

    #[test]
    fn an_authority_opens_as_it_was_made() {
        let leap_day = Utc.with_ymd_and_hms(2028, 3, 1, 0, 0, 0).unwrap();
        let made = CertificateAuthority::generate(leap_day).unwrap();
        let authority = CertificateAuthority::open(&made.private_key, &made.certificate).unwrap();
        assert_eq!(authority.public_key(), made.public_key);
        assert_eq!(authority.certificate().as_ref(), made.certificate);
        assert_eq!(authority.issuer().key_usages(), [KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign]);
        let other = CertificateAuthority::generate(leap_day).unwrap();
        assert_ne!(other.public_key, made.public_key);
    }
}
