//! Certificate requests (PKCS#10, RFC 2986): proof that a machine holds the key it wants to be known by.

use x509_parser::{oid_registry::OID_SIG_ECDSA_WITH_SHA256, prelude::FromDer as _};

use super::{DeviceKey, KeyError};

/// Largest request read.
pub const MAX_REQUEST_BYTES: usize = 4 * 1024;

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// Too long.
    #[error("must have at most {MAX_REQUEST_BYTES} bytes")]
    TooLong,
    /// Not a request, or more than one.
    #[error("must be a PKCS#10 certificate request (RFC 2986) in DER")]
    Malformed,
    /// Not a key that devices may have.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The machine does not hold the key.
    #[error("must be signed by its own key, ECDSA with SHA-256")]
    Signature,
}

/// Reads a request and returns its key. Whatever else the request asks for is ignored.
///
/// # Errors
/// When the request breaks a rule or is not signed by its key.
pub fn parse(der: &[u8]) -> Result<DeviceKey, RequestError> {
    if der.len() > MAX_REQUEST_BYTES {
        return Err(RequestError::TooLong);
    }
    let (rest, request) = x509_parser::certification_request::X509CertificationRequest::from_der(der)
        .map_err(|_| RequestError::Malformed)?;
    if !rest.is_empty() {
        return Err(RequestError::Malformed);
    }
    let info = &request.certification_request_info;
    let key = DeviceKey::from_spki(info.subject_pki.raw)?;
    if request.signature_algorithm.algorithm != OID_SIG_ECDSA_WITH_SHA256
        || !key.signed(info.raw, &request.signature_value.data)
    {
        return Err(RequestError::Signature);
    }
    Ok(key)
}
