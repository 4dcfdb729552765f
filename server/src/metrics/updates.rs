//! Updates that ended, by how.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Mutex, PoisonError},
};

use ota_domain::deployment::{FailureCode, State};
use prometheus_client::{
    encoding::{DescriptorEncoder, NoLabelSet},
    metrics::MetricType,
};

/// Updates whose end devices reported to this replica.
#[derive(Debug, Default)]
pub struct Updates(Mutex<BTreeMap<(&'static str, &'static str), u64>>);

impl Updates {
    /// Counts an update that ended in this state, and why when it failed.
    pub fn ended(&self, state: State, failure: Option<FailureCode>) {
        let reason = failure.map_or("", FailureCode::as_str);
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry((state.as_str(), reason)).or_default() += 1;
    }

    /// Writes the family.
    pub(super) fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Updates whose end devices reported to this replica.";
        let mut family = encoder.encode_descriptor("ota_updates", help, None, MetricType::Counter)?;
        for (&(result, reason), count) in self.0.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let labels = [("result", result), ("reason", reason)];
            family.encode_family(&labels)?.encode_counter::<NoLabelSet, _, f64>(count, None)?;
        }
        Ok(())
    }
}
