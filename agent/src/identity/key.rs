//! The device's private key: made here, never sent anywhere.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ota_domain::{DeviceId, EnrollTokenId, Sha256Digest};
use ota_tls::PrivatePkcs8KeyDer;
use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData, SigningKey};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::{Error, folder, keep, read};

/// What stands before the token's id in the file, above the key.
const TOKEN_LINE: &str = "Enrolment token: ";

/// What a session's signature is for: it passes for nothing else.
const SESSION: &[u8] = b"ota-session-v1\0";

/// The cryptography does not work.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct KeyError(rcgen::Error);

/// An ECDSA P-256 key, and the enrolment token that it was made for. Cheap to clone.
#[derive(Clone)]
pub struct DeviceKey {
    /// The enrolment token.
    pub token: EnrollTokenId,
    pair: Arc<KeyPair>,
}

impl fmt::Debug for DeviceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeviceKey").field("token", &self.token).finish_non_exhaustive()
    }
}

impl DeviceKey {
    /// Returns the key to enrol with: the one on disk if it was made for the same token, else a new one, kept.
    pub fn for_token(data: &Path, token: EnrollTokenId) -> Result<Self, Error> {
        if let Some(key) = Self::load(data)?
            && key.token == token
        {
            return Ok(key);
        }
        let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(|error| Error::Key(KeyError(error)))?;
        let text = format!("{TOKEN_LINE}{}\n{}", token.0.simple(), pair.serialize_pem());
        keep(path(data), text.as_bytes(), 0o600)?;
        Ok(Self { token, pair: Arc::new(pair) })
    }

    /// Reads the key, if there is one.
    pub fn load(data: &Path) -> Result<Option<Self>, Error> {
        let path = path(data);
        let Some(bytes) = read(&path)? else { return Ok(None) };
        // Nothing of the text goes into an error: it is secret.
        let parse = || {
            let text = std::str::from_utf8(&bytes).ok()?;
            let token = text.lines().find_map(|line| line.strip_prefix(TOKEN_LINE))?;
            let pair = KeyPair::from_pkcs8_pem_and_sign_algo(text, &PKCS_ECDSA_P256_SHA256).ok()?;
            Some(Self { token: EnrollTokenId(Uuid::try_parse(token).ok()?), pair: Arc::new(pair) })
        };
        parse().map(Some).ok_or(Error::Damaged { path })
    }

    /// Returns the key for TLS, PKCS#8 in DER.
    pub fn to_der(&self) -> PrivatePkcs8KeyDer<'static> {
        self.pair.serialize_der().into()
    }

    /// Returns the SHA-256 of the public key (SubjectPublicKeyInfo in DER): what the server knows the device by.
    pub fn sha256(&self) -> Sha256Digest {
        Sha256Digest(Sha256::digest(self.pair.subject_public_key_info()).into())
    }

    /// Asks for a certificate: PKCS#10 in DER. Names nothing, because the server decides about names.
    pub fn certificate_request(&self) -> Result<Vec<u8>, KeyError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let request = params.serialize_request(&*self.pair).map_err(KeyError)?;
        Ok(request.der().to_vec())
    }

    /// Answers the challenge of a session: ECDSA with SHA-256, ASN.1 DER.
    pub fn answer(&self, device: DeviceId, challenge: &[u8]) -> Result<Vec<u8>, KeyError> {
        self.pair.sign(&[SESSION, device.0.as_bytes(), challenge].concat()).map_err(KeyError)
    }
}

fn path(data: &Path) -> PathBuf {
    folder(data).join("key.pem")
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const TOKEN: EnrollTokenId = EnrollTokenId(Uuid::from_u128(1));

    #[test]
    fn an_interrupted_enrolment_is_repeated_with_the_same_key() {
        let data = tempfile::tempdir().unwrap();
        let first = DeviceKey::for_token(data.path(), TOKEN).unwrap().sha256();
        assert_eq!(DeviceKey::for_token(data.path(), TOKEN).unwrap().sha256(), first);
        assert_eq!(DeviceKey::load(data.path()).unwrap().unwrap().sha256(), first);
        let other = EnrollTokenId(Uuid::from_u128(2));
        assert_ne!(DeviceKey::for_token(data.path(), other).unwrap().sha256(), first);
        assert_eq!(DeviceKey::load(data.path()).unwrap().unwrap().token, other);
    }

    #[test]
    fn the_key_is_readable_by_its_owner_alone_and_never_shown() {
        let data = tempfile::tempdir().unwrap();
        let key = DeviceKey::for_token(data.path(), TOKEN).unwrap();
        let mode = fs::metadata(path(data.path())).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(format!("{key:?}"), format!("DeviceKey {{ token: {TOKEN:?}, .. }}"));
    }

    #[test]
    fn a_damaged_key_is_an_error_and_not_a_new_one() {
        let data = tempfile::tempdir().unwrap();
        DeviceKey::for_token(data.path(), TOKEN).unwrap();
        let whole = fs::read(path(data.path())).unwrap();
        for length in [0, 10, TOKEN_LINE.len() + 32, whole.len() - 40] {
            fs::write(path(data.path()), &whole[..length]).unwrap();
            let error = DeviceKey::for_token(data.path(), TOKEN).unwrap_err();
            assert!(matches!(error, Error::Damaged { .. }), "{length}");
        }
    }

    #[test]
    fn a_request_and_an_answer_are_signed_by_the_key() {
        let data = tempfile::tempdir().unwrap();
        let key = DeviceKey::for_token(data.path(), TOKEN).unwrap();
        let request = key.certificate_request().unwrap();
        let parsed = rcgen::CertificateSigningRequestParams::from_der(&request.into()).unwrap();
        assert_eq!(parsed.public_key.subject_public_key_info(), key.pair.subject_public_key_info());
        let device = DeviceId(Uuid::from_u128(7));
        let signature = key.answer(device, b"challenge").unwrap();
        let signed = [b"ota-session-v1\0", device.0.as_bytes().as_slice(), b"challenge"].concat();
        let public = aws_lc_rs::signature::UnparsedPublicKey::new(
            &aws_lc_rs::signature::ECDSA_P256_SHA256_ASN1,
            key.pair.public_key_raw(),
        );
        public.verify(&signed, &signature).unwrap();
    }
}
