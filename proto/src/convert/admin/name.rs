//! Resource names: `collection/id`, and `packages/{package}/releases/{version}`.

use std::{fmt::Display, str::FromStr};

use ota_domain::{PackageName, Version};

/// The text is not a name of the wanted collection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("must be {pattern}: {problem}")]
pub struct ParseNameError {
    pattern: &'static str,
    problem: String,
}

/// Reads the id in `collection/id`; `pattern` is how an error writes the whole, for example `devices/{device}`.
///
/// # Errors
/// When the collection is another or the id breaks its rule.
pub fn parse<T>(name: &str, pattern: &'static str) -> Result<T, ParseNameError>
where
    T: FromStr<Err: Display>,
{
    let error = |problem: String| ParseNameError { pattern, problem };
    let collection = pattern.split('{').next().unwrap_or(pattern);
    let id =
        name.strip_prefix(collection).ok_or_else(|| error(format!("{name:?} does not start with {collection:?}")))?;
    id.parse().map_err(|rule: T::Err| error(format!("the last part {rule}")))
}

/// How an error writes a release's name.
pub const RELEASE: &str = "packages/{package}/releases/{version}";

/// Reads `packages/{package}/releases/{version}`.
///
/// # Errors
/// When it is not of that form or a part breaks its rule.
pub fn parse_release(name: &str) -> Result<(PackageName, Version), ParseNameError> {
    let error = |problem: String| ParseNameError { pattern: RELEASE, problem };
    let (package, version) = name
        .strip_prefix("packages/")
        .and_then(|rest| rest.split_once("/releases/"))
        .ok_or_else(|| error(format!("{name:?} is not of that form")))?;
    Ok((
        package.parse().map_err(|rule| error(format!("the package {rule}")))?,
        version.parse().map_err(|rule| error(format!("the version {rule}")))?,
    ))
}

/// Writes `packages/{package}/releases/{version}`.
#[must_use]
pub fn release(package: &PackageName, version: &Version) -> String {
    format!("packages/{package}/releases/{version}")
}
