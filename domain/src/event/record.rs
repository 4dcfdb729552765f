//! The form in which an event is hashed.

use std::collections::BTreeMap;

use chrono::SecondsFormat;
use serde::Serialize;

use super::Event;

/// An event's members in the order of their names, which is the order in which they are written.
#[derive(Serialize)]
struct Record<'a> {
    actor: &'a str,
    actor_display_name: &'a str,
    cursor: String,
    details: &'a BTreeMap<String, String>,
    device: String,
    kind: &'a str,
    request_id: &'a str,
    rollout: String,
    source_address: &'a str,
    subject: &'a str,
    time: String,
}

impl Event {
    /// The event as it is hashed: one JSON object without white space, its members and those of `details` in the order of
    /// their names, every value a text, and of the characters only those escaped that have to be (RFC 8785 §3.2). Two
    /// events have the same record only when they are the same in everything.
    ///
    /// It never changes once released: a record of today has to hash to a seal of years ago.
    ///
    /// # Panics
    /// Never: texts and maps of texts can always be written as JSON.
    #[must_use]
    pub fn record(&self) -> String {
        let record = Record {
            actor: &self.actor,
            actor_display_name: &self.actor_display_name,
            cursor: self.cursor.to_string(),
            details: &self.details,
            device: self.device.map(|device| device.to_string()).unwrap_or_default(),
            kind: &self.kind,
            request_id: &self.request_id,
            rollout: self.rollout.map(|rollout| rollout.to_string()).unwrap_or_default(),
            source_address: &self.source_address,
            subject: &self.subject,
            time: self.at.to_rfc3339_opts(SecondsFormat::Nanos, true),
        };
        serde_json::to_string(&record).expect("texts and maps of texts can be written as JSON")
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;
    use crate::{DeviceId, RolloutId, event::Cursor};

    fn event() -> impl Strategy<Value = Event> {
        // Few and nasty texts, so that events come near to each other.
        let text = || prop_oneof![Just(String::new()), "[a\",:{}\\\\\u{0}é\u{1F512}\u{2028}]{0,3}", any::<String>()];
        let id = || prop_oneof![Just(None), (0..3_u128).prop_map(|id| Some(Uuid::from_u128(id)))];
        (
            (0..3_u64, 0..3_i64, 0..3_i64, 0..3_u32),
            (text(), text(), text(), text(), text(), text()),
            (id(), id()),
            prop::collection::btree_map(text(), text(), 0..3),
        )
            .prop_map(|((transaction, number, seconds, nanos), texts, (device, rollout), details)| Event {
                cursor: Cursor { transaction, id: number },
                at: DateTime::from_timestamp(seconds, nanos).unwrap(),
                kind: texts.0,
                actor: texts.1,
                actor_display_name: texts.2,
                subject: texts.3,
                device: device.map(DeviceId),
                rollout: rollout.map(RolloutId),
                details,
                request_id: texts.4,
                source_address: texts.5,
            })
    }

    proptest! {
        #[test]
        fn different_events_have_different_records(one in event(), other in event()) {
            prop_assert_eq!(one == other, one.record() == other.record());
        }

        #[test]
        fn every_change_of_a_member_changes_the_record(one in event(), other in event()) {
            let changed = [
                Event { cursor: other.cursor, ..one.clone() },
                Event { at: other.at, ..one.clone() },
                Event { kind: other.kind, ..one.clone() },
                Event { actor: other.actor, ..one.clone() },
                Event { actor_display_name: other.actor_display_name, ..one.clone() },
                Event { subject: other.subject, ..one.clone() },
                Event { device: other.device, ..one.clone() },
                Event { rollout: other.rollout, ..one.clone() },
                Event { details: other.details, ..one.clone() },
                Event { request_id: other.request_id, ..one.clone() },
                Event { source_address: other.source_address, ..one.clone() },
            ];
            for changed in changed {
                prop_assert_eq!(one == changed, one.record() == changed.record());
            }
        }

        #[test]
        fn a_record_is_json_that_says_the_same(event in event()) {
            let read: serde_json::Value = serde_json::from_str(&event.record()).unwrap();
            prop_assert_eq!(&read["kind"], &serde_json::Value::String(event.kind.clone()));
            prop_assert_eq!(read["details"].as_object().unwrap().len(), event.details.len());
        }
    }

    #[test]
    fn the_form_stays_what_it_was() {
        let event = Event {
            cursor: Cursor { transaction: 1042, id: 77 },
            at: DateTime::from_timestamp(1_767_225_600, 123_456_000).unwrap(),
            kind: "device.labeled".to_owned(),
            actor: "apiTokens/01939000-0000-7000-8000-000000000001".to_owned(),
            actor_display_name: "ada \"the\" first".to_owned(),
            subject: "devices/00000000-0000-0000-0000-000000000007".to_owned(),
            device: Some(DeviceId(Uuid::from_u128(7))),
            rollout: None,
            details: [("before", ""), ("after", "ring=é")]
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .into(),
            request_id: "r-1".to_owned(),
            source_address: "192.0.2.7".to_owned(),
        };
        assert_eq!(
            event.record(),
            r#"{"actor":"apiTokens/01939000-0000-7000-8000-000000000001","actor_display_name":"ada \"the\" first","#
                .to_owned()
                + r#""cursor":"1042.77","details":{"after":"ring=é","before":""},"#
                + r#""device":"00000000-0000-0000-0000-000000000007","kind":"device.labeled","request_id":"r-1","rollout":"","#
                + r#""source_address":"192.0.2.7","subject":"devices/00000000-0000-0000-0000-000000000007","#
                + r#""time":"2026-01-01T00:00:00.123456000Z"}"#
        );
    }
}
