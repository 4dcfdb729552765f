//! The page that Prometheus reads, in the text form of OpenMetrics 1.0.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, atomic::Ordering},
};

use chrono::{DateTime, Utc};
use ota_trust::metadata::{Mode, Role};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, NoLabelSet, text},
    metrics::MetricType,
    registry::{Registry, Unit},
};

use super::Metrics;
use crate::db::{
    status::{DeviceCounts, RolloutCounts, WorkCounts},
    trust_metadata::Expiry,
};

/// What the lists behind a targets document are called together.
const DELEGATED: &str = "delegated";

/// What the page is, for `content-type`.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What is not counted but looked up for each page.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// Devices that hold a stream to this replica.
    pub device_streams: usize,
    /// Connections to the database: all, and those of them that nobody uses.
    pub database_connections: (u32, usize),
    /// How many there may be.
    pub database_connections_max: u32,
    /// When the certificate runs out that connections are shown. `None` when they are shown none.
    pub certificate_expires_at: Option<DateTime<Utc>>,
    /// What the database says. `None` while it does not answer.
    pub stored: Option<Stored>,
}

/// What the database says of the whole fleet: the same on every replica.
#[derive(Debug, Clone)]
pub struct Stored {
    /// Devices by state.
    pub devices: DeviceCounts,
    /// Rollouts by state.
    pub rollouts: RolloutCounts,
    /// What there is beside devices.
    pub work: WorkCounts,
    /// Who holds the root keys.
    pub trust_mode: Mode,
    /// When each role's newest document runs out.
    pub expiries: Vec<Expiry>,
}

/// Returns the page.
#[must_use]
pub fn page(metrics: &Arc<Metrics>, facts: Facts) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Page { metrics: Arc::clone(metrics), facts }));
    let mut page = String::new();
    // Writing to memory fails only where a metric is misnamed, which the tests would show.
    if let Err(error) = text::encode(&mut page, &registry) {
        tracing::error!(%error, "the metrics cannot be written");
    }
    page
}

#[derive(Debug)]
struct Page {
    metrics: Arc<Metrics>,
    facts: Facts,
}

impl Collector for Page {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        encoder
            .encode_descriptor("ota_build", "The program that answers.", None, MetricType::Info)?
            .encode_info(&[("version", env!("CARGO_PKG_VERSION"))])?;
        self.metrics.calls.encode(&mut encoder)?;
        self.metrics.updates.encode(&mut encoder)?;
        self.metrics.phases.encode(&mut encoder)?;
        encoder
            .encode_descriptor(
                "ota_artifact_bytes_sent",
                "Bytes of payloads that were sent.",
                None,
                MetricType::Counter,
            )?
            .encode_counter::<NoLabelSet, _, f64>(&self.metrics.artifact_bytes.load(Ordering::Relaxed), None)?;
        let facts = &self.facts;
        let mut gauges = Gauges(encoder);
        gauges.one("ota_device_streams", "Devices that hold a stream to this replica.", facts.device_streams as i64)?;
        let (all, idle) = facts.database_connections;
        let used = i64::from(all) - idle as i64;
        gauges.by(
            "ota_db_pool_connections",
            "Connections to the database.",
            &[([("state", "idle")], idle as i64), ([("state", "used")], used)],
        )?;
        let help = "Connections to the database that there may be.";
        gauges.one("ota_db_pool_connections_max", help, i64::from(facts.database_connections_max))?;
        if let Some(at) = facts.certificate_expires_at {
            let help = "When the certificate runs out that connections are shown, in seconds since 1970.";
            gauges.one("ota_tls_certificate_expiry_timestamp_seconds", help, at.timestamp())?;
        }
        gauges.one("ota_db_up", "Whether the database answers.", i64::from(facts.stored.is_some()))?;
        facts.stored.as_ref().map_or(Ok(()), |stored| stored.encode(&mut gauges))
    }
}

