//! Repositories to be judged: made whole, then changed.

use std::{borrow::Cow, cell::RefCell};

use chrono::{DateTime, TimeDelta, Utc};
use data_encoding::BASE64;
use ota_domain::Sha256Digest;
use ota_trust::{
    key::{PrivateKey, Signer},
    metadata::{Bins, Custom, Mode, Role, Root, Snapshot, Target, Targets, Timestamp, sign},
};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::{Value, json};

/// Bytes, in base64.
#[derive(Debug, Clone)]
pub(crate) struct Bytes(pub(crate) Vec<u8>);

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        BASE64.decode(text.as_bytes()).map(Self).map_err(de::Error::custom)
    }
}

/// One repository as a client gets it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Case {
    pub(crate) mutation: Cow<'static, str>,
    pub(crate) now: DateTime<Utc>,
    /// The first is trusted already.
    pub(crate) roots: Vec<Bytes>,
    pub(crate) timestamp: Bytes,
    pub(crate) snapshot: Bytes,
    pub(crate) targets: Bytes,
    /// One delegated role and its name.
    pub(crate) bin: Option<(String, Bytes)>,
}

/// Chance that is the same in every run.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(name: &str, seed: u64) -> Self {
        let name = name
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        Self(name ^ seed.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    /// A number below `limit` (splitmix64).
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % limit as u64).unwrap()
    }

    pub(crate) fn of<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.below(choices.len())]
    }
}

/// Keys: root, targets, snapshot, timestamp, and one that nobody names.
pub(crate) struct Workshop {
    pub(crate) keys: [PrivateKey; 5],
}

pub(crate) const ROOT: usize = 0;
pub(crate) const TARGETS: usize = 1;
pub(crate) const SNAPSHOT: usize = 2;
pub(crate) const TIMESTAMP: usize = 3;
pub(crate) const STRANGER: usize = 4;

impl Workshop {
    /// The same keys in every run, so that the corpus is the same.
    pub(crate) fn new() -> Self {
        // PKCS#8 of an Ed25519 key, but for the 32 bytes (RFC 8410, section 7).
        let prefix = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
        let key = |byte: u8| PrivateKey::from_pkcs8_der(&[&prefix[..], &[byte; 32]].concat()).unwrap();
        Self { keys: [1, 2, 3, 4, 5].map(key) }
    }
}

/// What happens to a document's bytes after it was signed.
type Afterwards<'a> = Box<dyn Fn(Vec<u8>) -> Vec<u8> + 'a>;

/// What happens to a document and its signatures once there are any.
type Seal<'a> = Box<dyn Fn(&mut Value) + 'a>;

/// A document before it is signed.
pub(crate) struct Sheet<'a> {
    pub(crate) signed: Value,
    pub(crate) signers: Vec<usize>,
    /// Changes the envelope once it is signed.
    pub(crate) seal: Option<Seal<'a>>,
    pub(crate) afterwards: Option<Afterwards<'a>>,
}

/// A repository before it is signed.
pub(crate) struct Draft<'a> {
    pub(crate) workshop: &'a Workshop,
    pub(crate) now: DateTime<Utc>,
    pub(crate) roots: Vec<Sheet<'a>>,
    pub(crate) timestamp: Sheet<'a>,
    pub(crate) snapshot: Sheet<'a>,
    pub(crate) targets: Sheet<'a>,
    pub(crate) bin: Option<(String, Sheet<'a>)>,
}

fn sheet<'a, T: ota_trust::metadata::Document>(document: &T, signers: &[usize]) -> Sheet<'a> {
    let bytes = sign(document, &[]).unwrap();
    let envelope: Value = serde_json::from_slice(&bytes).unwrap();
    Sheet { signed: envelope["signed"].clone(), signers: signers.to_vec(), seal: None, afterwards: None }
}

