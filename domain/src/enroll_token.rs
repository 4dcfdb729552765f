//! A token with which machines join the fleet, and whether it works.

use chrono::{DateTime, Duration, Utc};

use crate::{EnrollTokenId, Hardware, Labels, Violation, Violations, label, text};

/// Most devices that may enrol with one token.
pub const MAX_USES: i32 = 1_000_000;
/// How long a token works when nobody says.
pub const DEFAULT_LIFE: Duration = Duration::hours(24);
/// Most characters in a description.
pub const MAX_DESCRIPTION: usize = 256;
/// Most hardware types a token names.
pub const MAX_HARDWARE: usize = 64;

/// Whether a token works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Works.
    Active,
    /// Has been used as often as it may.
    UsedUp,
    /// Its time has passed.
    Expired,
    /// Was revoked.
    Revoked,
}

/// What decides whether a token works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// How many devices may enrol with it.
    pub max_uses: i32,
    /// How many have.
    pub uses: i32,
    /// When it stops working.
    pub expires_at: DateTime<Utc>,
    /// When it was revoked.
    pub revoked_at: Option<DateTime<Utc>>,
}

impl Standing {
    /// The token's state at `now`. What a person did is told before what time did.
    #[must_use]
    pub fn state(&self, now: DateTime<Utc>) -> State {
        if self.revoked_at.is_some() {
            State::Revoked
        } else if self.uses >= self.max_uses {
            State::UsedUp
        } else if now >= self.expires_at {
            State::Expired
        } else {
            State::Active
        }
    }
}

/// A token with which machines join the fleet. Its secret is nowhere; the server keeps the secret's SHA-256.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnrollToken {
    /// Its id.
    pub id: EnrollTokenId,
    /// What it is for.
    pub description: String,
    /// What decides whether it works.
    pub standing: Standing,
    /// Its devices wait for approval.
    pub approval_required: bool,
    /// Hardware types that may use it. Empty means any.
    pub hardware: Vec<Hardware>,
    /// Labels its devices start with.
    pub labels: Labels,
    /// When it was created.
    pub created_at: DateTime<Utc>,
    /// Who created it, by resource name.
    pub creator: String,
}

/// What an operator asks for when creating a token, as yet unchecked.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// What it is for.
    pub description: String,
    /// How many devices may enrol with it. 0 means 1.
    pub max_uses: i32,
    /// When it stops working. `None` means [`DEFAULT_LIFE`] from its creation.
    pub expires_at: Option<DateTime<Utc>>,
    /// Its devices wait for approval.
    pub approval_required: bool,
    /// Hardware types that may use it. Empty means any.
    pub hardware: Vec<String>,
    /// Labels its devices start with.
    pub labels: Labels,
}

/// A token to create. Every one of them keeps the rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    description: String,
    max_uses: i32,
    expires_at: DateTime<Utc>,
    approval_required: bool,
    hardware: Vec<Hardware>,
    labels: Labels,
}

impl Draft {
    /// Reads a draft. `violations` holds what is already known to be wrong with the request.
    ///
    /// # Errors
    /// Every field at fault, as `enroll_token.<field>`.
    pub fn new(request: Request, now: DateTime<Utc>, mut violations: Violations) -> Result<Self, Vec<Violation>> {
        violations.take("enroll_token.description", text::check(&request.description, MAX_DESCRIPTION));
        violations.require(
            (0..=MAX_USES).contains(&request.max_uses),
            "enroll_token.max_uses",
            format!("must be between 0 and {MAX_USES}; 0 means 1"),
        );
        violations.require(
            request.expires_at.is_none_or(|end| end > now),
            "enroll_token.expire_time",
            "must lie in the future",
        );
        violations.require(
            request.hardware.len() <= MAX_HARDWARE,
            "enroll_token.hardware",
            format!("must name at most {MAX_HARDWARE} hardware types"),
        );
        let hardware = request.hardware.iter().enumerate().filter_map(|(index, name)| {
            violations.take(format!("enroll_token.hardware[{index}]"), name.parse::<Hardware>())
        });
        let hardware = hardware.collect();
        label::check(&request.labels, "enroll_token.labels", &mut violations);
        violations.finish(Some(Self {
            description: request.description,
            max_uses: request.max_uses.max(1),
            expires_at: request.expires_at.unwrap_or(now + DEFAULT_LIFE),
            approval_required: request.approval_required,
            hardware,
            labels: request.labels,
        }))
    }

    /// The token of this draft, with the id `id`, made by `creator` at `now`.
    #[must_use]
    pub fn into_token(self, id: EnrollTokenId, creator: String, now: DateTime<Utc>) -> EnrollToken {
        let Self { description, max_uses, expires_at, approval_required, hardware, labels } = self;
        let standing = Standing { max_uses, uses: 0, expires_at, revoked_at: None };
        EnrollToken { id, description, standing, approval_required, hardware, labels, created_at: now, creator }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: DateTime<Utc> = DateTime::UNIX_EPOCH;

    #[test]
    fn what_a_person_did_is_told_before_what_time_did() {
        let fresh = Standing { max_uses: 1, uses: 0, expires_at: NOW + DEFAULT_LIFE, revoked_at: None };
        assert_eq!(fresh.state(NOW), State::Active);
        assert_eq!(fresh.state(fresh.expires_at), State::Expired);
        let used = Standing { uses: 1, ..fresh };
        assert_eq!(used.state(fresh.expires_at), State::UsedUp);
        assert_eq!(Standing { revoked_at: Some(NOW), ..used }.state(NOW), State::Revoked);
    }

    #[test]
    fn every_field_at_fault_is_told() {
        let request = Request {
            description: "x".repeat(257),
            max_uses: -1,
            expires_at: Some(NOW),
            approval_required: false,
            hardware: vec!["rpi4".to_owned(), "../x".to_owned()],
            labels: Labels::from([("a b".to_owned(), "c".to_owned())]),
        };
        let told = Draft::new(request, NOW, Violations::default()).unwrap_err();
        assert_eq!(
            told.iter().map(|violation| violation.field.as_str()).collect::<Vec<_>>(),
            [
                "enroll_token.description",
                "enroll_token.max_uses",
                "enroll_token.expire_time",
                "enroll_token.hardware[1]",
                "enroll_token.labels[\"a b\"]",
            ]
        );
    }

    #[test]
    fn a_token_works_once_and_for_a_day_when_nobody_says() {
        let draft = Draft::new(Request::default(), NOW, Violations::default()).unwrap();
        assert_eq!((draft.max_uses, draft.expires_at), (1, NOW + DEFAULT_LIFE));
    }
}
