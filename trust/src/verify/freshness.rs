//! Answers to nonces: signed like TUF's documents, and verified here because TUF has none.

use std::collections::BTreeSet;

use super::Repository;
use crate::{
    fault::{Because as _, Fault, TrustError},
    metadata::{Document as _, Envelope, Freshness, Role, canonical, read},
};

impl Repository {
    /// Reads an answer to a nonce, signed by the keys of the timestamp. Whether it answers the right question is for the
    /// caller to say.
    ///
    /// # Errors
    /// When it is none, or not signed as it has to be.
    pub fn freshness(&self, bytes: &[u8]) -> Result<Freshness, TrustError> {
        let freshness = read::<Freshness>(bytes)?;
        let malformed = |reason: String| Fault::Arbitrary.because(format!("{}: {reason}", Freshness::TYPE));
        let envelope: Envelope = serde_json::from_slice(bytes).map_err(|error| malformed(error.to_string()))?;
        let message = canonical(&envelope.signed).map_err(|error| malformed(error.to_string()))?;
        let mut good = BTreeSet::new();
        for key in self.root.keys_of(Role::Timestamp) {
            let id = key.id();
            let mut signatures = envelope.signatures.iter().filter(|signature| signature.keyid == id);
            let signature = signatures.next().and_then(|signature| hex::decode(&signature.sig).ok());
            if signatures.next().is_some() {
                return Err(malformed(format!("key {id} signed twice")));
            }
            if signature.is_some_and(|signature| key.verify(&message, &signature).is_ok()) {
                good.insert(id);
            }
        }
        let needed = self.root.threshold(Role::Timestamp) as usize;
        if good.len() >= needed {
            Ok(freshness)
        } else {
            Err(malformed(format!("{} of {needed} signatures", good.len())))
        }
    }
}
