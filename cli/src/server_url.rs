//! Where a server is, and whether what is said to it may travel unencrypted.

use std::{fmt, net::IpAddr, str::FromStr};

use http::Uri;
use serde::{Deserialize, Serialize};

use crate::error::Failure;

/// An `https://` or `http://` address of a server, without a path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ServerUrl {
    uri: Uri,
}

/// The text is no address of a server.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseServerUrlError {
    /// Not `https://host:port`.
    #[error("{0:?} is no server address; write for example https://ota.example:8443")]
    Form(String),
}

impl ServerUrl {
    /// Returns the address for the transport.
    pub fn uri(&self) -> &Uri {
        &self.uri
    }

    /// Returns a name for files about this server: `ota.example_8443`.
    pub fn file_name(&self) -> String {
        let authority = self.uri.authority().map_or("", |authority| authority.as_str());
        authority.chars().map(|c| if c.is_ascii_alphanumeric() || matches!(c, '.' | '-') { c } else { '_' }).collect()
    }

    /// Tells whether the connection is encrypted.
    pub fn is_encrypted(&self) -> bool {
        self.uri.scheme_str() == Some("https")
    }

    /// Refuses to send a credential in the clear to another machine, unless the person said so.
    pub fn check_transport(&self, insecure: bool) -> Result<(), Failure> {
        if insecure || self.is_encrypted() || self.is_loopback() {
            return Ok(());
        }
        Err(Failure::usage(format!(
            "{self} is another machine, and http:// is not encrypted: anybody on the way could read the token"
        ))
        .hint("say --insecure if you trust the network between"))
    }

    fn is_loopback(&self) -> bool {
        is_loopback(self.uri.host().unwrap_or_default())
    }
}

/// Tells whether a host of an address is this machine.
pub fn is_loopback(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    match host.parse::<IpAddr>() {
        Ok(address) => address.to_canonical().is_loopback(),
        // RFC 6761 keeps the name and all names beneath it on this machine.
        Err(_) => host.eq_ignore_ascii_case("localhost") || host.to_ascii_lowercase().ends_with(".localhost"),
    }
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.uri.to_string().trim_end_matches('/'))
    }
}

impl FromStr for ServerUrl {
    type Err = ParseServerUrlError;

    fn from_str(text: &str) -> Result<Self, ParseServerUrlError> {
        let form = || ParseServerUrlError::Form(text.to_owned());
        let uri: Uri = text.parse().map_err(|_| form())?;
        match uri.scheme_str() {
            Some("http" | "https") => {}
            Some(_) | None => return Err(form()),
        }
        let authority = uri.authority().ok_or_else(form)?;
        let bare = matches!(uri.path(), "" | "/") && uri.query().is_none();
        if authority.host().is_empty() || authority.as_str().contains('@') || !bare {
            return Err(form());
        }
        Ok(Self { uri })
    }
}

impl TryFrom<String> for ServerUrl {
    type Error = ParseServerUrlError;

    fn try_from(text: String) -> Result<Self, ParseServerUrlError> {
        text.parse()
    }
}

impl From<ServerUrl> for String {
    fn from(url: ServerUrl) -> Self {
        url.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_bare_addresses_are_taken() {
        for good in ["https://ota.example", "http://127.0.0.1:8443", "http://[::1]:80/", "http://ota.example:9000"] {
            assert_eq!(good.parse::<ServerUrl>().unwrap().to_string(), good.trim_end_matches('/'));
        }
        for wrong in
            ["", "127.0.0.1:8443", "ftp://x", "http://", "http://u:p@host", "http://host/path", "http://host?q"]
        {
            assert!(matches!(wrong.parse::<ServerUrl>(), Err(ParseServerUrlError::Form(_))), "{wrong}");
        }
    }

    #[test]
    fn plain_http_stays_on_this_machine_unless_said_otherwise() {
        for local in [
            "https://10.0.0.1:1",
            "http://127.0.0.1:1",
            "http://127.9.9.9",
            "http://[::1]:1",
            "http://localhost:1",
            "http://a.LOCALHOST",
        ] {
            assert!(local.parse::<ServerUrl>().unwrap().check_transport(false).is_ok(), "{local}");
        }
        for remote in
            ["http://10.0.0.1:1", "http://localhost.example", "http://[2001:db8::1]", "http://127.0.0.1.example"]
        {
            let url: ServerUrl = remote.parse().unwrap();
            assert_eq!(url.check_transport(false).unwrap_err().exit().code(), 2, "{remote}");
            assert!(url.check_transport(true).is_ok(), "{remote}");
        }
    }
}
