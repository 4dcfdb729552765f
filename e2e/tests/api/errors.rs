//! The reasons that errors give.

use std::collections::BTreeSet;

use ota_proto::FILE_DESCRIPTOR_SET;
use ota_server::app::Reason;
use prost::Message as _;
use prost_types::FileDescriptorSet;

/// The reasons that the protos of both APIs name.
fn documented() -> BTreeSet<String> {
    let set = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).unwrap();
    let enums = set.file.iter().flat_map(|file| &file.enum_type).filter(|kind| kind.name() == "ErrorReason");
    let values = enums.flat_map(|kind| &kind.value).filter(|value| value.number() != 0);
    values.map(|value| value.name().strip_prefix("ERROR_REASON_").unwrap().to_owned()).collect()
}

#[test]
fn every_reason_is_documented_and_every_documented_reason_is_given() {
    let given: BTreeSet<String> = Reason::ALL.iter().map(|reason| reason.as_str().to_owned()).collect();
    assert_eq!(given, documented());
}
