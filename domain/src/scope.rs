//! What a role is limited to: some devices, some packages, or both.

use std::{fmt, str::FromStr};

use crate::{Labels, PackageName, Selector, name::MAX_LENGTH, rollout::Target};

/// What a role is limited to. The default is not limited at all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scope {
    /// The devices that its holder sees and acts on. `None` means all.
    pub devices: Option<Selector>,
    /// The packages that its holder sees, publishes and assigns. `None` means all.
    pub packages: Option<PackagePrefix>,
}

impl Scope {
    /// Whether it limits anything.
    #[must_use]
    pub fn is_limited(&self) -> bool {
        self.devices.is_some() || self.packages.is_some()
    }

    /// Whether a device with these labels is in it.
    #[must_use]
    pub fn has_device(&self, labels: &Labels) -> bool {
        self.devices.as_ref().is_none_or(|selector| selector.matches(labels))
    }

    /// Whether a package of this name is in it.
    #[must_use]
    pub fn has_package(&self, name: &PackageName) -> bool {
        self.packages.as_ref().is_none_or(|prefix| name.as_str().starts_with(prefix.as_str()))
    }

    /// The part of a rollout's target that is in it: whoever says all means all they see. Devices named one by one stay as
    /// they are.
    ///
    /// # Errors
    /// When the selector that results is too long.
    pub fn narrow(&self, target: Target) -> Result<Target, NarrowError> {
        let Some(own) = &self.devices else { return Ok(target) };
        match target {
            Target::All => Ok(Target::Selector(own.clone())),
            Target::Selector(selector) => selector.and(own).map(Target::Selector).ok_or(NarrowError),
            Target::Devices(devices) => Ok(Target::Devices(devices)),
        }
    }
}

/// A selector does not fit together with the one that the caller is limited to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is too long together with the selector that your role is limited to")]
pub struct NarrowError;

/// What the names of packages begin with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackagePrefix(String);

impl PackagePrefix {
    /// The prefix as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for PackagePrefix {
    type Err = ParsePrefixError;

    fn from_str(text: &str) -> Result<Self, ParsePrefixError> {
        let bytes = text.as_bytes();
        let fits = bytes.len() <= MAX_LENGTH
            && bytes.first().is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
            && bytes.iter().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(byte))
            && !text.contains("..");
        if fits { Ok(Self(text.to_owned())) } else { Err(ParsePrefixError) }
    }
}

impl fmt::Display for PackagePrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The text begins no package's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be what names of packages begin with: 1 to 63 characters of a-z, 0-9, '.', '_' and '-'")]
pub struct ParsePrefixError;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn scope(devices: &str, packages: &str) -> Scope {
        Scope {
            devices: (!devices.is_empty()).then(|| devices.parse().unwrap()),
            packages: (!packages.is_empty()).then(|| packages.parse().unwrap()),
        }
    }

    fn labels(text: &str) -> Labels {
        text.split(',').filter_map(|pair| pair.split_once('=')).map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
    }

    #[test]
    fn a_scope_has_what_it_names_and_the_default_has_everything() {
        let lab = scope("site=lab", "gateway-");
        assert!(lab.has_device(&labels("site=lab,ring=a")) && !lab.has_device(&labels("ring=a")));
        let package = |name: &str| lab.has_package(&name.parse().unwrap());
        assert!(package("gateway-fw") && !package("gateway") && !package("other"));
        let all = Scope::default();
        assert!(!all.is_limited() && lab.is_limited() && scope("", "a").is_limited() && scope("a", "").is_limited());
        assert!(all.has_device(&Labels::new()) && all.has_package(&"x".parse().unwrap()));
    }

    #[test]
    fn a_prefix_is_what_a_name_can_begin_with() {
        for good in ["a", "gateway-", "a.", "a_b", &"a".repeat(63)] {
            assert_eq!(good.parse::<PackagePrefix>().map(|prefix| prefix.to_string()), Ok(good.to_owned()));
        }
        for bad in ["", "-a", ".", "a..", "A", "a/", "a b", "%", "a*", &"a".repeat(64)] {
            assert_eq!(bad.parse::<PackagePrefix>(), Err(ParsePrefixError), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn a_narrowed_target_is_what_both_choose(own in "(a|b|!a|a!=x|a in \\(x,y\\))(,c)?", told in "(a|b|!b|a=x|b notin \\(y\\))(,!c)?",
                                                 has in "(a=[xyz],)?(b=[xyz],)?(c=x)?") {
            let (own, told): (Selector, Selector) = (own.parse().unwrap(), told.parse().unwrap());
            let scope = Scope { devices: Some(own.clone()), packages: None };
            let labels = labels(&has);
            let Ok(Target::Selector(narrowed)) = scope.narrow(Target::Selector(told.clone())) else { panic!() };
            prop_assert_eq!(narrowed.matches(&labels), own.matches(&labels) && told.matches(&labels));
            let again = Target::Selector(narrowed);
            prop_assert_eq!(scope.narrow(again.clone()), Ok(again));
            prop_assert_eq!(scope.narrow(Target::All), Ok(Target::Selector(own)));
        }
    }
}
