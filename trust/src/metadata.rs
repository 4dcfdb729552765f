//! The documents: how they are written, signed and read.
//!
//! Written in canonical JSON (OLPC), in ASCII alone: verifiers differ in how they normalise other letters.

mod online;
mod root;
mod targets;

use std::{collections::BTreeSet, fmt};

use chrono::TimeDelta;
use ota_domain::{PackageName, Version};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

pub(crate) use self::online::file_name;
pub use self::{
    online::{Freshness, Snapshot, Timestamp},
    root::{Mode, RoleKeys, Root},
    targets::{Bins, Custom, Target, Targets},
};
use crate::key::{KeyId, SignError, Signer};

/// The version of TUF whose form the documents have.
pub const SPEC_VERSION: &str = "1.0.31";
/// Highest version of a document: what a database and every JSON library can hold.
pub const MAX_VERSION: u64 = i64::MAX as u64;

/// The four roles of a repository. Hash bins are targets too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Says which keys the roles have.
    Root,
    /// Says what may be installed.
    Targets,
    /// Says which versions of targets belong together.
    Snapshot,
    /// Says which snapshot is the newest.
    Timestamp,
}

impl Role {
    /// All four.
    pub const ALL: [Self; 4] = [Self::Root, Self::Targets, Self::Snapshot, Self::Timestamp];

