//! The certificate that the server gave for the device's key.

use std::path::{Path, PathBuf};

use chrono::{DateTime, SubsecRound, Utc};
use ota_domain::DeviceId;
use ota_tls::CertificateDer;
use x509_parser::extensions::GeneralName;

use super::{DeviceKey, Error, folder, keep, read};

/// What stands before the time in the file, above the certificates.
const RECEIVED_LINE: &str = "Received: ";

/// What a certificate says of the device, before its id.
const DEVICE_URN: &str = "urn:ota:device:";

/// A certificate is not one for this device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// No certificate, or one that cannot be read.
    #[error("no certificate that can be read")]
    Unreadable,
    /// It is for another key.
    #[error("a certificate for another key")]
    OtherKey,
    /// It is for another device.
    #[error("a certificate for another device")]
    OtherDevice,
}

/// A certificate chain, and until when it is good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// The chain, leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    /// Since when it is good. Before the moment it was made, because clocks differ.
    pub not_before: DateTime<Utc>,
    /// Until when it is good.
    pub not_after: DateTime<Utc>,
    /// When it arrived, by the device's clock.
    pub received_at: DateTime<Utc>,
}

impl Certificate {
    /// Reads what the server sent.
    pub fn read(
        chain: Vec<CertificateDer<'static>>,
        key: &DeviceKey,
        device: DeviceId,
        now: DateTime<Utc>,
    ) -> Result<Self, CertificateError> {
        let certificate = Self::parse(chain, now)?;
        if ota_tls::Identity::new(certificate.chain.clone(), key.to_der()).is_err() {
            return Err(CertificateError::OtherKey);
        }
        match certificate.device() {
            Some(named) if named == device => Ok(certificate),
            Some(_) | None => Err(CertificateError::OtherDevice),
        }
    }

    fn parse(chain: Vec<CertificateDer<'static>>, received_at: DateTime<Utc>) -> Result<Self, CertificateError> {
        let leaf = chain.first().ok_or(CertificateError::Unreadable)?;
        let (_, leaf) = x509_parser::parse_x509_certificate(leaf).map_err(|_| CertificateError::Unreadable)?;
        let validity = leaf.validity();
        let time = |time: x509_parser::time::ASN1Time| {
            DateTime::from_timestamp(time.timestamp(), 0).ok_or(CertificateError::Unreadable)
        };
        let (not_before, not_after) = (time(validity.not_before)?, time(validity.not_after)?);
        Ok(Self { chain, not_before, not_after, received_at: received_at.trunc_subsecs(0) })
    }

    /// Returns the device that the certificate names.
    fn device(&self) -> Option<DeviceId> {
        let (_, leaf) = x509_parser::parse_x509_certificate(self.chain.first()?).ok()?;
        let names = leaf.subject_alternative_name().ok()??;
        names.value.general_names.iter().find_map(|name| match name {
            GeneralName::URI(uri) => uri.strip_prefix(DEVICE_URN)?.parse().ok(),
            GeneralName::OtherName(..)
            | GeneralName::RFC822Name(_)
            | GeneralName::DNSName(_)
            | GeneralName::X400Address(_)
            | GeneralName::DirectoryName(_)
            | GeneralName::EDIPartyName(_)
            | GeneralName::IPAddress(_)
            | GeneralName::RegisteredID(_)
            | GeneralName::Invalid(..) => None,
        })
    }

    /// Reads the certificate that is kept, if there is one.
    pub fn load(data: &Path) -> Result<Option<Self>, Error> {
        let path = path(data);
        let Some(bytes) = read(&path)? else { return Ok(None) };
        let parse = || {
            let text = std::str::from_utf8(&bytes).ok()?;
            let received = text.lines().find_map(|line| line.strip_prefix(RECEIVED_LINE))?.parse().ok()?;
            Self::parse(ota_tls::parse_certificates(&bytes).ok()?, received).ok()
        };
        parse().map(Some).ok_or(Error::Damaged { path })
    }