impl<'a> Draft<'a> {
    /// A repository that every verifier accepts: one or two roots, flat or in bins.
    pub(crate) fn new(workshop: &'a Workshop, random: &mut Random) -> Self {
        let now: DateTime<Utc> = "2026-11-21T12:00:00Z".parse().unwrap();
        let public = |key: usize| workshop.keys[key].public_key();
        let root = Root::first(
            Mode::Managed,
            now + TimeDelta::days(365),
            &[
                (Role::Root, &[public(ROOT)]),
                (Role::Targets, &[public(TARGETS)]),
                (Role::Snapshot, &[public(SNAPSHOT)]),
                (Role::Timestamp, &[public(TIMESTAMP)]),
            ],
        );
        let mut roots = vec![sheet(&root, &[ROOT])];
        if random.below(2) == 1 {
            roots.push(sheet(&root.next(root.expires), &[ROOT]));
        }
        let version = random.below(9) as u64 + 1;
        let expires = now + TimeDelta::days(1);
        let custom = Custom {
            package: "app".parse().unwrap(),
            version: "1.2.3".parse().unwrap(),
            release_counter: 3,
            floor: 0,
            hardware: vec!["rpi4".parse().unwrap()],
            installer: ota_domain::release::Installer::File,
            unpacked_size_bytes: 5,
        };
        let target = Target { length: 5, sha256: Sha256Digest([9; 32]), custom };
        let list = std::collections::BTreeMap::from([(target.path(), target.clone())]);
        let bins = (random.below(3) == 0).then(|| Bins {
            count: 64,
            keys: [(public(TARGETS).id(), public(TARGETS).clone())].into(),
            threshold: 1,
        });
        let bin = bins.as_ref().map(|bins| {
            let document = Targets { version, expires, targets: list.clone(), delegations: None, device: None };
            (bins.role_of(&target.path()), sheet(&document, &[TARGETS]))
        });
        let top = if bins.is_some() { Default::default() } else { list };
        let targets = Targets { version, expires, targets: top, delegations: bins, device: None };
        let mut meta = std::collections::BTreeMap::from([("targets.json".to_owned(), version)]);
        meta.extend(bin.iter().map(|(role, _)| (format!("{role}.json"), version)));
        let snapshot = Snapshot { version, expires, meta };
        let timestamp = Timestamp { version, expires, snapshot_version: version };
        Self {
            workshop,
            now,
            roots,
            timestamp: sheet(&timestamp, &[TIMESTAMP]),
            snapshot: sheet(&snapshot, &[SNAPSHOT]),
            targets: sheet(&targets, &[TARGETS]),
            bin,
        }
    }

    /// Any of the documents.
    pub(crate) fn any(&mut self, random: &mut Random) -> &mut Sheet<'a> {
        let roots = self.roots.len();
        match random.below(roots + 3 + usize::from(self.bin.is_some())) {
            0 => &mut self.timestamp,
            1 => &mut self.snapshot,
            2 => &mut self.targets,
            index if index - 3 < roots => &mut self.roots[index - 3],
            _ => &mut self.bin.as_mut().unwrap().1,
        }
    }

    /// The document with the releases.
    pub(crate) fn list(&mut self) -> &mut Sheet<'a> {
        self.bin.as_mut().map_or(&mut self.targets, |(_, sheet)| sheet)
    }

    /// Signs everything.
    pub(crate) fn finish(self, mutation: &'static str) -> Case {
        let keys = RefCell::new(&self.workshop.keys);
        let sign = |sheet: Sheet<'_>| {
            let message = sigstore_tuf::canonical_json::to_canonical_bytes(&sheet.signed).unwrap_or_default();
            let signatures: Vec<Value> = sheet
                .signers
                .iter()
                .map(|index| &keys.borrow()[*index])
                .map(|key| json!({ "keyid": key.public_key().id(), "sig": hex::encode(key.sign(&message).unwrap()) }))
                .collect();
            let mut envelope = json!({ "signatures": signatures, "signed": sheet.signed });
            if let Some(seal) = sheet.seal {
                seal(&mut envelope);
            }
            let bytes = serde_json::to_vec(&envelope).unwrap();
            Bytes(sheet.afterwards.map_or(bytes.clone(), |afterwards| afterwards(bytes)))
        };
        Case {
            mutation: Cow::Borrowed(mutation),
            now: self.now,
            roots: self.roots.into_iter().map(sign).collect(),
            timestamp: sign(self.timestamp),
            snapshot: sign(self.snapshot),
            targets: sign(self.targets),
            bin: self.bin.map(|(role, sheet)| (role, sign(sheet))),
        }
    }
}
