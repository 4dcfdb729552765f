//! Free text that people write: descriptions, notes, reasons.

/// The text cannot be kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    /// Over-long in characters.
    #[error("must have at most {0} characters")]
    TooManyCharacters(usize),
    /// Over-long in bytes.
    #[error("must have at most {0} bytes")]
    TooManyBytes(usize),
    /// Has a control character other than a line break or a tab: Postgres refuses NUL, and the rest can make a terminal
    /// show what is not there.
    #[error("must hold no control characters but line breaks and tabs")]
    Control,
}

/// Checks a text of at most `most` characters.
///
/// # Errors
/// When it is longer or holds control characters.
pub fn check(text: &str, most: usize) -> Result<(), TextError> {
    if text.chars().count() > most { Err(TextError::TooManyCharacters(most)) } else { printable(text) }
}

/// Checks a text of at most `most` bytes.
///
/// # Errors
/// When it is longer or holds control characters.
pub fn check_bytes(text: &str, most: usize) -> Result<(), TextError> {
    if text.len() > most { Err(TextError::TooManyBytes(most)) } else { printable(text) }
}

fn printable(text: &str) -> Result<(), TextError> {
    if text.chars().all(|c| !c.is_control() || matches!(c, '\n' | '\r' | '\t')) {
        Ok(())
    } else {
        Err(TextError::Control)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_are_counted_not_bytes() {
        assert_eq!(check("éé", 2), Ok(()));
        assert_eq!(check("ééé", 2), Err(TextError::TooManyCharacters(2)));
        assert_eq!(check_bytes("éé", 3), Err(TextError::TooManyBytes(3)));
    }

    #[test]
    fn what_a_terminal_would_act_on_is_refused() {
        assert_eq!(check("one\ntwo\tthree\r\n", 100), Ok(()));
        for bad in ["\0", "\x1b[2J", "\x07", "\u{9b}"] {
            assert_eq!(check(bad, 100), Err(TextError::Control), "{bad:?}");
        }
    }
}
