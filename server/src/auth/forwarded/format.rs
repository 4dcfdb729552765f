//! How proxies write the certificate that a client showed them into a header. Pure, and strict: what can be read in two
//! ways is not read.

use std::str::FromStr;

use data_encoding::{BASE64, HEXLOWER};
use sha2::{Digest as _, Sha256};

/// Certificates in one header. A device's chain has one.
const MAX_CERTIFICATES: usize = 4;

/// A header and the way certificates are written in it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Format {
    /// Envoy's `x-forwarded-client-cert`: elements of `key=value`, of which `Cert` and `Chain` hold PEM, escaped as in URLs.
    #[default]
    Envoy,
    /// ingress-nginx' `ssl-client-cert`: the leaf in PEM, escaped as in URLs.
    Nginx,
    /// Traefik's `x-forwarded-tls-client-cert`: the chain in base64 without PEM's first and last lines, separated by commas.
    Traefik,
}

/// The text names none of the headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be x-forwarded-client-cert, ssl-client-cert or x-forwarded-tls-client-cert")]
pub struct ParseFormatError;

/// The header does not say clearly which certificate was shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// Several proxies wrote, or the caller did.
    #[error("has {0} elements where one is due; the proxy has to replace what callers send (in Envoy: SANITIZE_SET)")]
    Elements(usize),
    /// The certificate itself is not passed on.
    #[error("has no certificate; the proxy has to pass on all of it (in Envoy: cert or chain)")]
    NoCertificate,
    /// A key stands twice in one element.
    #[error("has {0} twice")]
    Repeated(&'static str),
    /// The parts of the element are about several certificates.
    #[error("has Cert, Chain and Hash of different certificates")]
    Contradiction,
    /// Quotes or separators are not where they belong.
    #[error("is not made of key=value pairs")]
    Syntax,
    /// An escape is not two hexadecimal digits, or what is escaped is no text.
    #[error("is not escaped as URLs are")]
    Escape,
    /// The certificates are not in PEM, or not in base64.
    #[error("holds no certificates in the form this header has")]
    Certificate,
    /// More certificates than any chain has.
    #[error("holds more than {MAX_CERTIFICATES} certificates")]
    TooMany,
}

impl FromStr for Format {
    type Err = ParseFormatError;

    fn from_str(text: &str) -> Result<Self, ParseFormatError> {
        Self::ALL.into_iter().find(|format| format.header().eq_ignore_ascii_case(text)).ok_or(ParseFormatError)
    }
}

impl Format {
    /// All there are.
    pub const ALL: [Self; 3] = [Self::Envoy, Self::Nginx, Self::Traefik];

    /// The header's name.
    #[must_use]
    pub fn header(self) -> &'static str {
        match self {
            Self::Envoy => "x-forwarded-client-cert",
            Self::Nginx => "ssl-client-cert",
            Self::Traefik => "x-forwarded-tls-client-cert",
        }
    }

    /// Reads the certificates in a header's value, in DER, leaf first. None when the value is empty: nobody showed one.
    ///
    /// # Errors
    /// When the value does not say clearly which certificate was shown.
    pub fn read(self, value: &str) -> Result<Vec<Vec<u8>>, FormatError> {
        let value = value.trim();
        if value.is_empty() {
            return Ok(Vec::new());
        }
        match self {
            Self::Envoy => envoy(value),
            Self::Nginx => pem(&unescaped(value)?),
            Self::Traefik => unescaped(value)?.split(',').map(base64).collect::<Result<Vec<_>, _>>().and_then(few),
        }
    }
}

fn envoy(value: &str) -> Result<Vec<Vec<u8>>, FormatError> {
    let elements = elements(value)?;
    let [element] = elements.as_slice() else { return Err(FormatError::Elements(elements.len())) };
    let read = |key| element.one(key)?.map(|value| pem(&unescaped(value)?)).transpose();
    let chain = match (read("Cert")?, read("Chain")?) {
        (None, None) => return Err(FormatError::NoCertificate),
        (Some(chain), None) | (None, Some(chain)) => chain,
        (Some(cert), Some(chain)) if cert.first() == chain.first() => chain,
        (Some(_), Some(_)) => return Err(FormatError::Contradiction),
    };
    // The names in a client's certificate come into the element as the client wrote them, and could bring a `Cert` of their
    // own to a proxy that writes none. The hash is always the proxy's.
    match (element.one("Hash")?, chain.first()) {
        (Some(hash), Some(leaf)) if !hash.eq_ignore_ascii_case(&HEXLOWER.encode(&Sha256::digest(leaf))) => {
            Err(FormatError::Contradiction)
        }
        _ => Ok(chain),
    }
}

