//! Narrows a list by the fields of its rows, in the grammar of selectors: `state=pending,hardware in (rpi4)`.

use std::{collections::BTreeSet, fmt::Debug};

use crate::selector::{ParseSelectorError, Requirement, Selector};

/// The fields by which a list can be narrowed.
pub trait Field: Copy + Debug + 'static {
    /// All of them.
    const ALL: &'static [Self];

    /// Its name in a filter.
    fn name(self) -> &'static str;

    /// The values it can have, or `None` when these are not known beforehand.
    fn values(self) -> Option<Vec<&'static str>>;
}

/// Conditions on the rows of a list, all of which must hold. The default lets every row pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter<F>(Vec<Condition<F>>);

/// One part of a filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition<F> {
    /// The field.
    pub field: F,
    /// Whether the values are those to leave out.
    pub negated: bool,
    /// The values.
    pub values: Vec<String>,
}

/// The text is no filter of this list.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseFilterError {
    /// Breaks the grammar.
    #[error(transparent)]
    Grammar(ParseSelectorError),
    /// Names a field that rows do not have.
    #[error("{field:?} is no field of this list; its fields are {known}")]
    UnknownField {
        /// The field.
        field: String,
        /// The fields there are.
        known: String,
    },
    /// Says no value: every row has every field.
    #[error("{field} needs a value, as in {field}=…")]
    NoValue {
        /// The field.
        field: &'static str,
    },
    /// Names a value that the field never has.
    #[error("{field} is never {value:?}; it is one of {known}")]
    UnknownValue {
        /// The field.
        field: &'static str,
        /// The value.
        value: String,
        /// The values there are.
        known: String,
    },
}

impl<F> Default for Filter<F> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<F> From<Vec<Condition<F>>> for Filter<F> {
    fn from(conditions: Vec<Condition<F>>) -> Self {
        Self(conditions)
    }
}

impl<F: Field> Filter<F> {
    /// Reads a filter. An empty text lets every row pass.
    ///
    /// # Errors
    /// When the text breaks the grammar or names what the list does not have.
    pub fn parse(text: &str) -> Result<Self, ParseFilterError> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        let selector: Selector = text.parse().map_err(ParseFilterError::Grammar)?;
        selector.requirements().iter().map(condition).collect::<Result<_, _>>().map(Self)
    }

    /// The parts, all of which must hold.
    #[must_use]
    pub fn conditions(&self) -> &[Condition<F>] {
        &self.0
    }
}

fn condition<F: Field>(requirement: &Requirement) -> Result<Condition<F>, ParseFilterError> {
    let (name, values) = match requirement {
        Requirement::In(name, values) | Requirement::NotIn(name, values) => (name, Some(values)),
        Requirement::Exists(name) | Requirement::Absent(name) => (name, None),
    };
    let field = F::ALL.iter().copied().find(|field| field.name() == name).ok_or_else(|| {
        let known: Vec<_> = F::ALL.iter().map(|field| field.name()).collect();
        ParseFilterError::UnknownField { field: name.clone(), known: known.join(", ") }
    })?;
    let values = values.ok_or(ParseFilterError::NoValue { field: field.name() })?;
    known(field, values)?;
    Ok(Condition {
        field,
        negated: matches!(requirement, Requirement::NotIn(..)),
        values: values.iter().cloned().collect(),
    })
}

fn known<F: Field>(field: F, values: &BTreeSet<String>) -> Result<(), ParseFilterError> {
    let Some(known) = field.values() else { return Ok(()) };
    match values.iter().find(|value| !known.contains(&value.as_str())) {
        None => Ok(()),
        Some(value) => {
            Err(ParseFilterError::UnknownValue { field: field.name(), value: value.clone(), known: known.join(", ") })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum Of {
        Shape,
        Name,
    }

    impl Field for Of {
        const ALL: &'static [Self] = &[Self::Shape, Self::Name];

        fn name(self) -> &'static str {
            match self {
                Self::Shape => "shape",
                Self::Name => "name",
            }
        }

        fn values(self) -> Option<Vec<&'static str>> {
            match self {
                Self::Shape => Some(vec!["round", "flat"]),
                Self::Name => None,
            }
        }
    }

    #[test]
    fn conditions_are_read_in_their_order() {
        let filter = Filter::<Of>::parse("shape in (round,flat), name != x").unwrap();
        let told: Vec<_> = filter.conditions().iter().map(|c| (c.field, c.negated, c.values.join("+"))).collect();
        assert_eq!(told, [(Of::Shape, false, "flat+round".to_owned()), (Of::Name, true, "x".to_owned())]);
        assert_eq!(Filter::<Of>::parse(""), Ok(Filter::default()));
    }

    #[test]
    fn what_the_list_does_not_have_is_named() {
        for (text, problem) in [
            ("colour=red", "\"colour\" is no field of this list; its fields are shape, name"),
            ("shape=square", "shape is never \"square\"; it is one of round, flat"),
            ("shape", "shape needs a value, as in shape=…"),
            ("!name", "name needs a value, as in name=…"),
            ("name=a,,", "at character 8: expected a label key"),
        ] {
            assert_eq!(Filter::<Of>::parse(text).map_err(|error| error.to_string()), Err(problem.to_owned()), "{text}");
        }
    }
}
