//! Keys: what signs and what verifies.

use std::{fmt, str::FromStr};

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ED25519, Ed25519KeyPair, KeyPair as _, ParsedPublicKey, VerificationAlgorithm,
};
use data_encoding::BASE64;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::json;
use zeroize::Zeroizing;

use crate::metadata::canonical;

/// Everything in the DER of an Ed25519 `SubjectPublicKeyInfo` but the key (RFC 8410, section 4).
const ED25519_SPKI: &[u8] = &[0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
/// Everything in the DER of an ECDSA P-256 `SubjectPublicKeyInfo` but the uncompressed point (RFC 5480, section 2).
const P256_SPKI: &[u8] = &[
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// The key is not one that can be used here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not a key id.
    #[error("must be a key id: 64 lower-case hexadecimal digits")]
    Id,
    /// Neither Ed25519 nor ECDSA P-256.
    #[error("must be an Ed25519 or ECDSA P-256 public key")]
    Public,
    /// Not an Ed25519 private key.
    #[error("must be an Ed25519 private key in PKCS#8")]
    Private,
    /// The signature is not this key's for this message.
    #[error("the signature is wrong")]
    Signature,
}

/// Nothing was signed.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// The library made no key or no signature.
    #[error("the cryptographic library failed")]
    Library,
    /// What holds the key refused.
    #[error("what holds the key did not sign")]
    Signer(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The document cannot be written so that every verifier reads the same.
    #[error("the document cannot be signed: {0}")]
    Document(String),
}

/// Name of a key: the SHA-256 of its canonical form (TUF 4.2), in lower-case hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct KeyId(String);

impl KeyId {
    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for KeyId {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if text.len() == 64 && text.bytes().all(digit) { Ok(Self(text.to_owned())) } else { Err(KeyError::Id) }
    }
}

impl<'de> Deserialize<'de> for KeyId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// A key that verifies. Its serde form is TUF's key object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey {
    material: Material,
    /// `keyval.public`, kept as written because the id covers it.
    text: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Material {
    Ed25519([u8; 32]),
    EcdsaP256([u8; 65]),
}

impl Material {
    /// TUF's `keytype` and `scheme`.
    fn names(&self) -> (&'static str, &'static str) {
        match self {
            Self::Ed25519(_) => ("ed25519", "ed25519"),
            Self::EcdsaP256(_) => ("ecdsa", "ecdsa-sha2-nistp256"),
        }
    }

    fn algorithm(&self) -> (&'static dyn VerificationAlgorithm, &[u8]) {
        match self {
            Self::Ed25519(key) => (&ED25519, key),
            Self::EcdsaP256(point) => (&ECDSA_P256_SHA256_ASN1, point),
        }
    }

    fn from_spki_der(der: &[u8]) -> Result<Self, KeyError> {
        let material = if let Some(key) = der.strip_prefix(ED25519_SPKI) {
            Self::Ed25519(key.try_into().map_err(|_| KeyError::Public)?)
        } else if let Some(point) = der.strip_prefix(P256_SPKI) {
            let point: [u8; 65] = point.try_into().map_err(|_| KeyError::Public)?;
            ParsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point).map_err(|_| KeyError::Public)?;
            Self::EcdsaP256(point)
        } else {
            return Err(KeyError::Public);
        };
        Ok(material)
    }

    fn to_spki_der(&self) -> Vec<u8> {
        match self {
            Self::Ed25519(key) => [ED25519_SPKI, key].concat(),
            Self::EcdsaP256(point) => [P256_SPKI, point].concat(),
        }
    }
}

impl PublicKey {
    /// Reads a `SubjectPublicKeyInfo` in DER.
    ///
    /// # Errors
    /// When it is neither an Ed25519 key nor an uncompressed point of P-256.
    pub fn from_spki_der(der: &[u8]) -> Result<Self, KeyError> {
        let material = Material::from_spki_der(der)?;
        let text = match &material {
            Material::Ed25519(key) => hex::encode(key),
            Material::EcdsaP256(_) => pem("PUBLIC KEY", der).to_string(),
        };
        Ok(Self { material, text })
    }

    /// The `SubjectPublicKeyInfo` in DER.
    #[must_use]
    pub fn to_spki_der(&self) -> Vec<u8> {
        self.material.to_spki_der()
    }

    /// The key's name.
    #[must_use]
    pub fn id(&self) -> KeyId {
        let canonical = canonical(&self.object()).expect("a key has no numbers");
        KeyId(hex::encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &canonical)))
    }

    /// Checks a signature: 64 bytes for Ed25519, ASN.1 for ECDSA.
    ///
    /// # Errors
    /// When it is not this key's signature of the message.
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), KeyError> {
        let (algorithm, key) = self.material.algorithm();
        algorithm.verify_sig(key, message, signature).map_err(|_| KeyError::Signature)
    }

    fn object(&self) -> serde_json::Value {
        let (keytype, scheme) = self.material.names();
        json!({ "keytype": keytype, "keyval": { "public": self.text }, "scheme": scheme })
    }
}

