//! Names of keys in PKCS#11 modules (RFC 7512), as far as they are needed to find one key.

use std::{fmt, path::PathBuf, str::FromStr};

/// What such a name begins with.
pub(super) const SCHEME: &str = "pkcs11:";

/// The name of a key: `pkcs11:token=…;object=…?module-path=…&pin-source=…`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Uri {
    text: String,
    /// Label of the token.
    pub token: Option<String>,
    /// Serial number of the token.
    pub serial: Option<String>,
    /// Maker of the token.
    pub manufacturer: Option<String>,
    /// Model of the token.
    pub model: Option<String>,
    /// Number of the slot.
    pub slot_id: Option<u64>,
    /// Label of the key.
    pub object: Option<String>,
    /// Id of the key.
    pub id: Option<Vec<u8>>,
    /// The module's library.
    pub module_path: Option<PathBuf>,
    /// A file that holds the PIN.
    pub pin_source: Option<PathBuf>,
}

/// The text is no name of a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseUriError {
    /// Not of the form `attribute=value`.
    #[error("{0:?} is no attribute of a PKCS#11 URI; write for example pkcs11:token=ota;object=targets")]
    Form(String),
    /// An attribute that is not known here, and would choose another key if it were ignored.
    #[error("the attribute {0:?} of the PKCS#11 URI is not known here")]
    Unknown(String),
    /// An attribute that is there twice.
    #[error("the attribute {0:?} of the PKCS#11 URI is there twice")]
    Twice(String),
    /// A PIN on the command line.
    #[error("the PIN must not be in the URI, where others can read it; use pin-source=file:/PATH or OTACTL_PKCS11_PIN")]
    Pin,
    /// An object that is no private key.
    #[error("the PKCS#11 URI names a {0}, and not a private key")]
    Type(String),
}

impl fmt::Display for Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Uri {
    type Err = ParseUriError;

    fn from_str(text: &str) -> Result<Self, ParseUriError> {
        let rest = text.strip_prefix(SCHEME).ok_or_else(|| ParseUriError::Form(text.to_owned()))?;
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let mut uri = Self { text: text.to_owned(), ..Self::default() };
        let attributes = path.split(';').chain(query.split('&')).filter(|part| !part.is_empty());
        for attribute in attributes {
            uri.set(attribute)?;
        }
        Ok(uri)
    }
}

impl Uri {
    fn set(&mut self, attribute: &str) -> Result<(), ParseUriError> {
        let form = || ParseUriError::Form(attribute.to_owned());
        let (name, value) = attribute.split_once('=').ok_or_else(form)?;
        let bytes = decode(value).ok_or_else(form)?;
        let text = || String::from_utf8(bytes.clone()).map_err(|_| form());
        let twice = match name {
            "token" => self.token.replace(text()?).is_some(),
            "serial" => self.serial.replace(text()?).is_some(),
            "manufacturer" => self.manufacturer.replace(text()?).is_some(),
            "model" => self.model.replace(text()?).is_some(),
            "slot-id" => self.slot_id.replace(text()?.parse().map_err(|_| form())?).is_some(),
            "object" => self.object.replace(text()?).is_some(),
            "id" => self.id.replace(bytes.clone()).is_some(),
            "module-path" => self.module_path.replace(text()?.into()).is_some(),
            "pin-source" => {
                let source = text()?;
                self.pin_source.replace(source.strip_prefix("file:").unwrap_or(&source).into()).is_some()
            }
            "type" if value == "private" => false,
            "type" => return Err(ParseUriError::Type(text()?)),
            "pin-value" => return Err(ParseUriError::Pin),
            other => return Err(ParseUriError::Unknown(other.to_owned())),
        };
        if twice { Err(ParseUriError::Twice(name.to_owned())) } else { Ok(()) }
    }
}

/// Decodes `%41` and the like. `None` for half of one.
fn decode(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let high = char::from(rest.next()?).to_digit(16)?;
            let low = char::from(rest.next()?).to_digit(16)?;
            bytes.push(u8::try_from(high * 16 + low).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_of_a_name_is_read() {
        let text = "pkcs11:token=My%20token;serial=12;object=targets;id=%01%ff;type=private?module-path=/lib/p.so&pin-source=file:/run/pin";
        let uri: Uri = text.parse().unwrap();
        assert_eq!(uri.to_string(), text);
        assert_eq!((uri.token.as_deref(), uri.serial.as_deref()), (Some("My token"), Some("12")));
        assert_eq!((uri.object.as_deref(), uri.id.as_deref()), (Some("targets"), Some([1, 255].as_slice())));
        assert_eq!(uri.module_path, Some("/lib/p.so".into()));
        assert_eq!(uri.pin_source, Some("/run/pin".into()));
    }

    #[test]
    fn what_would_name_another_key_or_show_a_pin_is_refused() {
        let table = [
            ("pkcs11:object", ParseUriError::Form("object".to_owned())),
            ("pkcs11:object=%4", ParseUriError::Form("object=%4".to_owned())),
            ("pkcs11:slot-id=x", ParseUriError::Form("slot-id=x".to_owned())),
            ("pkcs11:objekt=a", ParseUriError::Unknown("objekt".to_owned())),
            ("pkcs11:object=a;object=b", ParseUriError::Twice("object".to_owned())),
            ("pkcs11:object=a?pin-value=1234", ParseUriError::Pin),
            ("pkcs11:object=a;type=cert", ParseUriError::Type("cert".to_owned())),
        ];
        for (text, error) in table {
            assert_eq!(text.parse::<Uri>(), Err(error), "{text}");
        }
    }
}