impl Stored {
    fn encode(&self, gauges: &mut Gauges<'_>) -> fmt::Result {
        let Self { devices, rollouts, work, trust_mode, expiries } = self;
        let state = |state, count| ([("state", state)], count);
        gauges.by(
            "ota_devices",
            "Devices by their admission.",
            &[
                state("pending", devices.pending),
                state("accepted", devices.accepted),
                state("rejected", devices.rejected),
                state("decommissioned", devices.decommissioned),
            ],
        )?;
        gauges.one("ota_devices_online", "Accepted devices heard of lately.", devices.online)?;
        let help = "Accepted devices that do not believe the server and install nothing.";
        gauges.one("ota_devices_disbelieving", help, devices.disbelieving)?;
        let help = "Waiting devices that say they are a machine that another device is.";
        gauges.one("ota_devices_conflicting", help, devices.conflicting)?;
        gauges.by(
            "ota_rollouts",
            "Rollouts by their state.",
            &[
                state("active", rollouts.active),
                state("completed", rollouts.completed),
                state("canceled", rollouts.canceled),
            ],
        )?;
        gauges.one("ota_deployments_open", "Deployments that have not ended.", work.open_deployments)?;
        let help = "Whether the server holds the root keys: otactl keys adopt takes them away from it.";
        gauges.one("ota_root_keys_managed", help, i64::from(*trust_mode == Mode::Managed))?;
        let expiries: Vec<_> = first(expiries)
            .into_iter()
            .map(|((repository, role), at)| ([("repository", repository), ("role", role)], at.timestamp()))
            .collect();
        let help = "When signed documents run out, in seconds since 1970.";
        gauges.in_seconds("ota_metadata_expiry_timestamp", help, &expiries)
    }
}

/// When the first document of each role runs out. The lists that a targets document delegates to, of which there may be a
/// thousand, count as one role.
fn first(expiries: &[Expiry]) -> BTreeMap<(&'static str, &'static str), DateTime<Utc>> {
    let mut first = BTreeMap::new();
    for expiry in expiries {
        let role = Role::ALL.into_iter().find(|role| role.as_str() == expiry.role).map_or(DELEGATED, Role::as_str);
        let at = first.entry((expiry.repository.as_str(), role)).or_insert(expiry.expires_at);
        *at = expiry.expires_at.min(*at);
    }
    first
}

/// Writes values that go up and down.
struct Gauges<'a>(DescriptorEncoder<'a>);

impl Gauges<'_> {
    fn one(&mut self, name: &str, help: &str, value: i64) -> fmt::Result {
        self.0.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&value)
    }

    fn by(&mut self, name: &str, help: &str, values: &[(impl EncodeLabelSet, i64)]) -> fmt::Result {
        self.family(name, help, None, values)
    }

    fn in_seconds(&mut self, name: &str, help: &str, values: &[(impl EncodeLabelSet, i64)]) -> fmt::Result {
        self.family(name, help, Some(&Unit::Seconds), values)
    }

    fn family(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        values: &[(impl EncodeLabelSet, i64)],
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, unit, MetricType::Gauge)?;
        for (labels, value) in values {
            family.encode_family(labels)?.encode_gauge(value)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;
    use crate::db::trust_metadata::Repository;

    #[test]
    fn a_thousand_lists_are_one_line_and_the_first_to_run_out_counts() {
        let now: DateTime<Utc> = "2026-11-21T12:00:00Z".parse().unwrap();
        let expiry = |role: &str, days| Expiry {
            repository: Repository::Image,
            role: role.to_owned(),
            version: 1,
            expires_at: now + TimeDelta::days(days),
        };
        let expiries = [expiry("root", 300), expiry("bin-0a", 9), expiry("bin-00", 7), expiry("bin-ff", 8)];
        let first = first(&expiries);
        assert_eq!(
            first.into_iter().collect::<Vec<_>>(),
            [(("image", DELEGATED), now + TimeDelta::days(7)), (("image", "root"), now + TimeDelta::days(300))]
        );
    }
}
