//! Turns an enrolment token into a device.

use chrono::{DateTime, Utc};
use ota_domain::{
    DeviceId, device,
    enroll_token::{EnrollToken, State},
    enrollment::{Admission, Enrollment},
    event::Kind,
    release,
};
use sqlx::{PgConnection, PgTransaction};
use uuid::Uuid;

use super::{App, Error, Reason, Result, access, identity};
use crate::{
    auth::{Caller, Principal},
    ca::{DeviceKey, Issued},
    db::{self, event::NewEvent},
};

/// A machine that is part of the fleet, or may become one.
#[derive(Debug, Clone)]
pub struct Enrolled {
    /// The device it is.
    pub device: DeviceId,
    /// Whether it may work at once.
    pub admission: Admission,
    /// Its certificate.
    pub certificate: Issued,
}

/// Registers a machine as a device.
///
/// A machine is known by its key: who asks again with the same one gets the same device, and the token is not used a second
/// time. That also holds once the token has ended, as an answer may have been lost before it did.
///
/// A machine that says it is a device's, and has another key, waits for approval whatever the token says: it may have been
/// wiped, it may be another. The device works on.
///
/// # Errors
/// `ENROLL_TOKEN_INVALID`, `ENROLL_TOKEN_EXPIRED`, `ENROLL_TOKEN_REVOKED`, `ENROLL_TOKEN_USED_UP`,
/// `HARDWARE_NOT_ALLOWED`; `DEVICE_REJECTED` or `DEVICE_DECOMMISSIONED` for a machine that was sent away.
pub async fn enroll(
    app: &App,
    caller: &Caller,
    enrollment: &Enrollment,
    key: &DeviceKey,
    now: DateTime<Utc>,
) -> Result<Enrolled> {
    let mut transaction = app.pool.begin().await?;
    let token = proven_token(&mut transaction, enrollment).await?;
    if let Some(known) = db::device::by_key(&mut transaction, key).await? {
        return again(app, transaction, key, known, now).await;
    }
    if let Some(refusal) = refusal(&token, now) {
        return Err(refusal);
    }
    if !release::fits(&token.hardware, &enrollment.hardware) {
        return Err(Error::refused(
            Reason::HardwareNotAllowed,
            format!("the enrolment token is not for the hardware type {}", enrollment.hardware),
        ));
    }
    if !db::enroll_token::count_use(&mut transaction, token.id, now).await? {
        // Another machine took the last use, or the token was revoked, since it was read. That machine may be this one
        // in an earlier try, whose answer is then good for both.
        return match db::device::by_key(&mut transaction, key).await? {
            Some(known) => again(app, transaction, key, known, now).await,
            None => Err(used_meanwhile(&mut transaction, &token, now).await?),
        };
    }
    let device = DeviceId(Uuid::now_v7());
    let conflicts = db::device::same_machine(&mut transaction, &enrollment.hardware_id).await?;
    let waits = token.approval_required || !conflicts.is_empty();
    let state = if waits { device::State::Pending } else { device::State::Accepted };
    if !db::device::insert(&mut transaction, device, enrollment, key, state, &token.labels, now).await? {
        // The same machine got in by another request since it was looked for. Its use is taken back.
        transaction.rollback().await?;
        return known_by_now(app, key, now).await;
    }
    let caller = Caller { principal: Principal::Device(device), ..caller.clone() };
    let event = NewEvent::new(Kind::DeviceEnrolled, format!("devices/{device}"))
        .device(device)
        .detail("enroll_token", format!("enrollTokens/{}", token.id))
        .detail("hardware", &enrollment.hardware)
        .detail("state", state.as_str());
    db::event::record(&mut transaction, &caller, event).await?;
    if !conflicts.is_empty() {
        let names = conflicts.iter().map(|other| format!("devices/{other}")).collect::<Vec<_>>().join(",");
        let event = NewEvent::new(Kind::DeviceIdentityConflict, format!("devices/{device}"))
            .device(device)
            .detail("hardware_id", &enrollment.hardware_id)
            .detail("devices", names);
        db::event::record(&mut transaction, &caller, event).await?;
    }
    db::notify::events(&mut transaction).await?;
    db::notify::devices(&mut transaction, &[device]).await?;
    again(app, transaction, key, (device, state), now).await
}

/// The token, when the machine knows its secret. An unknown token and a wrong secret are told apart to nobody.
async fn proven_token(connection: &mut PgConnection, enrollment: &Enrollment) -> Result<EnrollToken> {
    let invalid = || Error::refused(Reason::EnrollTokenInvalid, "no such enrolment token, or its secret is wrong");
    let kept = db::enroll_token::secret(connection, enrollment.token).await?.ok_or_else(invalid)?;
    if !access::proves(&enrollment.secret, kept) {
        return Err(invalid());
    }
    db::enroll_token::get(connection, enrollment.token).await?.ok_or_else(invalid)
}

/// Why the token lets nobody in at `now`, if so.
fn refusal(token: &EnrollToken, now: DateTime<Utc>) -> Option<Error> {
    match token.standing.state(now) {
        State::Active => None,
        State::Revoked => Some(Error::refused(Reason::EnrollTokenRevoked, "the enrolment token was revoked")),
        State::Expired => Some(Error::refused(
            Reason::EnrollTokenExpired,
            format!("the enrolment token expired at {}", token.standing.expires_at),
        )),
        State::UsedUp => Some(Error::refused(
            Reason::EnrollTokenUsedUp,
            format!("the enrolment token has been used as often as it may: {}", token.standing.max_uses),
        )),
    }
}

async fn used_meanwhile(connection: &mut PgConnection, token: &EnrollToken, now: DateTime<Utc>) -> Result<Error> {
    let token = db::enroll_token::get(connection, token.id).await?;
    Ok(token
        .and_then(|token| refusal(&token, now))
        .unwrap_or_else(|| Error::refused(Reason::EnrollTokenUsedUp, "the enrolment token's last use was just taken")))
}

async fn known_by_now(app: &App, key: &DeviceKey, now: DateTime<Utc>) -> Result<Enrolled> {
    let mut transaction = app.pool.begin().await?;
    match db::device::by_key(&mut transaction, key).await? {
        Some(known) => again(app, transaction, key, known, now).await,
        None => Err(Error::refused(Reason::DeviceDecommissioned, "the device was just taken out of the fleet")),
    }
}

/// What a machine is told that is a device already, or has just become one. It gets a fresh certificate in any case: whoever
/// asks again may have lost the last one. Commits.
async fn again(
    app: &App,
    mut transaction: PgTransaction<'_>,
    key: &DeviceKey,
    (device, state): (DeviceId, device::State),
    now: DateTime<Utc>,
) -> Result<Enrolled> {
    let admission = match state {
        device::State::Pending => Admission::Pending,
        device::State::Accepted => Admission::Accepted,
        device::State::Rejected => {
            return Err(Error::refused(Reason::DeviceRejected, "an operator rejected the device"));
        }
        device::State::Decommissioned => {
            return Err(Error::refused(Reason::DeviceDecommissioned, "the device was taken out of the fleet"));
        }
    };
    let certificate = identity::certify(app, &mut transaction, device, key, now).await?;
    transaction.commit().await?;
    Ok(Enrolled { device, admission, certificate })
}
