//! How people name things: `gateway-fw@1.2.0`, a whole resource name, a UUID, or the end of one that is enough.

use std::{fmt, str::FromStr};

use ota_domain::{PackageName, Version};
use uuid::Uuid;

use crate::error::Failure;

/// Fewest characters of an id that are looked up. Fewer would name the wrong thing by a slip.
const MIN_PARTIAL: usize = 4;

/// One release, as `PACKAGE@VERSION` or by its resource name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReleaseRef {
    /// The package.
    pub package: PackageName,
    /// The version.
    pub version: Version,
}

/// The text names no release.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseReleaseRefError {
    /// No `@`.
    #[error("write PACKAGE@VERSION, for example gateway-fw@1.2.0")]
    Form,
    /// The part before the `@`.
    #[error("package {0}")]
    Package(String),
    /// The part after the `@`.
    #[error("version {0}")]
    Version(String),
}

impl ReleaseRef {
    /// Returns the resource name.
    pub fn name(&self) -> String {
        format!("{}/releases/{}", self.parent(), self.version)
    }

    /// Returns the package's resource name.
    pub fn parent(&self) -> String {
        format!("packages/{}", self.package)
    }
}

impl fmt::Display for ReleaseRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.package, self.version)
    }
}

impl FromStr for ReleaseRef {
    type Err = ParseReleaseRefError;

    fn from_str(text: &str) -> Result<Self, ParseReleaseRefError> {
        let by_name = text.strip_prefix("packages/").and_then(|rest| rest.split_once("/releases/"));
        let (package, version) = by_name.or_else(|| text.split_once('@')).ok_or(ParseReleaseRefError::Form)?;
        Ok(Self {
            package: package.parse().map_err(|error| ParseReleaseRefError::Package(format!("{error}")))?,
            version: version.parse().map_err(|error| ParseReleaseRefError::Version(format!("{error}")))?,
        })
    }
}

/// Writes a release's resource name the way people do; anything else as it is.
pub fn short_release(name: &str) -> String {
    let parts = name.strip_prefix("packages/").and_then(|rest| rest.split_once("/releases/"));
    parts.map_or_else(|| name.to_owned(), |(package, version)| format!("{package}@{version}"))
}

/// Writes a resource name without its collection.
pub fn short(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name)
}

/// A thing with a UUID, as somebody named it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IdRef {
    /// Its resource name.
    Full(String),
    /// The beginning or the end of its UUID.
    Partial(String),
}

impl IdRef {
    /// Reads what somebody typed for a thing of `collection`, such as `devices`.
    pub fn parse(collection: &str, text: &str) -> Result<Self, Failure> {
        let id = text.strip_prefix(collection).and_then(|rest| rest.strip_prefix('/')).unwrap_or(text);
        if id.len() == 36 && Uuid::try_parse(id).is_ok() {
            return Ok(Self::Full(format!("{collection}/{}", id.to_ascii_lowercase())));
        }
        let noun = singular(collection);
        if id.is_empty() || id.len() > 36 || !id.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-') {
            return Err(Failure::usage(format!("{text:?} is no {noun} id")).hint(format!(
                "write the UUID, its beginning or its end, as `otactl {} list` shows it",
                command(collection)
            )));
        }
        if id.len() < MIN_PARTIAL {
            return Err(Failure::usage(format!("{text:?} is too short for a {noun} id"))
                .hint(format!("write at least {MIN_PARTIAL} characters of its beginning or end")));
        }
        Ok(Self::Partial(id.to_ascii_lowercase()))
    }

    /// Finds the one name that is meant.
    pub fn pick<'a>(&self, collection: &str, names: impl Iterator<Item = &'a str>) -> Result<String, Failure> {
        let partial = match self {
            Self::Full(name) => return Ok(name.clone()),
            Self::Partial(partial) => partial,
        };
        let noun = singular(collection);
        let fits = |name: &&str| short(name).starts_with(partial.as_str()) || short(name).ends_with(partial.as_str());
        let found: Vec<&str> = names.filter(fits).collect();
        match found.as_slice() {
            [] => Err(Failure::failed(format!("no {noun} has an id that begins or ends with {partial}"))
                .hint(format!("see `otactl {} list`", command(collection)))),
            [one] => Ok((*one).to_owned()),
            several => {
                Err(Failure::usage(format!("{} {noun}s have an id that begins or ends with {partial}", several.len()))
                    .details(several.iter().take(5).map(|name| short(name).to_owned()))
                    .hint("write more of it; ids made at about the same time begin alike, their ends differ"))
            }
        }
    }
}

/// Returns the noun for one thing of a collection.
fn singular(collection: &str) -> String {
    command(collection).replace('-', " ")
}

/// Returns the command for a collection: `enroll-token` for `enrollTokens`.
fn command(collection: &str) -> &str {
    match collection {
        "enrollTokens" => "enroll-token",
        "apiTokens" => "token",
        other => other.strip_suffix('s').unwrap_or(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "devices/01890a5d-ac96-774b-bcce-b302099a8057";
    const B: &str = "devices/01890a5d-ac97-774b-8cce-b302099a1111";

    fn pick(text: &str) -> Result<String, Failure> {
        IdRef::parse("devices", text)?.pick("devices", [A, B].into_iter())
    }

    #[test]
    fn a_release_is_named_in_two_ways() {
        let named: ReleaseRef = "gateway-fw@1.2.0-rc.1".parse().unwrap();
        assert_eq!(named.name(), "packages/gateway-fw/releases/1.2.0-rc.1");
        assert_eq!(named.name().parse::<ReleaseRef>().unwrap(), named);
        assert_eq!(short_release(&named.name()), "gateway-fw@1.2.0-rc.1");
    }

    #[test]
    fn a_wrong_release_says_which_part_is_wrong() {
        assert_eq!("gateway-fw".parse::<ReleaseRef>(), Err(ParseReleaseRefError::Form));
        assert!(matches!("../x@1.0.0".parse::<ReleaseRef>(), Err(ParseReleaseRefError::Package(_))));
        assert!(matches!("@1.0.0".parse::<ReleaseRef>(), Err(ParseReleaseRefError::Package(_))));
        assert!(matches!("x@1.0".parse::<ReleaseRef>(), Err(ParseReleaseRefError::Version(_))));
        assert!(matches!("x@".parse::<ReleaseRef>(), Err(ParseReleaseRefError::Version(_))));
    }

    #[test]
    fn a_device_is_found_by_uuid_name_beginning_or_end() {
        for text in [A, "01890a5d-ac96-774b-bcce-b302099a8057", "01890A5D-AC96", "8057", "b302099a8057"] {
            assert_eq!(pick(text).unwrap(), A, "{text}");
        }
    }

    #[test]
    fn a_beginning_that_fits_two_devices_lists_them() {
        let failure = pick("01890a5d").unwrap_err();
        assert_eq!(failure.exit().code(), 2);
        assert!(failure.to_string().contains("ac96") && failure.to_string().contains("ac97"), "{failure}");
    }

    #[test]
    fn an_unknown_id_is_a_failure_and_a_wrong_one_a_usage_error() {
        assert_eq!(pick("ffff").unwrap_err().exit().code(), 1);
        for wrong in ["", "abc", "gateway", "devices/", "rollouts/01890a5d-ac96-774b-bcce-b302099a8057", "../../etc"] {
            assert_eq!(pick(wrong).unwrap_err().exit().code(), 2, "{wrong}");
        }
    }
}
