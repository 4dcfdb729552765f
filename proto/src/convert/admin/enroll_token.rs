//! Enrolment tokens.

use chrono::{DateTime, Utc};
use ota_domain::{
    Violation, Violations,
    enroll_token::{Draft, EnrollToken, Request, State},
};

use crate::{admin::v1, convert};

/// How an error writes an enrolment token's name.
pub const ENROLL_TOKEN: &str = "enrollTokens/{enroll_token}";

impl From<State> for v1::EnrollTokenState {
    fn from(state: State) -> Self {
        match state {
            State::Active => Self::Active,
            State::UsedUp => Self::UsedUp,
            State::Expired => Self::Expired,
            State::Revoked => Self::Revoked,
        }
    }
}

/// An enrolment token to create, from the wire.
///
/// # Errors
/// Every field at fault.
pub fn draft(wire: v1::EnrollToken, now: DateTime<Utc>) -> Result<Draft, Vec<Violation>> {
    let mut violations = Violations::default();
    let expires_at = convert::optional_time("enroll_token.expire_time", wire.expire_time.as_ref(), &mut violations);
    let request = Request {
        description: wire.description,
        max_uses: wire.max_uses,
        expires_at,
        approval_required: wire.approval_required,
        hardware: wire.hardware,
        labels: wire.labels.into_iter().collect(),
    };
    Draft::new(request, now, violations)
}

/// An enrolment token for the wire, as it stands at `now`.
#[must_use]
pub fn enroll_token(token: &EnrollToken, now: DateTime<Utc>) -> v1::EnrollToken {
    v1::EnrollToken {
        name: format!("enrollTokens/{}", token.id),
        description: token.description.clone(),
        max_uses: token.standing.max_uses,
        uses: token.standing.uses,
        expire_time: Some(convert::timestamp(token.standing.expires_at)),
        approval_required: token.approval_required,
        hardware: token.hardware.iter().map(ToString::to_string).collect(),
        labels: token.labels.clone().into_iter().collect(),
        state: v1::EnrollTokenState::from(token.standing.state(now)).into(),
        create_time: Some(convert::timestamp(token.created_at)),
        creator: token.creator.clone(),
    }
}
