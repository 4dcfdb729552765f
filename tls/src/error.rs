//! What can go wrong, in words that tell a person what to look at.

use std::io;
use std::path::PathBuf;

use chrono::{DateTime, Utc};
use rustls::pki_types::UnixTime;
use rustls::{AlertDescription, CertificateError};

/// Why connections cannot even be tried.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address has no host that TLS could name.
    #[error("{address} is no address of a server")]
    Address {
        /// The address.
        address: String,
    },
    /// A certificate is no authority's.
    #[error("the certificate of the authority cannot be used")]
    NotAuthority,
    /// An identity without a certificate.
    #[error("there is no certificate")]
    EmptyChain,
    /// The key cannot be used, or belongs to another certificate.
    #[error("the private key does not fit the certificate")]
    Key {
        /// What rustls said.
        #[source]
        source: rustls::Error,
    },
    /// TLS cannot be set up.
    #[error("cannot set up TLS")]
    Setup {
        /// What rustls said.
        #[source]
        source: rustls::Error,
    },
    /// A file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A file holds no certificates.
    #[error("{path} holds no certificates in PEM form")]
    NotCertificates {
        /// The file.
        path: PathBuf,
    },
    /// A text holds no certificates.
    #[error("these are no certificates in PEM form")]
    NotPem,
}

/// Why a server that answered is not the one to talk to. Also found inside the errors of `tonic`: see
/// [`find`](Self::find).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// Another authority, or none that is known, signed the server's certificate.
    #[error("the server's certificate is signed by another authority than the one trusted here")]
    WrongAuthority,
    /// The server's certificate has expired, or the clock is ahead.
    #[error("the server's certificate expired at {not_after}; it is {now} here")]
    Expired {
        /// When it expired.
        not_after: DateTime<Utc>,
        /// The clock's time.
        now: DateTime<Utc>,
    },
    /// The server's certificate is from the future, or the clock is behind.
    #[error("the server's certificate is valid from {not_before}; it is {now} here")]
    NotYetValid {
        /// When it begins to be valid.
        not_before: DateTime<Utc>,
        /// The clock's time.
        now: DateTime<Utc>,
    },
    /// The certificate is for other names.
    #[error("the server's certificate is for {presented}, not for {expected}")]
    WrongName {
        /// The name in the address.
        expected: String,
        /// The names in the certificate.
        presented: String,
    },
    /// The certificate is not for servers.
    #[error("the certificate shown is not for a server")]
    WrongPurpose,
    /// The port does not speak TLS.
    #[error("the server does not speak TLS on this port; is its address http://…?")]
    NotTls,
    /// The port speaks TLS, and nothing else.
    #[error("the server speaks TLS on this port; its address is https://…")]
    OnlyTls,
    /// The server ended the handshake.
    #[error("the server refused the connection: {alert}")]
    Refused {
        /// The alert's name, as in RFC 8446.
        alert: String,
    },
    /// The connection was closed during the handshake.
    #[error("the server closed the connection instead of answering in TLS")]
    Closed,
    /// The server speaks TLS, but not HTTP/2.
    #[error("the server does not speak HTTP/2 on this port")]
    NotHttp2,
    /// Anything else.
    #[error("the TLS handshake failed: {reason}")]
    Handshake {
        /// What rustls or the system said.
        reason: String,
    },
}

impl ConnectError {
    /// Finds the reason in an error and its causes.
    #[must_use]
    pub fn find(error: &(dyn std::error::Error + 'static)) -> Option<Self> {
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(found) = error.downcast_ref::<Self>() {
                return Some(found.clone());
            }
            // An `io::Error` hides what it wraps from `source`, and HTTP/2 keeps only the words of one.
            if let Some(error) = error.downcast_ref::<io::Error>()
                && error.to_string() == Self::OnlyTls.to_string()
            {
                return Some(Self::OnlyTls);
            }
            next = error.source();
        }
        None
    }

    /// Finds words for a handshake that failed.
    pub(crate) fn of_handshake(error: &io::Error) -> Self {
        let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        match tls {
            Some(rustls::Error::InvalidCertificate(certificate)) => Self::of_certificate(certificate),
            // What comes instead of a TLS record is a protocol of plain text.
            Some(rustls::Error::InvalidMessage(_)) => Self::NotTls,
            Some(rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol)) => Self::NotHttp2,
            Some(rustls::Error::AlertReceived(alert)) => Self::Refused { alert: format!("{alert:?}") },
            Some(other) => Self::Handshake { reason: other.to_string() },
            None if error.kind() == io::ErrorKind::UnexpectedEof => Self::Closed,
            None => Self::Handshake { reason: error.to_string() },
        }
    }

    fn of_certificate(error: &CertificateError) -> Self {
        if let CertificateError::ExpiredContext { time, not_after } = error {
            Self::Expired { not_after: date(*not_after), now: date(*time) }
        } else if let CertificateError::NotValidYetContext { time, not_before } = error {
            Self::NotYetValid { not_before: date(*not_before), now: date(*time) }
        } else if let CertificateError::NotValidForNameContext { expected, presented } = error {
            Self::WrongName { expected: expected.to_str().into_owned(), presented: names(presented) }
        } else if let CertificateError::UnknownIssuer | CertificateError::BadSignature = error {
            Self::WrongAuthority
        } else if let CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } = error {
            Self::WrongPurpose
        } else {
            Self::Handshake { reason: error.to_string() }
        }
    }
}

/// Takes names out of what rustls wraps them in: `DnsName("host")`, `IpAddress(::1)`.
fn names(presented: &[String]) -> String {
    let bare = |name: &String| {
        let inner = name.split_once('(').map_or(name.as_str(), |(_, inner)| inner.trim_end_matches(')'));
        inner.trim_matches('"').to_owned()
    };
    if presented.is_empty() { "no name".to_owned() } else { presented.iter().map(bare).collect::<Vec<_>>().join(", ") }
}

fn date(time: UnixTime) -> DateTime<Utc> {
    let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    DateTime::from_timestamp(seconds, 0).unwrap_or(DateTime::<Utc>::MAX_UTC)
}
