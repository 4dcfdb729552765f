//! The pin that an enrolment string carries: what a new device compares before it sends its secret.

use std::{fmt, str::FromStr};

use aws_lc_rs::digest::{Context, SHA256, digest};
use data_encoding::{BASE32_NOPAD, Encoding, Specification};

/// A hash over the server's certificate authority and both roots. Written in lower-case base32 without padding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Pin(pub [u8; 32]);

/// The text is no pin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be a pin: 32 bytes in lower-case base32")]
pub struct ParsePinError;

impl Pin {
    /// SHA-256(authority's `SubjectPublicKeyInfo` ‖ SHA-256(image root) ‖ SHA-256(director root)). The hashes have a fixed
    /// length, so no two triples are written the same.
    #[must_use]
    pub fn of(ca_spki_der: &[u8], image_root: &[u8], director_root: &[u8]) -> Self {
        let mut context = Context::new(&SHA256);
        context.update(ca_spki_der);
        context.update(digest(&SHA256, image_root).as_ref());
        context.update(digest(&SHA256, director_root).as_ref());
        Self(context.finish().as_ref().try_into().expect("SHA-256 has 32 bytes"))
    }
}

fn base32() -> Encoding {
    let mut specification: Specification = BASE32_NOPAD.specification();
    specification.symbols.make_ascii_lowercase();
    specification.encoding().expect("lower case is as good an alphabet")
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&base32().encode(&self.0))
    }
}

impl FromStr for Pin {
    type Err = ParsePinError;

    fn from_str(text: &str) -> Result<Self, ParsePinError> {
        // 32 bytes are 52 digits.
        if text.len() != 52 {
            return Err(ParsePinError);
        }
        let bytes = base32().decode(text.as_bytes()).map_err(|_| ParsePinError)?;
        bytes.try_into().map(Self).map_err(|_| ParsePinError)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_pin_written_is_read_back(bytes: [u8; 32]) {
            prop_assert_eq!(Pin(bytes).to_string().parse(), Ok(Pin(bytes)));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "[a-z2-7]{50,54}|.{0,60}") {
            if let Ok(pin) = text.parse::<Pin>() {
                prop_assert_eq!(pin.to_string(), text);
            }
        }
    }

    #[test]
    fn each_part_changes_the_pin() {
        let pin = Pin::of(b"ca", b"image", b"director");
        for other in [
            Pin::of(b"cb", b"image", b"director"),
            Pin::of(b"ca", b"imago", b"director"),
            Pin::of(b"ca", b"director", b"image"),
        ] {
            assert_ne!(pin, other);
        }
        assert_eq!(pin.to_string().len(), 52);
    }
}
