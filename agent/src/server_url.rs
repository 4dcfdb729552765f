//! The server's address, and whether it may be spoken to.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use tonic::transport::Uri;

/// A server's address: `https://host:port`, or `http://host:port` without encryption.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerUrl(Uri);

/// The text is not a server's address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseServerUrlError {
    /// Not a URL, or one with more than scheme, host and port.
    #[error("must be a URL such as https://ota.example.com:8443, without a path")]
    NotUrl,
}

impl FromStr for ServerUrl {
    type Err = ParseServerUrlError;

    fn from_str(text: &str) -> Result<Self, ParseServerUrlError> {
        let uri: Uri = text.parse().map_err(|_| ParseServerUrlError::NotUrl)?;
        let is_known = matches!(uri.scheme_str(), Some("http" | "https"));
        let is_bare = matches!(uri.path(), "" | "/") && uri.query().is_none();
        let has_user = uri.authority().is_some_and(|authority| authority.as_str().contains('@'));
        if is_known && is_bare && !has_user && uri.host().is_some_and(|host| !host.is_empty()) {
            Ok(Self(uri))
        } else {
            Err(ParseServerUrlError::NotUrl)
        }
    }
}

impl ServerUrl {
    /// Returns the address for a connection.
    pub fn uri(&self) -> &Uri {
        &self.0
    }

    /// Tells whether connections are encrypted.
    pub fn is_tls(&self) -> bool {
        self.0.scheme_str() == Some("https")
    }

    /// Tells whether what is sent there stays on this machine.
    pub fn is_loopback(&self) -> bool {
        let host = self.0.host().unwrap_or_default();
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        bare == "localhost" || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    }
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.to_string().trim_end_matches('/'))
    }
}

impl Serialize for ServerUrl {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ServerUrl {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_counts_as_loopback() {
        for (text, expected) in [
            ("http://127.0.0.1:8443", true),
            ("http://127.9.9.9:1", true),
            ("http://localhost:8443/", true),
            ("http://[::1]:8443", true),
            ("http://10.0.0.1:8443", false),
            ("http://localhost.example.com:8443", false),
            ("http://127.0.0.1.example.com", false),
        ] {
            assert_eq!(text.parse::<ServerUrl>().unwrap().is_loopback(), expected, "{text}");
        }
    }

    #[test]
    fn anything_but_scheme_host_and_port_is_refused() {
        for text in ["", "localhost:8443", "/x", "http://", "http://h/path", "http://h?q", "ftp://h", "http://u:p@h"] {
            assert_eq!(text.parse::<ServerUrl>(), Err(ParseServerUrlError::NotUrl), "{text}");
        }
        assert!("https://h".parse::<ServerUrl>().unwrap().is_tls());
        assert!(!"http://h".parse::<ServerUrl>().unwrap().is_tls());
    }
}
