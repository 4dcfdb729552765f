//! How far the store has an upload's bytes for certain, and what it takes to go on from there on any replica.

use ota_domain::Sha256Digest;
use serde::{Deserialize, Serialize};
use sha2::{
    Digest as _, Sha256,
    digest::common::hazmat::{DeserializeStateError, SerializableState as _},
};

/// Bytes between two checkpoints, and the size of an object store's parts: what a server that is killed lets the client
/// send again, at most. Stores take parts from 5 MiB up.
pub(super) const INTERVAL: u64 = 8 << 20;

/// How far the store has an upload's bytes for certain.
#[derive(Debug, Clone, Default)]
pub struct Checkpoint {
    /// How many it has.
    pub received_bytes: u64,
    /// The hash of those.
    pub hash: Hash,
    /// What an object store needs to go on.
    pub parts: Parts,
}

/// A SHA-256 in progress.
#[derive(Debug, Clone, Default)]
pub struct Hash(Sha256);

impl Hash {
    /// Goes on with a hash that was put away.
    ///
    /// # Errors
    /// When the bytes are no such state.
    pub fn from_state(state: &[u8]) -> Result<Self, DeserializeStateError> {
        let state = state.try_into().map_err(|_| DeserializeStateError)?;
        Sha256::deserialize(state).map(Self)
    }

    /// Puts the hash away.
    #[must_use]
    pub fn state(&self) -> Vec<u8> {
        self.0.serialize().to_vec()
    }

    /// Takes the next bytes in.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The SHA-256 of the bytes so far.
    #[must_use]
    pub fn digest(&self) -> Sha256Digest {
        Sha256Digest(self.0.clone().finalize().into())
    }
}

/// The parts of an upload that an object store has. Empty for a folder, which needs nothing but the bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Parts {
    /// The store's name for the multipart upload.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) multipart: Option<String>,
    /// Its names for the parts, in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) etags: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_put_away_anywhere_goes_on_to_the_same_digest() {
        let bytes: Vec<u8> = (0..200_u8).collect();
        let mut whole = Hash::default();
        whole.update(&bytes);
        for cut in 0..bytes.len() {
            let mut first = Hash::default();
            first.update(&bytes[..cut]);
            let mut second = Hash::from_state(&first.state()).unwrap();
            second.update(&bytes[cut..]);
            assert_eq!(second.digest(), whole.digest(), "{cut}");
        }
    }

    #[test]
    fn a_state_of_another_length_is_refused() {
        assert!(Hash::from_state(&[]).is_err());
        assert!(Hash::from_state(&[0; 32]).is_err());
    }

    #[test]
    fn a_folder_needs_no_parts() {
        assert_eq!(serde_json::to_string(&Parts::default()).unwrap(), "{}");
        assert_eq!(serde_json::from_str::<Parts>("{}").unwrap(), Parts::default());
    }
}
