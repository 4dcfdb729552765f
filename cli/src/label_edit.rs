//! Label changes as kubectl writes them: `site=lab` sets, `frozen-` removes.

use std::{collections::BTreeMap, str::FromStr};

use ota_domain::label;

/// One change of one label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LabelEdit {
    /// Give the label this value.
    Set(String, String),
    /// Take the label away.
    Remove(String),
}

/// The text is no label change.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseLabelEditError {
    /// Neither `key=value` nor `key-`.
    #[error("write key=value to set a label, key- to remove one")]
    Form,
    /// The key breaks its rule.
    #[error("the key {0:?} {rule}", rule = label::KEY_RULE)]
    Key(String),
    /// The value breaks its rule.
    #[error("the value {0:?} {rule}", rule = label::VALUE_RULE)]
    Value(String),
}

impl LabelEdit {
    /// Returns the label's key.
    pub fn key(&self) -> &str {
        match self {
            Self::Set(key, _) | Self::Remove(key) => key,
        }
    }
}

impl FromStr for LabelEdit {
    type Err = ParseLabelEditError;

    fn from_str(text: &str) -> Result<Self, ParseLabelEditError> {
        let edit = match (text.split_once('='), text.strip_suffix('-')) {
            (Some((key, value)), _) => {
                if !label::is_value(value) {
                    return Err(ParseLabelEditError::Value(value.to_owned()));
                }
                Self::Set(key.to_owned(), value.to_owned())
            }
            (None, Some(key)) => Self::Remove(key.to_owned()),
            (None, None) => return Err(ParseLabelEditError::Form),
        };
        if label::is_key(edit.key()) { Ok(edit) } else { Err(ParseLabelEditError::Key(edit.key().to_owned())) }
    }
}

/// Reads `key=value` where nothing can be removed, as at the creation of an enrolment token.
pub fn parse_label(text: &str) -> Result<(String, String), String> {
    match text.parse() {
        Ok(LabelEdit::Set(key, value)) => Ok((key, value)),
        Ok(LabelEdit::Remove(_)) | Err(ParseLabelEditError::Form) => Err("write key=value".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// Tells which keys change twice. That is a slip, whichever of the two was meant.
pub fn repeated(edits: &[LabelEdit]) -> Vec<&str> {
    let mut times = BTreeMap::new();
    for edit in edits {
        *times.entry(edit.key()).or_insert(0) += 1;
    }
    times.into_iter().filter(|(_, times)| *times > 1).map(|(key, _)| key).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_are_read_as_kubectl_reads_them() {
        let set = |key: &str, value: &str| Ok(LabelEdit::Set(key.to_owned(), value.to_owned()));
        assert_eq!("site=lab".parse(), set("site", "lab"));
        assert_eq!("example.com/ring=a-b.c".parse(), set("example.com/ring", "a-b.c"));
        assert_eq!("frozen=".parse(), set("frozen", ""));
        assert_eq!("frozen-".parse(), Ok(LabelEdit::Remove("frozen".to_owned())));
    }

    #[test]
    fn a_wrong_edit_says_which_part_is_wrong() {
        assert_eq!("site".parse::<LabelEdit>(), Err(ParseLabelEditError::Form));
        assert_eq!("=lab".parse::<LabelEdit>(), Err(ParseLabelEditError::Key(String::new())));
        assert_eq!("-".parse::<LabelEdit>(), Err(ParseLabelEditError::Key(String::new())));
        assert_eq!("a b=c".parse::<LabelEdit>(), Err(ParseLabelEditError::Key("a b".to_owned())));
        assert_eq!("a=b c".parse::<LabelEdit>(), Err(ParseLabelEditError::Value("b c".to_owned())));
        assert_eq!("a=b=c".parse::<LabelEdit>(), Err(ParseLabelEditError::Value("b=c".to_owned())));
    }

    #[test]
    fn a_key_that_changes_twice_is_found() {
        let edits: Vec<LabelEdit> = ["a=1", "b=1", "a-"].iter().map(|text| text.parse().unwrap()).collect();
        assert_eq!(repeated(&edits), ["a"]);
    }
}
