//! API tokens and roles.

use chrono::{DateTime, Utc};
use ota_domain::{Scope, Violation, Violations, api_token, role::Role};

use crate::{admin::v1, convert};

/// How an error writes an API token's name.
pub const API_TOKEN: &str = "apiTokens/{api_token}";

impl From<Role> for v1::Role {
    fn from(role: Role) -> Self {
        match role {
            Role::Viewer => Self::Viewer,
            Role::Publisher => Self::Publisher,
            Role::Deployer => Self::Deployer,
            Role::Admin => Self::Admin,
        }
    }
}

/// A role from the wire; `None` when none was said or this server does not know it.
#[must_use]
pub fn role(wire: i32) -> Option<Role> {
    match v1::Role::try_from(wire).ok()? {
        v1::Role::Unspecified => None,
        v1::Role::Viewer => Some(Role::Viewer),
        v1::Role::Publisher => Some(Role::Publisher),
        v1::Role::Deployer => Some(Role::Deployer),
        v1::Role::Admin => Some(Role::Admin),
    }
}

/// An API token to create, from the wire.
///
/// # Errors
/// Every field at fault.
pub fn draft(wire: v1::ApiToken, now: DateTime<Utc>) -> Result<api_token::Draft, Vec<Violation>> {
    let mut violations = Violations::default();
    let expires_at = convert::optional_time("api_token.expire_time", wire.expire_time.as_ref(), &mut violations);
    let scope = scope(wire.scope.unwrap_or_default(), &mut violations);
    api_token::Draft::new(wire.display_name, role(wire.role), scope, expires_at, now, violations)
}

/// What a role is limited to, from the wire. An empty text limits nothing.
fn scope(wire: v1::Scope, violations: &mut Violations) -> Scope {
    let v1::Scope { device_selector, package_prefix } = wire;
    let mut scope = Scope::default();
    if !device_selector.is_empty() {
        scope.devices = violations.take("api_token.scope.device_selector", device_selector.parse());
    }
    if !package_prefix.is_empty() {
        scope.packages = violations.take("api_token.scope.package_prefix", package_prefix.parse());
    }
    scope
}

/// What a role is limited to, for the wire; `None` when it is not limited.
#[must_use]
pub fn wire_scope(scope: &Scope) -> Option<v1::Scope> {
    scope.is_limited().then(|| v1::Scope {
        device_selector: scope.devices.as_ref().map(ToString::to_string).unwrap_or_default(),
        package_prefix: scope.packages.as_ref().map(ToString::to_string).unwrap_or_default(),
    })
}

/// An API token for the wire.
#[must_use]
pub fn api_token(token: &api_token::ApiToken) -> v1::ApiToken {
    v1::ApiToken {
        name: format!("apiTokens/{}", token.id),
        display_name: token.display_name.clone(),
        role: v1::Role::from(token.role).into(),
        expire_time: token.expires_at.map(convert::timestamp),
        create_time: Some(convert::timestamp(token.created_at)),
        last_use_time: token.last_used_at.map(convert::timestamp),
        revoke_time: token.revoked_at.map(convert::timestamp),
        scope: wire_scope(&token.scope),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_is_the_same_on_the_way_back() {
        for known in Role::ALL {
            assert_eq!(role(v1::Role::from(known).into()), Some(known));
        }
        assert_eq!((role(0), role(99)), (None, None));
    }

    #[test]
    fn a_time_out_of_range_is_told_with_the_rest() {
        let expire_time = Some(prost_types::Timestamp { seconds: 0, nanos: -1 });
        let told = draft(v1::ApiToken { expire_time, ..Default::default() }, DateTime::UNIX_EPOCH).unwrap_err();
        assert_eq!(
            told.iter().map(|violation| violation.field.as_str()).collect::<Vec<_>>(),
            ["api_token.expire_time", "api_token.display_name", "api_token.role"]
        );
    }
}
