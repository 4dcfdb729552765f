//! Events.

use ota_domain::{
    digest::ParseDigestError,
    event::{Event, Seal},
};

use crate::{admin::v1, convert};

/// An event for the wire.
#[must_use]
pub fn event(event: Event) -> v1::Event {
    v1::Event {
        name: format!("events/{}", event.cursor.id),
        time: Some(convert::timestamp(event.at)),
        kind: event.kind,
        actor: event.actor,
        actor_display_name: event.actor_display_name,
        subject: event.subject,
        device: event.device.map(|device| format!("devices/{device}")).unwrap_or_default(),
        rollout: event.rollout.map(|rollout| format!("rollouts/{rollout}")).unwrap_or_default(),
        details: event.details.into_iter().collect(),
        request_id: event.request_id,
        cursor: event.cursor.to_string(),
        source_address: event.source_address,
    }
}

/// A seal for the wire.
#[must_use]
pub fn seal(seal: Seal) -> v1::EventSeal {
    v1::EventSeal {
        number: seal.number,
        time: Some(convert::timestamp(seal.at)),
        records: seal.records,
        previous_sha256: seal.previous.0.to_vec().into(),
        sha256: seal.sha256.0.to_vec().into(),
    }
}

/// A seal from the wire, for whoever checks the chain.
///
/// # Errors
/// When a hash has another length. A time out of range is taken for the earliest: no hash covers it.
pub fn read_seal(seal: v1::EventSeal) -> Result<Seal, ParseDigestError> {
    Ok(Seal {
        number: seal.number,
        at: seal.time.as_ref().and_then(convert::from_timestamp).unwrap_or_default(),
        previous: seal.previous_sha256.as_ref().try_into()?,
        sha256: seal.sha256.as_ref().try_into()?,
        records: seal.records,
    })
}
