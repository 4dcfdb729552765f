//! The key that a device is.

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, ParsedPublicKey, UnparsedPublicKey};
use ota_domain::Sha256Digest;
use sha2::{Digest as _, Sha256};

/// Bytes of a P-256 key's SubjectPublicKeyInfo.
const SPKI_BYTES: usize = 91;
/// What every one of them begins with: the algorithm (RFC 5480), and that the point is not compressed.
const SPKI_HEAD: [u8; 27] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00, 0x04,
];
/// Where the point begins.
const POINT: usize = 26;

/// The key is not one that devices may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be an ECDSA P-256 key with an uncompressed point (RFC 5480)")]
pub struct KeyError;

/// A device's public key: ECDSA P-256, in the one form there is for each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceKey([u8; SPKI_BYTES]);

impl DeviceKey {
    /// Reads a SubjectPublicKeyInfo in DER.
    ///
    /// # Errors
    /// When it is not a P-256 key, is written in another form, or the point is not on the curve.
    pub fn from_spki(der: &[u8]) -> Result<Self, KeyError> {
        let key = Self::from_stored(der).ok_or(KeyError)?;
        ParsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &key.0[POINT..]).map_err(|_| KeyError)?;
        Ok(key)
    }

    /// Takes back a key that was read before, without looking whether its point is on the curve. `None` when it was not.
    #[must_use]
    pub fn from_stored(der: &[u8]) -> Option<Self> {
        let spki: [u8; SPKI_BYTES] = der.try_into().ok()?;
        spki.starts_with(&SPKI_HEAD).then_some(Self(spki))
    }

    /// Returns its SubjectPublicKeyInfo in DER.
    #[must_use]
    pub fn as_spki(&self) -> &[u8] {
        &self.0
    }

    /// Returns the SHA-256 of its SubjectPublicKeyInfo, by which a device is known.
    #[must_use]
    pub fn sha256(&self) -> Sha256Digest {
        Sha256Digest(Sha256::digest(self.0).into())
    }

    /// Whether `signature` (ASN.1 DER, SHA-256) is this key's over `message`.
    #[must_use]
    pub fn signed(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &self.0[POINT..]).verify(message, signature).is_ok()
    }
}
