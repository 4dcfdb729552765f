//! Labels that operators put on devices, in the grammar of Kubernetes
//! (<https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/>).

use std::collections::BTreeMap;

use crate::violation::Violations;

/// Labels by key.
pub type Labels = BTreeMap<String, String>;

/// Most labels on one device.
pub const MAX_LABELS: usize = 64;

const MAX_PREFIX: usize = 253;
const MAX_PART: usize = 63;

/// What a key has to look like, for a person.
pub const KEY_RULE: &str = "must be [prefix/]name: a name of 1 to 63 letters, digits, '-', '_' and '.' that starts and \
                            ends with a letter or digit, and a DNS domain for the prefix";
/// What a value has to look like, for a person.
pub const VALUE_RULE: &str = "must be empty or 1 to 63 letters, digits, '-', '_' and '.' that start and end with a \
                              letter or digit";

fn is_part(text: &str) -> bool {
    let edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    bytes.len() <= MAX_PART
        && edge(bytes.first())
        && edge(bytes.last())
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(byte))
}

fn is_domain(text: &str) -> bool {
    text.len() <= MAX_PREFIX
        && text
            .split('.')
            .all(|part| is_part(part) && !part.bytes().any(|byte| byte.is_ascii_uppercase() || byte == b'_'))
}

/// Whether `text` can be a label's key.
#[must_use]
pub fn is_key(text: &str) -> bool {
    match text.split_once('/') {
        Some((prefix, name)) => is_domain(prefix) && is_part(name),
        None => is_part(text),
    }
}

/// Whether `text` can be a label's value.
#[must_use]
pub fn is_value(text: &str) -> bool {
    text.is_empty() || is_part(text)
}

/// Notes every label that breaks a rule, as `field[key]`.
pub fn check(labels: &Labels, field: &str, violations: &mut Violations) {
    violations.require(labels.len() <= MAX_LABELS, field, format!("must hold at most {MAX_LABELS} labels"));
    for (key, value) in labels {
        violations.require(is_key(key), format!("{field}[{key:?}]"), format!("key {KEY_RULE}"));
        violations.require(is_value(value), format!("{field}[{key:?}]"), format!("value {VALUE_RULE}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_values_follow_kubernetes() {
        for good in ["a", "ring", "Site_1", "example.com/ring", "a-b.c"] {
            assert!(is_key(good), "{good}");
        }
        for bad in ["", "/a", "a/", "a/b/c", "Example.com/x", "-a", "a-", "a b", &"a".repeat(64)] {
            assert!(!is_key(bad), "{bad}");
        }
        assert!(is_value("") && is_value("x.1") && !is_value("x y") && !is_value(".x"));
    }
}
