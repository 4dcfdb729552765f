//! Chooses devices by their labels, in the selector grammar of Kubernetes
//! (<https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#label-selectors>):
//! `ring=canary,site!=lab,model in (a,b),zone notin (x),gpu,!frozen`, all of which must hold.
//!
//! As there, `!=` and `notin` also match a device that lacks the key. Unlike there, an empty selector is an error: whoever
//! means all devices says so.

use std::{collections::BTreeSet, fmt, str::FromStr};

use crate::label::{self, Labels};

/// Most bytes in a selector.
pub const MAX_BYTES: usize = 4096;

/// A condition on the labels of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selector(Vec<Requirement>);

/// One part of a selector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Requirement {
    /// The key's value is one of these.
    In(String, BTreeSet<String>),
    /// The key is absent or its value is none of these.
    NotIn(String, BTreeSet<String>),
    /// The key is there.
    Exists(String),
    /// The key is absent.
    Absent(String),
}

/// The text is no selector.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("at character {position}: {problem}")]
pub struct ParseSelectorError {
    /// Where, in characters from 1.
    pub position: usize,
    /// What is wrong there.
    pub problem: String,
}

impl Selector {
    /// The parts, all of which must hold.
    #[must_use]
    pub fn requirements(&self) -> &[Requirement] {
        &self.0
    }

    /// The selector that chooses what both choose; `None` when it would be too long.
    #[must_use]
    pub fn and(&self, other: &Self) -> Option<Self> {
        let mut requirements = self.0.clone();
        requirements.extend(other.0.iter().filter(|requirement| !self.0.contains(requirement)).cloned());
        let both = Self(requirements);
        (both.to_string().len() <= MAX_BYTES).then_some(both)
    }

    /// Whether a device with these labels is chosen.
    #[must_use]
    pub fn matches(&self, labels: &Labels) -> bool {
        self.0.iter().all(|requirement| match requirement {
            Requirement::In(key, values) => labels.get(key).is_some_and(|value| values.contains(value)),
            Requirement::NotIn(key, values) => labels.get(key).is_none_or(|value| !values.contains(value)),
            Requirement::Exists(key) => labels.contains_key(key),
            Requirement::Absent(key) => !labels.contains_key(key),
        })
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, requirement) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            requirement.fmt(f)?;
        }
        Ok(())
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (key, values, one, many) = match self {
            Self::In(key, values) => (key, values, "=", "in"),
            Self::NotIn(key, values) => (key, values, "!=", "notin"),
            Self::Exists(key) => return f.write_str(key),
            Self::Absent(key) => return write!(f, "!{key}"),
        };
        match values.first() {
            Some(value) if values.len() == 1 => write!(f, "{key}{one}{value}"),
            Some(_) | None => {
                let values: Vec<_> = values.iter().map(String::as_str).collect();
                write!(f, "{key} {many} ({})", values.join(","))
            }
        }
    }
}

impl FromStr for Selector {
    type Err = ParseSelectorError;

    fn from_str(text: &str) -> Result<Self, ParseSelectorError> {
        let mut parser = Parser { text, at: 0 };
        if text.len() > MAX_BYTES {
            return Err(parser.error(format!("a selector has at most {MAX_BYTES} bytes")));
        }
        if text.trim().is_empty() {
            return Err(parser.error("an empty selector chooses nothing; say `all` to choose every device"));
        }
        let mut requirements = vec![parser.requirement()?];
        while parser.eat(",") {
            requirements.push(parser.requirement()?);
        }
        if parser.rest().is_empty() { Ok(Self(requirements)) } else { Err(parser.error("expected ',' or the end")) }
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Parser<'a> {
    fn error(&self, problem: impl Into<String>) -> ParseSelectorError {
        let position = self.text[..self.at].chars().count() + 1;
        ParseSelectorError { position, problem: problem.into() }
    }

    /// What is left, without leading white space.
    fn rest(&mut self) -> &'a str {
        let rest = self.text[self.at..].trim_start();
        self.at = self.text.len() - rest.len();
        rest
    }

    fn eat(&mut self, token: &str) -> bool {
        let found = self.rest().starts_with(token);
        if found {
            self.at += token.len();
        }
        found
    }

