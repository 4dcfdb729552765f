//! The API's messages as JSON, with the field names that the proto JSON mapping gives them.
//!
//! Goes through the descriptors, so that no second copy of a message exists that could differ. Fields come in the order
//! of their numbers, entries of maps by key, numbers of 64 bits as strings, and a field without presence is there even
//! when it is empty, so that `jq .devices[].online` always finds a value.

use std::{collections::BTreeMap, sync::LazyLock};

use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, FieldDescriptor, MessageDescriptor, SerializeOptions};
use serde::{
    Serialize, Serializer,
    ser::{SerializeMap, SerializeSeq},
};
use serde_json::Value;

use super::Resource;

static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| {
    DescriptorPool::decode(ota_proto::FILE_DESCRIPTOR_SET).expect("the descriptors are generated with the code")
});

/// One thing, ready to be written.
#[derive(Debug)]
pub struct Document {
    descriptor: Option<MessageDescriptor>,
    value: Value,
}

impl Document {
    /// Converts a message. `full_name` is its name in the API, such as `ota.admin.v1.Device`.
    pub fn new(full_name: &str, message: &impl Message) -> Self {
        let descriptor = POOL.get_message_by_name(full_name).expect("the API has every message that is shown");
        let mut dynamic = DynamicMessage::new(descriptor.clone());
        dynamic.merge(message.encode_to_vec().as_slice()).expect("a message is read back as it was written");
        let options = SerializeOptions::new().skip_default_fields(false);
        let value = dynamic
            .serialize_with_options(serde_json::value::Serializer, &options)
            .expect("every message of the API has a JSON form");
        Self { descriptor: Some(descriptor), value }
    }

    /// Takes a thing that is no message of the API.
    pub fn plain(value: Value) -> Self {
        Self { descriptor: None, value }
    }

    /// Writes it on one line.
    pub fn to_line(&self) -> String {
        serde_json::to_string(self).expect("a JSON value has a text")
    }
}

impl Serialize for Document {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        InOrder { value: &self.value, message: self.descriptor.as_ref() }.serialize(serializer)
    }
}

/// A list as one document, under the name that the API's own list answers give it.
#[derive(Debug)]
pub struct List {
    plural: &'static str,
    documents: Vec<Document>,
}

impl List {
    /// Converts a list.
    pub fn new<R: Resource>(resources: &[R]) -> Self {
        let documents = resources.iter().map(Resource::document).collect();
        Self { plural: R::PLURAL, documents }
    }
}

impl Serialize for List {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(1))?;
        map.serialize_entry(self.plural, &self.documents)?;
        map.end()
    }
}

/// A JSON value whose objects are written in the order of the message's fields; a map's entries by key.
struct InOrder<'a> {
    value: &'a Value,
    message: Option<&'a MessageDescriptor>,
}

impl Serialize for InOrder<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match (self.value, self.message) {
            (Value::Object(object), Some(message)) => {
                let mut map = serializer.serialize_map(Some(object.len()))?;
                for field in message.fields() {
                    if let Some(value) = object.get(field.json_name()) {
                        map.serialize_entry(field.json_name(), &FieldInOrder { value, field: &field })?;
                    }
                }
                map.end()
            }
            (value, _) => value.serialize(serializer),
        }
    }
}

/// The value of one field.
struct FieldInOrder<'a> {
    value: &'a Value,
    field: &'a FieldDescriptor,
}

impl Serialize for FieldInOrder<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let kind = self.field.kind();
        let message = kind.as_message();
        if let (true, Value::Object(entries)) = (self.field.is_map(), self.value) {
            entries.iter().collect::<BTreeMap<_, _>>().serialize(serializer)
        } else if let Value::Array(items) = self.value {
            let mut sequence = serializer.serialize_seq(Some(items.len()))?;
            for value in items {
                sequence.serialize_element(&InOrder { value, message })?;
            }
            sequence.end()
        } else {
            InOrder { value: self.value, message }.serialize(serializer)
        }
    }
}
