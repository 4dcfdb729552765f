//! A device's key, as a device makes it.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use ota_domain::DeviceId;
use ota_server::{auth::session::signed_bytes, ca::DeviceKey};
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData as _, SigningKey as _};

/// An ECDSA P-256 key.
#[derive(Clone)]
pub struct TestKey(Arc<KeyPair>);

impl fmt::Debug for TestKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TestKey(..)")
    }
}

impl TestKey {
    /// Makes one.
    ///
    /// # Panics
    /// When the system gives no random numbers.
    #[must_use]
    pub fn generate() -> Self {
        Self(Arc::new(KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key")))
    }

    /// Returns a certificate request for it, in DER.
    ///
    /// # Panics
    /// When it cannot sign.
    #[must_use]
    pub fn request(&self) -> Bytes {
        let request = CertificateParams::default().serialize_request(&*self.0).expect("a request");
        Bytes::copy_from_slice(request.der())
    }

    /// Returns what proves the key to a challenge.
    ///
    /// # Panics
    /// When it cannot sign.
    #[must_use]
    pub fn prove(&self, device: DeviceId, challenge: &[u8]) -> Bytes {
        self.0.sign(&signed_bytes(device, challenge)).expect("a signature").into()
    }

    /// Returns its public half.
    ///
    /// # Panics
    /// Never: it is a P-256 key.
    #[must_use]
    pub fn public(&self) -> DeviceKey {
        DeviceKey::from_spki(&self.0.subject_public_key_info()).expect("a P-256 key")
    }

    /// Returns the private key, PKCS#8 in DER.
    #[must_use]
    pub fn to_pkcs8(&self) -> Vec<u8> {
        self.0.serialize_der()
    }
}
