//! What a benchmark prints: one JSON line for each figure, on standard output.

use std::io::Write as _;

use anyhow::Context as _;
use serde::Serialize;
use serde_json::{Map, Value};

/// A figure, alone or beside a baseline that was measured in the same run.
#[derive(Debug, Serialize)]
pub(crate) struct Figure {
    /// What was measured.
    pub(crate) bench: String,
    /// The product's figure.
    pub(crate) value: f64,
    /// Its unit.
    pub(crate) unit: &'static str,
    /// What it is compared with.
    #[serde(flatten)]
    pub(crate) beside: Option<Beside>,
    /// What it should be, as a condition on the ratio or the value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) target: Option<&'static str>,
    /// How it was measured, and what else was seen.
    #[serde(flatten)]
    pub(crate) details: Map<String, Value>,
}

/// The baseline of a figure.
#[derive(Debug, Serialize)]
pub(crate) struct Beside {
    /// What it is.
    pub(crate) baseline: &'static str,
    /// Its figure.
    pub(crate) baseline_value: f64,
    /// The product's figure over the baseline's.
    pub(crate) ratio: f64,
}

impl Figure {
    /// A figure that stands alone.
    pub(crate) fn alone(bench: impl Into<String>, value: f64, unit: &'static str) -> Self {
        Self { bench: bench.into(), value: round(value), unit, beside: None, target: None, details: Map::new() }
    }

    /// A figure from rounds in which the product and the baseline took turns: medians of both, and the median of the
    /// rounds' ratios, which the drift of a busy machine spoils least.
    pub(crate) fn beside(
        bench: impl Into<String>,
        unit: &'static str,
        product: &[f64],
        baseline: &'static str,
        baseline_values: &[f64],
    ) -> Self {
        let ratios: Vec<f64> = product.iter().zip(baseline_values).map(|(ours, theirs)| ours / theirs).collect();
        let rounds: Vec<_> =
            product.iter().zip(baseline_values).map(|(ours, theirs)| [round(*ours), round(*theirs)]).collect();
        Self::alone(bench, median(product), unit)
            .with_beside(Beside {
                baseline,
                baseline_value: round(median(baseline_values)),
                ratio: round(median(&ratios)),
            })
            .detail("rounds", rounds)
    }

    fn with_beside(mut self, beside: Beside) -> Self {
        self.beside = Some(beside);
        self
    }

    /// Says what the figure should be.
    pub(crate) fn target(mut self, target: &'static str) -> Self {
        self.target = Some(target);
        self
    }

    /// Adds how it was measured or what else was seen.
    pub(crate) fn detail(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.details.insert(name.to_owned(), value.into());
        self
    }

    /// The product's figure over the baseline's; 1 for a figure that stands alone.
    pub(crate) fn ratio(&self) -> f64 {
        self.beside.as_ref().map_or(1.0, |beside| beside.ratio)
    }

    /// Prints the line.
    pub(crate) fn print(&self) -> anyhow::Result<()> {
        print(self)
    }
}

/// Prints anything as a JSON line.
pub(crate) fn print(line: &impl Serialize) -> anyhow::Result<()> {
    let line = serde_json::to_string(line).context("a figure is no JSON")?;
    writeln!(std::io::stdout().lock(), "{line}").context("nobody reads the figures")
}

/// Returns the value in the middle; 0 of nothing.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => 0.0,
        odd if odd % 2 == 1 => sorted[middle],
        _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
    }
}

/// Returns the value that `share` (0 to 1) of the sorted values do not exceed.
pub(crate) fn percentile(sorted: &[f64], share: f64) -> f64 {
    let last = sorted.len().saturating_sub(1);
    sorted.get((share * last as f64).round() as usize).copied().unwrap_or(0.0)
}

/// Keeps four digits: more would claim what no run repeats.
pub(crate) fn round(value: f64) -> f64 {
    if value == 0.0 || !value.is_finite() {
        return value;
    }
    let factor = 10f64.powi(3 - value.abs().log10().floor() as i32);
    (value * factor).round() / factor
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_digits_are_kept() {
        for (value, kept) in [(0.0, 0.0), (0.712_345, 0.7123), (12_345.6, 12_350.0), (99_999.0, 100_000.0)] {
            assert!((round(value) - kept).abs() < 1e-9 * kept.max(1.0), "{value} became {}", round(value));
        }
    }

    #[test]
    fn the_median_lies_in_the_middle() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median(&[]), 0.0);
    }

    #[test]
    fn a_line_names_its_baseline_and_ratio() {
        let figure = Figure::beside("check_in", "req/s", &[70.0, 80.0, 90.0], "bare", &[100.0, 100.0, 100.0]);
        let line = serde_json::to_value(&figure).unwrap();
        assert_eq!(line["value"], 80.0);
        assert_eq!(line["baseline_value"], 100.0);
        assert_eq!(line["ratio"], 0.8);
        assert_eq!(line["rounds"][2][0], 90.0);
    }
}
