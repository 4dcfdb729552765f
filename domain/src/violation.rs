//! Faults in what a caller sent, gathered so that all of them can be told at once.

use std::fmt::Display;

/// One field that breaks its rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Path of the field as the API names it, for example `release.hardware[2]`.
    pub field: String,
    /// The rule that it breaks, for a person.
    pub description: String,
}

/// Gathers violations while the parts of a request are read.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Violations(Vec<Violation>);

impl Violations {
    /// Notes that `field` breaks a rule.
    pub fn add(&mut self, field: impl Into<String>, description: impl Display) {
        self.0.push(Violation { field: field.into(), description: description.to_string() });
    }

    /// Notes `description` for `field` unless `holds`.
    pub fn require(&mut self, holds: bool, field: impl Into<String>, description: impl Display) {
        if !holds {
            self.add(field, description);
        }
    }

    /// Takes the value out of `result`, or notes its error for `field`.
    pub fn take<T, E: Display>(&mut self, field: impl Into<String>, result: Result<T, E>) -> Option<T> {
        result.map_err(|error| self.add(field, error)).ok()
    }

    /// `value` when nothing was noted, else all that was. A `None` without a note would be a fault of ours.
    ///
    /// # Errors
    /// All the violations noted so far.
    pub fn finish<T>(self, value: Option<T>) -> Result<T, Vec<Violation>> {
        match value {
            Some(value) if self.0.is_empty() => Ok(value),
            Some(_) | None => Err(self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_violations_are_told_at_once() {
        let mut violations = Violations::default();
        let number = violations.take("a", "x".parse::<u8>());
        violations.require(false, "b", "must be set");
        let told = violations.finish(number).unwrap_err();
        assert_eq!(told.iter().map(|violation| violation.field.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    }
}
