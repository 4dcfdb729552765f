//! The paths that a release's archive may have. A path that breaks a rule is refused, never repaired: by who packs the
//! archive, so that nothing is sent in vain, and by the device, which trusts nobody.

/// Longest path in bytes. Leaves room for the release's folder within the 255 bytes that common file systems allow.
const MAX_PATH_BYTES: usize = 240;

/// Why a path is not allowed.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PathError {
    /// Starts at the root of the file system.
    #[error("{0:?} is absolute")]
    Absolute(String),
    /// Holds a `..`, a `.` inside, or an empty component.
    #[error("{0:?} holds a `.`, a `..` or an empty component")]
    Component(String),
    /// Is longer than 240 bytes.
    #[error("{0:?} is longer than {MAX_PATH_BYTES} bytes")]
    TooLong(String),
    /// Is not UTF-8 or holds a control character or a backslash.
    #[error("{0:?} holds a character that is not allowed")]
    Character(String),
}

/// A relative path of plain components.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryPath(String);

impl EntryPath {
    /// Checks an entry's name, component by component. Returns `None` for the archive's own root, `./`.
    ///
    /// A leading `./` and a trailing slash are how common tools spell the root and directories; nothing else is
    /// overlooked.
    ///
    /// # Errors
    /// The first rule that the name breaks.
    pub fn parse(bytes: &[u8]) -> Result<Option<Self>, PathError> {
        let lossy = || String::from_utf8_lossy(bytes).into_owned();
        let text = std::str::from_utf8(bytes).map_err(|_| PathError::Character(lossy()))?;
        if text.contains(|c: char| c.is_control() || c == '\\') {
            return Err(PathError::Character(lossy()));
        }
        if text.starts_with('/') {
            return Err(PathError::Absolute(lossy()));
        }
        if text == "." || text == "./" {
            return Ok(None);
        }
        let text = text.strip_prefix("./").unwrap_or(text);
        let text = text.strip_suffix('/').unwrap_or(text);
        if text.split('/').any(|component| matches!(component, "" | "." | "..")) {
            return Err(PathError::Component(lossy()));
        }
        if text.len() > MAX_PATH_BYTES {
            return Err(PathError::TooLong(lossy()));
        }
        Ok(Some(Self(text.to_owned())))
    }

    /// Returns the path as text, without a trailing slash.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the directories above the path, the topmost first.
    pub fn ancestors(&self) -> impl Iterator<Item = EntryPath> + '_ {
        self.0.match_indices('/').map(|(end, _)| Self(self.0[..end].to_owned()))
    }

    /// Returns the directory above, empty at the top, and the last component.
    pub fn split(&self) -> (&str, &str) {
        self.0.rsplit_once('/').unwrap_or(("", &self.0))
    }

    /// Returns the path as a file system that ignores upper and lower case sees it.
    pub fn folded(&self) -> String {
        self.0.to_lowercase()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_root_and_a_directory_may_be_spelled_as_tools_do() {
        assert_eq!(EntryPath::parse(b"./"), Ok(None));
        for spelling in [&b"bin"[..], b"./bin", b"bin/"] {
            assert_eq!(EntryPath::parse(spelling).unwrap().unwrap().as_str(), "bin");
        }
    }

    proptest! {
        #[test]
        fn whatever_parses_stays_beneath_its_folder(bytes in prop::collection::vec(prop::sample::select(b"a./\\\n\xff".to_vec()), 0..12)) {
            if let Ok(Some(path)) = EntryPath::parse(&bytes) {
                prop_assert!(path.as_str().split('/').all(|component| !["", ".", ".."].contains(&component)));
            }
        }
    }
}
