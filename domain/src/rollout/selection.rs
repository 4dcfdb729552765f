//! Decides which devices take part in a rollout.

use std::collections::BTreeMap;

use super::Target;
use crate::{DeviceId, Hardware, device, release};

/// A device that may be chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Its id.
    pub id: DeviceId,
    /// Its admission to the fleet.
    pub state: device::State,
    /// Its hardware type.
    pub hardware: Hardware,
}

/// Who takes part.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Selection {
    /// The devices chosen, in the order of their ids.
    pub chosen: Vec<DeviceId>,
    /// How many match but do not fit the release.
    pub unfit: u64,
}

/// Some of the devices that a person named cannot take part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SelectionError {
    /// They do not exist.
    Unknown(Vec<DeviceId>),
    /// They are not accepted.
    NotAccepted(Vec<(DeviceId, device::State)>),
    /// The release does not fit them.
    Unfit(Vec<(DeviceId, Hardware)>),
}

/// Chooses among `candidates` for a release made for `hardware`.
///
/// Who names devices means each of them, so one that cannot take part is an error. Who describes devices means those that
/// are fit for it, so the others are left out and counted.
///
/// # Errors
/// All the named devices that share the first fault found, in the order of [`SelectionError`].
pub fn select(target: &Target, candidates: Vec<Candidate>, hardware: &[Hardware]) -> Result<Selection, SelectionError> {
    match target {
        Target::Devices(named) => select_named(named, candidates, hardware),
        Target::Selector(_) | Target::All => {
            let mut selection = Selection::default();
            for candidate in candidates {
                if candidate.state != device::State::Accepted {
                    continue;
                }
                if release::fits(hardware, &candidate.hardware) {
                    selection.chosen.push(candidate.id);
                } else {
                    selection.unfit += 1;
                }
            }
            selection.chosen.sort_unstable();
            Ok(selection)
        }
    }
}

fn select_named(
    named: &[DeviceId],
    candidates: Vec<Candidate>,
    hardware: &[Hardware],
) -> Result<Selection, SelectionError> {
    let mut by_id: BTreeMap<DeviceId, Candidate> =
        candidates.into_iter().map(|candidate| (candidate.id, candidate)).collect();
    let found: BTreeMap<DeviceId, Candidate> = named.iter().filter_map(|id| by_id.remove_entry(id)).collect();
    let unknown: Vec<DeviceId> = named.iter().copied().filter(|id| !found.contains_key(id)).collect();
    if !unknown.is_empty() {
        return Err(SelectionError::Unknown(unknown));
    }
    let not_accepted: Vec<_> = found
        .values()
        .filter(|candidate| candidate.state != device::State::Accepted)
        .map(|candidate| (candidate.id, candidate.state))
        .collect();
    if !not_accepted.is_empty() {
        return Err(SelectionError::NotAccepted(not_accepted));
    }
    let unfit: Vec<_> = found
        .values()
        .filter(|candidate| !release::fits(hardware, &candidate.hardware))
        .map(|candidate| (candidate.id, candidate.hardware.clone()))
        .collect();
    if !unfit.is_empty() {
        return Err(SelectionError::Unfit(unfit));
    }
    Ok(Selection { chosen: found.into_keys().collect(), unfit: 0 })
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn id(number: u128) -> DeviceId {
        DeviceId(Uuid::from_u128(number))
    }

    fn hardware(name: &str) -> Hardware {
        name.parse().unwrap()
    }

    fn candidate(number: u128, state: device::State, name: &str) -> Candidate {
        Candidate { id: id(number), state, hardware: hardware(name) }
    }

    fn fleet() -> Vec<Candidate> {
        use device::State::{Accepted, Pending};
        vec![candidate(2, Accepted, "rpi4"), candidate(1, Accepted, "rpi5"), candidate(3, Pending, "rpi4")]
    }

    #[test]
    fn a_description_leaves_out_who_is_unfit_and_who_is_not_accepted() {
        let selection = select(&Target::All, fleet(), &[hardware("rpi4")]);
        assert_eq!(selection, Ok(Selection { chosen: vec![id(2)], unfit: 1 }));
        let any_hardware = select(&Target::All, fleet(), &[]);
        assert_eq!(any_hardware, Ok(Selection { chosen: vec![id(1), id(2)], unfit: 0 }));
    }

    #[test]
    fn each_named_device_has_to_take_part() {
        let named = |numbers: &[u128]| Target::Devices(numbers.iter().copied().map(id).collect());
        let for_rpi4 = [hardware("rpi4")];
        assert_eq!(select(&named(&[2]), fleet(), &for_rpi4), Ok(Selection { chosen: vec![id(2)], unfit: 0 }));
        assert_eq!(select(&named(&[1, 8, 9]), fleet(), &for_rpi4), Err(SelectionError::Unknown(vec![id(8), id(9)])));
        assert_eq!(
            select(&named(&[1, 3]), fleet(), &for_rpi4),
            Err(SelectionError::NotAccepted(vec![(id(3), device::State::Pending)]))
        );
        assert_eq!(
            select(&named(&[1, 2]), fleet(), &for_rpi4),
            Err(SelectionError::Unfit(vec![(id(1), hardware("rpi5"))]))
        );
    }
}