    /// Keeps the certificate.
    pub fn save(&self, data: &Path) -> Result<(), Error> {
        let certificates: String = self.chain.iter().map(ota_tls::write_certificate).collect();
        let text = format!("{RECEIVED_LINE}{}\n{certificates}", self.received_at.to_rfc3339());
        keep(path(data), text.as_bytes(), 0o644)
    }
}

fn path(data: &Path) -> PathBuf {
    folder(data).join("certificate.pem")
}

#[cfg(test)]
mod tests {
    use ota_domain::EnrollTokenId;
    use rcgen::{CertificateParams, CertificateSigningRequestParams, Issuer, KeyPair, SanType};
    use uuid::Uuid;

    use super::*;

    const DEVICE: DeviceId = DeviceId(Uuid::from_u128(7));

    fn now() -> DateTime<Utc> {
        DateTime::from_timestamp(1_900_000_000, 5).unwrap()
    }

    fn key(data: &Path) -> DeviceKey {
        DeviceKey::for_token(data, EnrollTokenId(Uuid::from_u128(1))).unwrap()
    }

    fn certified(key: &DeviceKey, names: Vec<SanType>) -> Vec<CertificateDer<'static>> {
        let issuer = Issuer::new(CertificateParams::default(), KeyPair::generate().unwrap());
        let request = key.certificate_request().unwrap().into();
        let mut request = CertificateSigningRequestParams::from_der(&request).unwrap();
        request.params.subject_alt_names = names;
        request.params.not_before = rcgen::date_time_ymd(2030, 1, 1);
        request.params.not_after = rcgen::date_time_ymd(2030, 1, 8);
        vec![request.signed_by(&issuer).unwrap().der().clone()]
    }

    fn urn(device: DeviceId) -> Vec<SanType> {
        vec![SanType::URI(format!("urn:ota:device:{device}").try_into().unwrap())]
    }

    #[test]
    fn a_certificate_is_read_back_with_its_times() {
        let data = tempfile::tempdir().unwrap();
        let key = key(data.path());
        assert_eq!(Certificate::load(data.path()).unwrap(), None);
        let certificate = Certificate::read(certified(&key, urn(DEVICE)), &key, DEVICE, now()).unwrap();
        assert_eq!(certificate.not_before.to_rfc3339(), "2030-01-01T00:00:00+00:00");
        assert_eq!(certificate.not_after.to_rfc3339(), "2030-01-08T00:00:00+00:00");
        certificate.save(data.path()).unwrap();
        assert_eq!(Certificate::load(data.path()).unwrap(), Some(certificate));
    }

    #[test]
    fn a_certificate_for_somebody_else_is_not_taken() {
        let (data, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (key, other) = (key(data.path()), key(elsewhere.path()));
        let read = |chain| Certificate::read(chain, &key, DEVICE, now()).unwrap_err();
        assert_eq!(read(certified(&other, urn(DEVICE))), CertificateError::OtherKey);
        assert_eq!(read(certified(&key, urn(DeviceId(Uuid::from_u128(8))))), CertificateError::OtherDevice);
        assert_eq!(read(certified(&key, vec![])), CertificateError::OtherDevice);
        assert_eq!(read(vec![]), CertificateError::Unreadable);
        assert_eq!(read(vec![vec![0].into()]), CertificateError::Unreadable);
    }

    #[test]
    fn a_damaged_certificate_is_an_error() {
        let data = tempfile::tempdir().unwrap();
        let key = key(data.path());
        Certificate::read(certified(&key, urn(DEVICE)), &key, DEVICE, now()).unwrap().save(data.path()).unwrap();
        let whole = std::fs::read(path(data.path())).unwrap();
        for length in [0, 20, whole.len() / 2] {
            std::fs::write(path(data.path()), &whole[..length]).unwrap();
            assert!(matches!(Certificate::load(data.path()), Err(Error::Damaged { .. })), "{length}");
        }
    }
}