#[derive(Deserialize)]
struct KeyObject {
    keytype: String,
    scheme: String,
    keyval: KeyValue,
}

#[derive(Deserialize)]
struct KeyValue {
    public: String,
}

impl TryFrom<KeyObject> for PublicKey {
    type Error = KeyError;

    fn try_from(object: KeyObject) -> Result<Self, KeyError> {
        let text = object.keyval.public;
        let material = match object.keytype.as_str() {
            "ed25519" => {
                let mut key = [0; 32];
                hex::decode_to_slice(&text, &mut key).map_err(|_| KeyError::Public)?;
                Material::Ed25519(key)
            }
            "ecdsa" => Material::from_spki_der(&unpem("PUBLIC KEY", &text).ok_or(KeyError::Public)?)?,
            _ => return Err(KeyError::Public),
        };
        if material.names() != (object.keytype.as_str(), object.scheme.as_str()) {
            return Err(KeyError::Public);
        }
        Ok(Self { material, text })
    }
}

impl Serialize for PublicKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.object().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for PublicKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        KeyObject::deserialize(deserializer)?.try_into().map_err(de::Error::custom)
    }
}

/// Signs with a private key, wherever that is.
pub trait Signer: Send + Sync {
    /// The public half.
    fn public_key(&self) -> &PublicKey;

    /// Signs a message, in the form that [`PublicKey::verify`] takes.
    ///
    /// # Errors
    /// When what holds the key does not sign.
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError>;
}

/// An Ed25519 key in memory. Erased when dropped; never shown by `Debug`.
pub struct PrivateKey {
    pair: Ed25519KeyPair,
    public: PublicKey,
}

impl PrivateKey {
    /// Makes a key.
    ///
    /// # Errors
    /// When the machine gives no random bytes.
    pub fn generate() -> Result<Self, SignError> {
        Ed25519KeyPair::generate().map_err(|_| SignError::Library).map(Self::new)
    }

    /// Reads PKCS#8 in DER.
    ///
    /// # Errors
    /// When it is no Ed25519 key.
    pub fn from_pkcs8_der(der: &[u8]) -> Result<Self, KeyError> {
        Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).map_err(|_| KeyError::Private).map(Self::new)
    }

    /// The key as PKCS#8 version 1 in DER, which OpenSSL reads too.
    ///
    /// # Panics
    /// Never: the library writes what it holds.
    #[must_use]
    pub fn to_pkcs8_der(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(self.pair.to_pkcs8v1().expect("a key can be written").as_ref().to_vec())
    }

    /// Reads a PEM block `PRIVATE KEY`.
    ///
    /// # Errors
    /// When it is no Ed25519 key.
    pub fn from_pem(text: &str) -> Result<Self, KeyError> {
        Self::from_pkcs8_der(&Zeroizing::new(unpem("PRIVATE KEY", text).ok_or(KeyError::Private)?))
    }

    /// The key as a PEM block `PRIVATE KEY`.
    #[must_use]
    pub fn to_pem(&self) -> Zeroizing<String> {
        pem("PRIVATE KEY", &self.to_pkcs8_der())
    }

    fn new(pair: Ed25519KeyPair) -> Self {
        let key: [u8; 32] = pair.public_key().as_ref().try_into().expect("an Ed25519 key has 32 bytes");
        Self { pair, public: PublicKey { material: Material::Ed25519(key), text: hex::encode(key) } }
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrivateKey({})", self.public.id())
    }
}

impl Signer for PrivateKey {
    fn public_key(&self) -> &PublicKey {
        &self.public
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError> {
        self.pair.try_sign(message).map(|signature| signature.as_ref().to_vec()).map_err(|_| SignError::Library)
    }
}

/// One PEM block (RFC 7468), ended by a newline.
fn pem(label: &str, der: &[u8]) -> Zeroizing<String> {
    let body = Zeroizing::new(BASE64.encode(der));
    let mut text = Zeroizing::new(String::with_capacity(body.len() + body.len() / 64 + 128));
    text.push_str(&format!("-----BEGIN {label}-----\n"));
    for (position, character) in body.chars().enumerate() {
        if position > 0 && position % 64 == 0 {
            text.push('\n');
        }
        text.push(character);
    }
    text.push_str(&format!("\n-----END {label}-----\n"));
    text
}

/// The bytes in one PEM block, which has to be all there is.
fn unpem(label: &str, text: &str) -> Option<Vec<u8>> {
    let body = text.trim_ascii().strip_prefix(&format!("-----BEGIN {label}-----"))?;
    let body = body.strip_suffix(&format!("-----END {label}-----"))?;
    let body = Zeroizing::new(body.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect::<Vec<_>>());
    BASE64.decode(&body).ok()
}