    fn word(&mut self) -> &'a str {
        let rest = self.rest();
        let end = rest
            .find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/')))
            .unwrap_or(rest.len());
        self.at += end;
        &rest[..end]
    }

    fn key(&mut self) -> Result<String, ParseSelectorError> {
        self.rest();
        let start = self.at;
        let word = self.word();
        if label::is_key(word) {
            return Ok(word.to_owned());
        }
        self.at = start;
        Err(self.error(if word.is_empty() {
            "expected a label key".to_owned()
        } else {
            format!("{word:?} is no label key: it {}", label::KEY_RULE)
        }))
    }

    fn value(&mut self) -> Result<String, ParseSelectorError> {
        self.rest();
        let start = self.at;
        let word = self.word();
        if label::is_value(word) {
            return Ok(word.to_owned());
        }
        self.at = start;
        Err(self.error(format!("{word:?} is no label value: it {}", label::VALUE_RULE)))
    }

    fn values(&mut self) -> Result<BTreeSet<String>, ParseSelectorError> {
        if !self.eat("(") {
            return Err(self.error("expected '('"));
        }
        let mut values = BTreeSet::from([self.value()?]);
        while self.eat(",") {
            values.insert(self.value()?);
        }
        if self.eat(")") { Ok(values) } else { Err(self.error("expected ',' or ')'")) }
    }

    fn requirement(&mut self) -> Result<Requirement, ParseSelectorError> {
        if self.eat("!") {
            return Ok(Requirement::Absent(self.key()?));
        }
        let key = self.key()?;
        if self.eat("!=") {
            Ok(Requirement::NotIn(key, BTreeSet::from([self.value()?])))
        } else if self.eat("==") || self.eat("=") {
            Ok(Requirement::In(key, BTreeSet::from([self.value()?])))
        } else if matches!(self.rest().bytes().next(), None | Some(b',')) {
            Ok(Requirement::Exists(key))
        } else {
            let start = self.at;
            match self.word() {
                "in" => Ok(Requirement::In(key, self.values()?)),
                "notin" => Ok(Requirement::NotIn(key, self.values()?)),
                _ => {
                    self.at = start;
                    Err(self.error("expected '=', '!=', 'in', 'notin', ',' or the end"))
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect()
    }

    #[test]
    fn every_operator_chooses_as_in_kubernetes() {
        let device = labels(&[("ring", "canary"), ("site", "lab"), ("empty", "")]);
        for chosen in [
            "ring=canary",
            "ring == canary",
            "ring in (beta, canary)",
            "ring",
            "!gpu",
            "gpu!=yes",
            "gpu notin (a)",
            "ring=canary,site=lab",
            "empty=",
            "empty in ()",
            "empty",
        ] {
            assert!(chosen.parse::<Selector>().unwrap().matches(&device), "{chosen}");
        }
        for passed_over in
            ["ring=beta", "ring!=canary", "ring notin (canary)", "!ring", "gpu", "gpu=yes", "ring=canary,gpu"]
        {
            assert!(!passed_over.parse::<Selector>().unwrap().matches(&device), "{passed_over}");
        }
    }

    #[test]
    fn an_error_names_its_position() {
        for (text, position) in [
            ("", 1),
            ("  ", 1),
            ("a=b,", 5),
            ("a=b,,c", 5),
            ("a b", 3),
            ("a in b", 6),
            ("a in (b", 8),
            ("é=1", 1),
            ("a=b)", 4),
            ("a=-x", 3),
            ("a/b/c=1", 1),
            ("!", 2),
        ] {
            assert_eq!(text.parse::<Selector>().map_err(|error| error.position), Err(position), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in any::<String>()) {
            let _: Result<Selector, _> = text.parse();
        }

        #[test]
        fn what_is_written_is_read_back(text in "[a-c](=|!=| in | notin )?[(]?[a-c]?(,[a-c])?[)]?(,!?[a-c])?") {
            if let Ok(selector) = text.parse::<Selector>() {
                prop_assert_eq!(selector.to_string().parse(), Ok(selector));
            }
        }
    }
}
