//! The certificate that the server shows, and where it comes from.

use std::{
    fs,
    net::{Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use chrono::{DateTime, Utc};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::{
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject as _},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::{Options, TlsError, provider};
use crate::ca::{Authority, CaError};

/// How long a certificate of our own is good. Half of it must be longer than any clock is wrong.
const OWN_LIFETIME: Duration = Duration::from_secs(30 * 24 * 3600);

/// What connections are shown at the moment.
#[derive(Debug)]
pub(super) struct Shown(RwLock<Arc<CertifiedKey>>);

impl Shown {
    pub(super) fn new(key: CertifiedKey) -> Self {
        Self(RwLock::new(Arc::new(key)))
    }

    pub(super) fn show(&self, key: CertifiedKey) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(key);
    }
}

impl Shown {
    /// The last second of the certificate; `None` for one that cannot be read.
    pub(super) fn expires_at(&self) -> Option<DateTime<Utc>> {
        let shown = Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner));
        let (_, leaf) = X509Certificate::from_der(shown.end_entity_cert().ok()?).ok()?;
        DateTime::from_timestamp(leaf.validity().not_after.timestamp(), 0)
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

/// Where the certificate comes from.
#[derive(Debug)]
pub(super) enum Source {
    /// The operator's files, and what they held when they were last read.
    Files { certificate: PathBuf, key: PathBuf, read: Option<(Vec<u8>, Vec<u8>)> },
    /// The server's own authority, for these names; and when another is due.
    Own { names: Vec<String>, renew_at: DateTime<Utc> },
}

impl Source {
    pub(super) fn of(options: &Options) -> Self {
        match (&options.tls_cert, &options.tls_key) {
            (Some(certificate), Some(key)) => {
                Self::Files { certificate: certificate.clone(), key: key.clone(), read: None }
            }
            (Some(_) | None, _) => {
                let mut names =
                    vec!["localhost".to_owned(), Ipv4Addr::LOCALHOST.to_string(), Ipv6Addr::LOCALHOST.to_string()];
                names.extend(host_name());
                names.extend(options.tls_name.iter().cloned());
                names.sort_unstable();
                names.dedup();
                Self::Own { names, renew_at: DateTime::<Utc>::MIN_UTC }
            }
        }
    }

    /// Reads or makes the certificate.
    pub(super) fn load(&mut self, authority: &Authority, now: DateTime<Utc>) -> Result<CertifiedKey, TlsError> {
        match self {
            Self::Files { certificate, key, read } => {
                let found = (contents(certificate)?, contents(key)?);
                let pair = pair(certificate, key, &found);
                *read = Some(found);
                pair
            }
            Self::Own { names, renew_at } => {
                let own = own(authority, names, now)?;
                *renew_at = now + OWN_LIFETIME / 2;
                Ok(own)
            }
        }
    }

    /// The same when there may be another than the last time; `None` when there is not.
    pub(super) fn reload(
        &mut self,
        authority: &Authority,
        now: DateTime<Utc>,
    ) -> Result<Option<CertifiedKey>, TlsError> {
        let due = match self {
            Self::Files { certificate, key, read } => *read != Some((contents(certificate)?, contents(key)?)),
            Self::Own { renew_at, .. } => *renew_at <= now,
        };
        if due { self.load(authority, now).map(Some) } else { Ok(None) }
    }
}

fn contents(path: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(path).map_err(|error| TlsError::Read(path.to_owned(), error))
}

fn pair(certificate: &Path, key: &Path, contents: &(Vec<u8>, Vec<u8>)) -> Result<CertifiedKey, TlsError> {
    let wrong = |path: &Path, what| {
        let path = path.to_owned();
        move |source| TlsError::Pem { path, what, source }
    };
    let chain = CertificateDer::pem_slice_iter(&contents.0)
        .collect::<Result<Vec<_>, _>>()
        .map_err(wrong(certificate, "certificate"))?;
    let key = PrivateKeyDer::from_pem_slice(&contents.1).map_err(wrong(key, "private key"))?;
    CertifiedKey::from_der(chain, key, &provider()).map_err(TlsError::Pair)
}

fn own(authority: &Authority, names: &[String], now: DateTime<Utc>) -> Result<CertifiedKey, TlsError> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(CaError::from)?;
    let issued = authority.server_certificate(names, &key, rand::random(), now, OWN_LIFETIME)?;
    let chain = vec![issued.certificate, authority.certificate().clone()];
    let key = PrivatePkcs8KeyDer::from(key.serialize_der());
    CertifiedKey::from_der(chain, key.into(), &provider()).map_err(TlsError::Pair)
}

/// The machine's own name, when a certificate can carry it.
fn host_name() -> Option<String> {
    let name = rustix::system::uname().nodename().to_str().ok()?.to_owned();
    (!name.is_empty() && name.is_ascii()).then_some(name)
}
