//! Why a device does not believe the server.

use ota_domain::TrustFault;

use crate::device::v1 as wire;

/// A fault for the wire.
#[must_use]
pub fn to_wire(fault: Option<TrustFault>) -> wire::TrustFault {
    match fault {
        None => wire::TrustFault::Unspecified,
        Some(TrustFault::Arbitrary) => wire::TrustFault::Arbitrary,
        Some(TrustFault::Rollback) => wire::TrustFault::Rollback,
        Some(TrustFault::Freeze) => wire::TrustFault::Freeze,
        Some(TrustFault::MixAndMatch) => wire::TrustFault::MixAndMatch,
        Some(TrustFault::OtherDevice) => wire::TrustFault::OtherDevice,
        Some(TrustFault::Hardware) => wire::TrustFault::Hardware,
        Some(TrustFault::Disagreement) => wire::TrustFault::Disagreement,
        Some(TrustFault::Endless) => wire::TrustFault::Endless,
        Some(TrustFault::Store) => wire::TrustFault::Store,
    }
}

/// Reads a fault. One that came after this program is a fault all the same: it counts as the most general one.
#[must_use]
pub fn from_wire(told: i32) -> Option<TrustFault> {
    match wire::TrustFault::try_from(told) {
        Ok(wire::TrustFault::Unspecified) => None,
        Ok(wire::TrustFault::Arbitrary) | Err(_) => Some(TrustFault::Arbitrary),
        Ok(wire::TrustFault::Rollback) => Some(TrustFault::Rollback),
        Ok(wire::TrustFault::Freeze) => Some(TrustFault::Freeze),
        Ok(wire::TrustFault::MixAndMatch) => Some(TrustFault::MixAndMatch),
        Ok(wire::TrustFault::OtherDevice) => Some(TrustFault::OtherDevice),
        Ok(wire::TrustFault::Hardware) => Some(TrustFault::Hardware),
        Ok(wire::TrustFault::Disagreement) => Some(TrustFault::Disagreement),
        Ok(wire::TrustFault::Endless) => Some(TrustFault::Endless),
        Ok(wire::TrustFault::Store) => Some(TrustFault::Store),
    }
}

/// The fault's name in the wire's enum, without the prefix. Empty for none.
#[must_use]
pub fn name(fault: Option<TrustFault>) -> String {
    fault.map(|fault| fault.as_str().to_ascii_uppercase()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_is_read_as_it_was_written_and_has_the_name_of_the_wire() {
        for number in 0..10 {
            let told = wire::TrustFault::try_from(number).unwrap();
            let fault = from_wire(number);
            assert_eq!(to_wire(fault), told);
            let name = match name(fault) {
                none if none.is_empty() => "TRUST_FAULT_UNSPECIFIED".to_owned(),
                name => format!("TRUST_FAULT_{name}"),
            };
            assert_eq!(told.as_str_name(), name);
        }
        assert!(wire::TrustFault::try_from(10).is_err());
    }

    #[test]
    fn a_fault_of_a_newer_device_is_not_taken_for_belief() {
        assert_eq!(from_wire(10), Some(TrustFault::Arbitrary));
    }
}
