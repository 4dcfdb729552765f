//! How long updates stay in each phase.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use ota_domain::deployment::State;
use prometheus_client::{
    encoding::{DescriptorEncoder, NoLabelSet},
    metrics::MetricType,
    registry::Unit,
};

/// Upper bounds of the classes, in seconds: from a device that is at it to one that was off for a day.
const BOUNDS: [f64; 9] = [1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 21_600.0, 86_400.0];

/// The phases that devices reported the end of to this replica, by the state they left.
#[derive(Debug, Default)]
pub struct Phases(Mutex<BTreeMap<&'static str, Durations>>);

#[derive(Debug, Default)]
struct Durations {
    classes: [u64; BOUNDS.len() + 1],
    seconds: f64,
}

impl Phases {
    /// Counts a phase that took so long.
    pub fn ended(&self, state: State, took: Duration) {
        let seconds = took.as_secs_f64();
        let class = BOUNDS.iter().position(|bound| seconds <= *bound).unwrap_or(BOUNDS.len());
        let mut phases = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let durations = phases.entry(state.as_str()).or_default();
        durations.classes[class] += 1;
        durations.seconds += seconds;
    }

    /// Writes the family.
    pub(super) fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "How long updates stayed in a phase whose end devices reported to this replica.";
        let unit = Some(&Unit::Seconds);
        let mut family = encoder.encode_descriptor("ota_update_phase_duration", help, unit, MetricType::Histogram)?;
        for (phase, durations) in self.0.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let bounds = BOUNDS.into_iter().chain([f64::INFINITY]);
            let classes: Vec<_> = bounds.zip(durations.classes).collect();
            let count = durations.classes.iter().sum();
            let labels = [("phase", *phase)];
            family.encode_family(&labels)?.encode_histogram::<NoLabelSet>(durations.seconds, count, &classes, None)?;
        }
        Ok(())
    }
}