    /// TUF's name for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Targets => "targets",
            Self::Snapshot => "snapshot",
            Self::Timestamp => "timestamp",
        }
    }

    /// Largest document, in bytes. Checked before a byte is parsed.
    #[must_use]
    pub const fn max_bytes(self) -> usize {
        match self {
            Self::Root => 512 * 1024,
            Self::Targets => 5 * 1024 * 1024,
            Self::Snapshot => 2 * 1024 * 1024,
            Self::Timestamp => 16 * 1024,
        }
    }

    /// How long a document of the image repository is good for.
    #[must_use]
    pub const fn lifetime(self) -> TimeDelta {
        match self {
            Self::Root | Self::Targets => TimeDelta::days(365),
            Self::Snapshot => TimeDelta::days(7),
            Self::Timestamp => TimeDelta::days(1),
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a release is called in both repositories.
#[must_use]
pub fn target_path(package: &PackageName, version: &Version) -> String {
    format!("{package}/{version}")
}

pub(crate) mod sealed {
    /// Keeps [`super::Document`] to the types here.
    pub trait Sealed {
        /// What serde cannot say of the type.
        fn check(&self) -> Result<(), String>;
    }
}

/// A document that can be signed.
pub trait Document: Serialize + DeserializeOwned + sealed::Sealed {
    /// Its `_type`.
    const TYPE: &'static str;
    /// Largest document, in bytes.
    const MAX_BYTES: usize;
    /// Whether it has a `spec_version`, as TUF's own documents do.
    const IS_TUF: bool = true;
}

/// The bytes are no document of the kind asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// Larger than its kind may be.
    #[error("{length} bytes are more than the {limit} that a document of type {kind} may have")]
    TooLarge {
        /// The kind asked for.
        kind: &'static str,
        /// Bytes there are.
        length: usize,
        /// Bytes there may be.
        limit: usize,
    },
    /// Takes more memory than any document may.
    #[error("a document of type {kind} would take {length} bytes of memory, of {limit}")]
    TooMuch {
        /// The kind asked for.
        kind: &'static str,
        /// Bytes that it would take.
        length: usize,
        /// Bytes that it may take.
        limit: usize,
    },
    /// Not as it should be.
    #[error("not a document of type {kind}: {reason}")]
    Malformed {
        /// The kind asked for.
        kind: &'static str,
        /// What is wrong with it.
        reason: String,
    },
}

/// A document with its signatures. Each covers the canonical form of `signed`.
#[derive(Serialize, Deserialize)]
pub(crate) struct Envelope {
    pub(crate) signatures: Vec<Signature>,
    pub(crate) signed: Value,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Signature {
    pub(crate) keyid: KeyId,
    pub(crate) sig: String,
}

/// Writes a document and signs it, once by each signer. A time loses what it has below the second.
///
/// # Errors
/// When a signer does not sign, or when the document breaks a rule of its kind.
pub fn sign<T: Document>(document: &T, signers: &[&dyn Signer]) -> Result<Vec<u8>, SignError> {
    document.check().map_err(SignError::Document)?;
    let mut signed = serde_json::to_value(document).map_err(|error| SignError::Document(error.to_string()))?;
    if let Value::Object(members) = &mut signed {
        members.insert("_type".to_owned(), json!(T::TYPE));
        if T::IS_TUF {
            members.insert("spec_version".to_owned(), json!(SPEC_VERSION));
        }
    }
    let mut envelope = Envelope { signatures: Vec::new(), signed };
    for signer in signers {
        envelope.add(*signer)?;
    }
    let bytes = envelope.to_bytes()?;
    if bytes.len() > T::MAX_BYTES {
        return Err(SignError::Document(format!("{} bytes are more than {}", bytes.len(), T::MAX_BYTES)));
    }
    Ok(bytes)
}

/// Adds a signature to a document that is signed already; one by the same key is replaced.
///
/// # Errors
/// When the signer does not sign, or when the bytes are no document.
pub fn add_signature(signed: &[u8], signer: &dyn Signer) -> Result<Vec<u8>, SignError> {
    if signed.len() > Role::Targets.max_bytes() {
        return Err(SignError::Document(format!("{} bytes are more than any document may have", signed.len())));
    }
    let mut envelope: Envelope =
        serde_json::from_slice(signed).map_err(|error| SignError::Document(error.to_string()))?;
    envelope.add(signer)?;
    envelope.to_bytes()
}

/// Reads a document WITHOUT verifying a signature: for what was verified before, and for what is verified after.
///
/// # Errors
/// When it is larger than its kind may be, or not of the form that [`sign`] writes. Unknown members are ignored.
pub fn read<T: Document>(bytes: &[u8]) -> Result<T, ReadError> {
    fits(bytes, T::TYPE, T::MAX_BYTES)?;
    let malformed = |reason: String| ReadError::Malformed { kind: T::TYPE, reason };
    let envelope: Envelope = serde_json::from_slice(bytes).map_err(|error| malformed(error.to_string()))?;
    let text = |member: &str| envelope.signed.get(member).and_then(Value::as_str);
    if text("_type") != Some(T::TYPE) {
        return Err(malformed("its _type is another".to_owned()));
    }
    if T::IS_TUF && !text("spec_version").is_some_and(is_spec_version_1) {
        return Err(malformed("its spec_version is not 1.x".to_owned()));
    }
    let distinct: BTreeSet<&KeyId> = envelope.signatures.iter().map(|signature| &signature.keyid).collect();
    if distinct.len() != envelope.signatures.len() {
        return Err(malformed("a key signed twice".to_owned()));
    }
    let document = T::deserialize(envelope.signed).map_err(|error| malformed(error.to_string()))?;
    document.check().map_err(malformed)?;
    Ok(document)
}

/// Tells whether a document is neither larger than its kind may be nor larger in memory than a device can bear: a few bytes
/// of JSON can take hundreds, and it has to be parsed before a signature can be checked.
pub(crate) fn fits(bytes: &[u8], kind: &'static str, limit: usize) -> Result<(), ReadError> {
    let length = bytes.len();
    if length > limit {
        return Err(ReadError::TooLarge { kind, length, limit });
    }
    let length = parsed_bytes(bytes);
    if length > MAX_PARSED_BYTES {
        return Err(ReadError::TooMuch { kind, length, limit: MAX_PARSED_BYTES });
    }
    Ok(())
}

/// Most bytes of memory for a document. A list is cut into bins long before it takes a fourth of it.
const MAX_PARSED_BYTES: usize = 16 * 1024 * 1024;

/// Bytes of memory that JSON takes at most, give or take: its text, a node of a tree for each object, the least room of a
/// list, and for each value its place, with the key that it may have.
fn parsed_bytes(json: &[u8]) -> usize {
    let extra = json.iter().map(|byte| match byte {
        b'{' => 640,
        b'[' => 128,
        b',' => 144,
        _ => 0,
    });
    json.len() + extra.sum::<usize>()
}

/// `1.`, a number, `.` and a number.
fn is_spec_version_1(version: &str) -> bool {
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let parts: Vec<&str> = version.split('.').collect();
    parts.len() == 3 && parts[0] == "1" && parts[1..].iter().all(|part| is_number(part))
}

impl Envelope {
    fn add(&mut self, signer: &dyn Signer) -> Result<(), SignError> {
        let signature = signer.sign(&canonical(&self.signed)?)?;
        let keyid = signer.public_key().id();
        self.signatures.retain(|signature| signature.keyid != keyid);
        self.signatures.push(Signature { keyid, sig: hex::encode(signature) });
        self.signatures.sort_by(|one, other| one.keyid.cmp(&other.keyid));
        Ok(())
    }

    fn to_bytes(&self) -> Result<Vec<u8>, SignError> {
        let bytes = serde_json::to_vec(self).map_err(|error| SignError::Document(error.to_string()))?;
        only_ascii(bytes)
    }
}

/// The canonical form of a value: what signatures cover.
pub(crate) fn canonical(value: &Value) -> Result<Vec<u8>, SignError> {
    let mut bytes = Vec::new();
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, olpc_cjson::CanonicalFormatter::new());
    value.serialize(&mut serializer).map_err(|error| SignError::Document(error.to_string()))?;
    only_ascii(bytes)
}

fn only_ascii(bytes: Vec<u8>) -> Result<Vec<u8>, SignError> {
    if bytes.is_ascii() { Ok(bytes) } else { Err(SignError::Document("it has letters outside ASCII".to_owned())) }
}

/// A version from 1 to [`MAX_VERSION`].
fn check_version(version: u64) -> Result<(), String> {
    if (1..=MAX_VERSION).contains(&version) { Ok(()) } else { Err(format!("version {version} is out of range")) }
}

/// Times as TUF writes them: UTC, whole seconds, `2026-11-21T00:00:00Z`, no other spelling.
mod time {
    use chrono::{DateTime, Datelike as _, NaiveDateTime, Timelike as _, Utc};
    use serde::{Deserialize, Deserializer, Serializer, de, ser};

    const FORMAT: &str = "%Y-%m-%dT%H:%M:%SZ";

    pub(super) fn serialize<S: Serializer>(time: &DateTime<Utc>, serializer: S) -> Result<S::Ok, S::Error> {
        if !(1_000..=9_999).contains(&time.year()) {
            return Err(ser::Error::custom("a year has four digits, the first not 0"));
        }
        serializer.collect_str(&time.format(FORMAT))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<DateTime<Utc>, D::Error> {
        let text = String::deserialize(deserializer)?;
        let error = || de::Error::custom("must be a time such as 2026-11-21T00:00:00Z");
        if text.len() != 20 || text.starts_with('0') {
            return Err(error());
        }
        let time = NaiveDateTime::parse_from_str(&text, FORMAT).map_err(|_| error())?;
        // A leap second, which most clocks do not know.
        if time.nanosecond() >= 1_000_000_000 { Err(error()) } else { Ok(time.and_utc()) }
    }
}

#[cfg(test)]
mod tests {
    use chrono::{DateTime, Utc};
    use sigstore_tuf::TrustedMetadataSet;

    use super::*;
    use crate::key::PrivateKey;

    fn noon() -> DateTime<Utc> {
        "2026-11-21T12:00:00Z".parse().unwrap()
    }

    fn root(keys: &[&PrivateKey; 4]) -> Root {
        let roles: Vec<_> = Role::ALL.into_iter().zip(keys).map(|(role, key)| (role, [key.public_key()])).collect();
        let roles: Vec<_> = roles.iter().map(|(role, keys)| (*role, keys.as_slice())).collect();
        Root::first(Mode::Managed, noon() + Role::Root.lifetime(), &roles)
    }

    #[test]
    fn a_signed_document_is_read_back_and_verified_by_another_library() {
        let keys: Vec<_> = (0..4).map(|_| PrivateKey::generate().unwrap()).collect();
        let root = root(&[&keys[0], &keys[1], &keys[2], &keys[3]]);
        let bytes = sign(&root, &[&keys[0]]).unwrap();
        assert_eq!(read::<Root>(&bytes), Ok(root.clone()));
        let mut set = TrustedMetadataSet::from_root(&bytes).unwrap();
        assert_eq!(set.root().extra["x-ota-mode"], "managed");

        let other = PrivateKey::generate().unwrap();
        let mut next = root.next(root.expires);
        next.mode = Mode::Adopted;
        next.set_role(Role::Root, 1, &[other.public_key()]);
        let alone = sign(&next, &[&other]).unwrap();
        set.update_root(&alone).unwrap_err();
        let crossed = add_signature(&alone, &keys[0]).unwrap();
        assert_eq!(add_signature(&crossed, &keys[0]).unwrap(), crossed);
        set.update_root(&crossed).unwrap();
        assert_eq!((set.root().version, next.keys.len()), (2, 4));
    }

    #[test]
    fn an_ecdsa_key_verifies_and_has_the_id_that_others_give_it() {
        use aws_lc_rs::{
            rand::SystemRandom,
            signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _},
        };
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
        let der = aws_lc_rs::encoding::AsDer::<aws_lc_rs::encoding::PublicKeyX509Der<'_>>::as_der(pair.public_key());
        let key = crate::key::PublicKey::from_spki_der(der.unwrap().as_ref()).unwrap();
        assert_eq!(crate::key::PublicKey::from_spki_der(&key.to_spki_der()), Ok(key.clone()));
        let signature = pair.sign(&SystemRandom::new(), b"message").unwrap();
        key.verify(b"message", signature.as_ref()).unwrap();
        key.verify(b"massage", signature.as_ref()).unwrap_err();
        let value = serde_json::to_value(&key).unwrap();
        let theirs: sigstore_tuf::Key = serde_json::from_value(value.clone()).unwrap();
        assert_eq!(theirs.key_id().unwrap(), key.id().as_str());
        assert_eq!(serde_json::from_value::<crate::key::PublicKey>(value).unwrap(), key);
    }

    #[test]
    fn a_private_key_survives_pem_and_is_never_shown() {
        let key = PrivateKey::generate().unwrap();
        let pem = key.to_pem();
        assert_eq!(PrivateKey::from_pem(&pem).unwrap().public_key(), key.public_key());
        for bad in ["", "-----BEGIN PRIVATE KEY-----", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----"] {
            PrivateKey::from_pem(bad).unwrap_err();
        }
        assert_eq!(format!("{key:?}"), format!("PrivateKey({})", key.public_key().id()));
    }

    #[test]
    fn a_document_larger_than_its_kind_may_be_is_not_parsed() {
        let bytes = vec![b' '; Role::Timestamp.max_bytes() + 1];
        assert!(matches!(read::<Timestamp>(&bytes), Err(ReadError::TooLarge { .. })));
    }

    #[test]
    fn what_is_small_on_the_wire_and_large_in_memory_is_not_parsed() {
        for part in ["0,", "{},", "[0],", "{\"\":0},", "\"a\","] {
            let bytes = format!("[{}0]", part.repeat(Role::Targets.max_bytes() / part.len() - 2));
            assert!(matches!(read::<Targets>(bytes.as_bytes()), Err(ReadError::TooMuch { .. })), "{part}");
        }
    }

    #[test]
    fn a_time_has_one_spelling() {
        let snapshot = Snapshot { version: 1, expires: noon(), meta: [("targets.json".to_owned(), 1)].into() };
        let bytes = sign(&snapshot, &[]).unwrap();
        assert_eq!(read::<Snapshot>(&bytes), Ok(snapshot));
        for other in
            ["2026-11-21T12:00:00+00:00", "2026-11-21T12:00:00.0Z", "2026-11-21 12:00:00Z", "2026-11-21T12:00Z"]
        {
            let text = String::from_utf8(bytes.clone()).unwrap().replace("2026-11-21T12:00:00Z", other);
            read::<Snapshot>(text.as_bytes()).unwrap_err();
        }
    }

    #[test]
    fn what_other_verifiers_read_otherwise_is_not_signed() {
        let meta = [("tärgets.json".to_owned(), 1)].into();
        sign(&Snapshot { version: 1, expires: noon(), meta }, &[]).unwrap_err();
        sign(&Timestamp { version: 0, expires: noon(), snapshot_version: 1 }, &[]).unwrap_err();
        let late = noon() + TimeDelta::days(3_000_000);
        sign(&Timestamp { version: 1, expires: late, snapshot_version: 1 }, &[]).unwrap_err();
    }
}
