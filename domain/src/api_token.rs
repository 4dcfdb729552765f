//! A token that stands for a person or a program.

use chrono::{DateTime, Utc};

use crate::{ApiTokenId, Scope, Violation, Violations, role::Role};

/// Most characters in the name of who uses a token.
pub const MAX_DISPLAY_NAME: usize = 128;

/// A token that stands for a person or a program. Its secret is nowhere; the server keeps the secret's SHA-256.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiToken {
    /// Its id.
    pub id: ApiTokenId,
    /// Who or what uses it.
    pub display_name: String,
    /// What it may do.
    pub role: Role,
    /// What its role is limited to.
    pub scope: Scope,
    /// When it was created.
    pub created_at: DateTime<Utc>,
    /// When it stops working.
    pub expires_at: Option<DateTime<Utc>>,
    /// When it was last used, to the minute.
    pub last_used_at: Option<DateTime<Utc>>,
    /// When it was revoked.
    pub revoked_at: Option<DateTime<Utc>>,
}

impl ApiToken {
    /// Whether it works at `now`.
    #[must_use]
    pub fn works(&self, now: DateTime<Utc>) -> bool {
        self.revoked_at.is_none() && self.expires_at.is_none_or(|end| now < end)
    }
}

/// A token to create. Every one of them keeps the rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    display_name: String,
    role: Role,
    scope: Scope,
    expires_at: Option<DateTime<Utc>>,
}

impl Draft {
    /// Reads a draft. `violations` holds what is already known to be wrong with the request.
    ///
    /// # Errors
    /// Every field at fault, as `api_token.<field>`.
    pub fn new(
        display_name: String,
        role: Option<Role>,
        scope: Scope,
        expires_at: Option<DateTime<Utc>>,
        now: DateTime<Utc>,
        mut violations: Violations,
    ) -> Result<Self, Vec<Violation>> {
        violations.require(
            (1..=MAX_DISPLAY_NAME).contains(&display_name.chars().count())
                && !display_name.chars().any(char::is_control)
                && !display_name.trim().is_empty(),
            "api_token.display_name",
            format!(
                "must have 1 to {MAX_DISPLAY_NAME} characters, not all of them spaces and none a control character"
            ),
        );
        violations.require(
            role.is_some(),
            "api_token.role",
            format!("must be one of {}", Role::ALL.map(Role::as_str).join(", ")),
        );
        violations.require(
            role != Some(Role::Admin) || !scope.is_limited(),
            "api_token.scope",
            "must be left out for an admin, who may do everything",
        );
        violations.require(
            expires_at.is_none_or(|end| end > now),
            "api_token.expire_time",
            "must lie in the future; leave it out for a token that never expires",
        );
        violations.finish(role.map(|role| Self { display_name, role, scope, expires_at }))
    }

    /// The token of this draft, with the id `id`, made at `now`.
    #[must_use]
    pub fn into_token(self, id: ApiTokenId, now: DateTime<Utc>) -> ApiToken {
        let Self { display_name, role, scope, expires_at } = self;
        ApiToken { id, display_name, role, scope, created_at: now, expires_at, last_used_at: None, revoked_at: None }
    }
}

#[cfg(test)]
mod tests {
    use chrono::Duration;
    use uuid::Uuid;

    use super::*;

    const NOW: DateTime<Utc> = DateTime::UNIX_EPOCH;

    fn draft(name: &str, role: Option<Role>, expires_at: Option<DateTime<Utc>>) -> Result<Draft, Vec<String>> {
        Draft::new(name.to_owned(), role, Scope::default(), expires_at, NOW, Violations::default())
            .map_err(|violations| violations.into_iter().map(|violation| violation.field).collect())
    }

    #[test]
    fn every_field_at_fault_is_told() {
        let all = ["api_token.display_name", "api_token.role", "api_token.expire_time"].map(str::to_owned).to_vec();
        for name in ["", "  ", "two\nlines", &"x".repeat(129)] {
            assert_eq!(draft(name, None, Some(NOW)), Err(all.clone()), "{name:?}");
        }
        draft(&"é".repeat(128), Some(Role::Viewer), None).unwrap();
    }

    #[test]
    fn an_admin_cannot_be_limited() {
        let scope = Scope { devices: Some("site=lab".parse().unwrap()), packages: None };
        for role in Role::ALL {
            let made = Draft::new("x".to_owned(), Some(role), scope.clone(), None, NOW, Violations::default());
            assert_eq!(made.is_err(), role == Role::Admin, "{role:?}");
        }
    }

    #[test]
    fn a_token_works_until_its_end_or_its_revocation() {
        let end = NOW + Duration::hours(1);
        let token = draft("ci", Some(Role::Publisher), Some(end)).unwrap().into_token(ApiTokenId(Uuid::nil()), NOW);
        assert!(token.works(NOW) && token.works(end - Duration::seconds(1)) && !token.works(end));
        assert!(!ApiToken { revoked_at: Some(NOW), ..token }.works(NOW));
    }
}
