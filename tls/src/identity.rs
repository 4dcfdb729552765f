//! What a client shows of itself.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;

use crate::error::Error;
use crate::provider;

/// A certificate chain with its private key. `Debug` shows neither.
#[derive(Clone)]
pub struct Identity(Arc<CertifiedKey>);

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Identity(..)")
    }
}

impl Identity {
    /// Puts a chain, leaf first, and its key together.
    ///
    /// # Errors
    /// When the chain is empty, the key cannot be used, or it is another certificate's.
    pub fn new(chain: Vec<CertificateDer<'static>>, key: PrivatePkcs8KeyDer<'static>) -> Result<Self, Error> {
        if chain.is_empty() {
            return Err(Error::EmptyChain);
        }
        let key = CertifiedKey::from_der(chain, key.into(), &provider()).map_err(|source| Error::Key { source })?;
        Ok(Self(Arc::new(key)))
    }
}

/// Holds the identity that the next connection shows, or none. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct IdentitySlot(Arc<RwLock<Option<Identity>>>);

impl IdentitySlot {
    /// Replaces the identity. Connections that are open keep the one they were made with.
    pub fn set(&self, identity: Identity) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(identity);
    }

    fn get(&self) -> Option<Identity> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl From<Identity> for IdentitySlot {
    fn from(identity: Identity) -> Self {
        Self(Arc::new(RwLock::new(Some(identity))))
    }
}

impl ResolvesClientCert for IdentitySlot {
    fn resolve(&self, _authorities: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        // The server's list of authorities is ignored: a client has one identity, and the server says best what is wrong.
        self.get().map(|identity| identity.0).filter(|certified| certified.key.choose_scheme(schemes).is_some())
    }

    fn has_certs(&self) -> bool {
        self.get().is_some()
    }
}
