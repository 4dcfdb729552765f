//! Events.

use ota_domain::event::Event;

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
        source_address: String::new(),
    }
}