/// What one proxy wrote.
#[derive(Debug, Default)]
struct Element<'a>(Vec<(&'a str, String)>);

impl Element<'_> {
    /// The value of a key, whose case does not matter.
    fn one(&self, key: &'static str) -> Result<Option<&str>, FormatError> {
        let mut values = self.0.iter().filter(|(name, _)| name.eq_ignore_ascii_case(key));
        match (values.next(), values.next()) {
            (Some(_), Some(_)) => Err(FormatError::Repeated(key)),
            (value, _) => Ok(value.map(|(_, value)| value.as_str())),
        }
    }
}

/// Elements are separated by commas, their pairs by semicolons.
fn elements(text: &str) -> Result<Vec<Element<'_>>, FormatError> {
    let (mut done, mut element, mut rest) = (Vec::new(), Element::default(), text);
    loop {
        let (key, behind) = rest.split_once('=').ok_or(FormatError::Syntax)?;
        let key = key.trim();
        if key.is_empty() || !key.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(FormatError::Syntax);
        }
        let (value, behind) = value(behind)?;
        element.0.push((key, value));
        let mut behind = behind.chars();
        match behind.next() {
            Some(';') => {}
            Some(',') => done.push(std::mem::take(&mut element)),
            Some(_) => return Err(FormatError::Syntax),
            None => {
                done.push(element);
                return Ok(done);
            }
        }
        rest = behind.as_str();
    }
}

/// Reads a value, and returns it with what stands behind it. In quotes, a backslash takes the next character as it is.
fn value(text: &str) -> Result<(String, &str), FormatError> {
    let Some(quoted) = text.strip_prefix('"') else {
        let (value, behind) = text.split_at(text.find([',', ';']).unwrap_or(text.len()));
        return if value.contains('"') { Err(FormatError::Syntax) } else { Ok((value.to_owned(), behind)) };
    };
    let (mut value, mut behind) = (String::new(), quoted.chars());
    loop {
        match behind.next().ok_or(FormatError::Syntax)? {
            '"' => return Ok((value, behind.as_str())),
            '\\' => value.push(behind.next().ok_or(FormatError::Syntax)?),
            other => value.push(other),
        }
    }
}

/// Takes URL escapes back. A plus sign stays one: base64 has it.
fn unescaped(text: &str) -> Result<String, FormatError> {
    let mut parts = text.split('%');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let (digits, rest) = part.split_at_checked(2).ok_or(FormatError::Escape)?;
        let byte = u8::from_str_radix(digits, 16).ok().filter(|_| !digits.starts_with('+'));
        bytes.push(byte.ok_or(FormatError::Escape)?);
        bytes.extend_from_slice(rest.as_bytes());
    }
    String::from_utf8(bytes).map_err(|_| FormatError::Escape)
}

/// Reads certificates in PEM (RFC 7468), and nothing else between them.
fn pem(text: &str) -> Result<Vec<Vec<u8>>, FormatError> {
    let mut certificates = Vec::new();
    let mut rest = text.trim_ascii();
    while !rest.is_empty() {
        let body = rest.strip_prefix("-----BEGIN CERTIFICATE-----").ok_or(FormatError::Certificate)?;
        let (body, behind) = body.split_once("-----END CERTIFICATE-----").ok_or(FormatError::Certificate)?;
        certificates.push(base64(body)?);
        rest = behind.trim_ascii_start();
    }
    few(certificates)
}

/// Reads base64 in any number of lines.
fn base64(text: &str) -> Result<Vec<u8>, FormatError> {
    let text: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let bytes = BASE64.decode(&text).map_err(|_| FormatError::Certificate)?;
    if bytes.is_empty() { Err(FormatError::Certificate) } else { Ok(bytes) }
}

fn few(certificates: Vec<Vec<u8>>) -> Result<Vec<Vec<u8>>, FormatError> {
    match certificates.len() {
        0 => Err(FormatError::Certificate),
        1..=MAX_CERTIFICATES => Ok(certificates),
        _ => Err(FormatError::TooMany),
    }
}

#[cfg(test)]
mod tests;
