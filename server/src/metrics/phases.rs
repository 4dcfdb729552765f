//! How long updates stay in each phase.

use std::{fmt, time::Duration};

use ota_domain::deployment::State;
use prometheus_client::{
    encoding::{DescriptorEncoder, EncodeMetric as _},
    metrics::{MetricType, family::Family, histogram::Histogram},
    registry::Unit,
};

/// Upper bounds of the classes, in seconds: from a device that is at it to one that was off for a day.
const BOUNDS: [f64; 9] = [1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 21_600.0, 86_400.0];

type Labels = [(&'static str, &'static str); 1];

/// The phases that devices reported the end of to this replica, by the state they left.
#[derive(Debug)]
pub struct Phases(Family<Labels, Histogram, fn() -> Histogram>);

impl Default for Phases {
    fn default() -> Self {
        Self(Family::new_with_constructor(|| Histogram::new(BOUNDS)))
    }
}

impl Phases {
    /// Counts a phase that took so long.
    pub fn ended(&self, state: State, took: Duration) {
        self.0.get_or_create(&[("phase", state.as_str())]).observe(took.as_secs_f64());
    }

    /// Writes the family.
    pub(super) fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "How long updates stayed in a phase whose end devices reported to this replica.";
        let unit = Some(&Unit::Seconds);
        self.0.encode(encoder.encode_descriptor("ota_update_phase_duration", help, unit, MetricType::Histogram)?)
    }
}
