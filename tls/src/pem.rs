//! Certificates in files.

use std::fs;
use std::path::Path;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::error::Error;

/// Reads the certificates of a PEM file.
///
/// # Errors
/// When the file cannot be read, is no PEM, or holds no certificate.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let text = fs::read(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
    parse_certificates(&text).map_err(|_| Error::NotCertificates { path: path.to_owned() })
}

/// Reads the certificates of a PEM text.
///
/// # Errors
/// When it is no PEM or holds no certificate.
pub fn parse_certificates(text: &[u8]) -> Result<Vec<CertificateDer<'static>>, Error> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
    certificates.ok().filter(|found| !found.is_empty()).ok_or(Error::NotPem)
}

/// Writes a certificate as PEM (RFC 7468).
#[must_use]
pub fn write_certificate(certificate: &CertificateDer<'_>) -> String {
    let base64 = data_encoding::BASE64.encode(certificate);
    let mut text = String::from("-----BEGIN CERTIFICATE-----\n");
    let mut rest = base64.as_str();
    while !rest.is_empty() {
        let (line, later) = rest.split_at(rest.len().min(64));
        text.push_str(line);
        text.push('\n');
        rest = later;
    }
    text.push_str("-----END CERTIFICATE-----\n");
    text
}
