//! Figures of many measurements.

use std::time::Duration;

use serde::Serialize;

/// How much more time than the goals is given. A build without optimisation says nothing about
/// milliseconds; what it can show is that nobody waits for what hangs.
pub const SLACK: f64 = if cfg!(debug_assertions) { 10.0 } else { 1.0 };

/// Returns how long replicas may wait for Redis where it is well and what is measured is something
/// else: 60 ms, as they do by default, for a build with optimisation.
pub fn store_patience_ms() -> f64 {
    (60.0 * SLACK).round()
}

/// Some latencies, in milliseconds.
#[derive(Debug, Serialize)]
pub struct Latencies {
    pub count: usize,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub max_ms: f64,
}

impl Latencies {
    pub fn of(latencies: impl IntoIterator<Item = Duration>) -> Self {
        let mut sorted: Vec<f64> = latencies.into_iter().map(milliseconds).collect();
        sorted.sort_by(f64::total_cmp);
        Self {
            count: sorted.len(),
            p50_ms: quantile(&sorted, 50),
            p99_ms: quantile(&sorted, 99),
            max_ms: quantile(&sorted, 100),
        }
    }
}

/// Returns the smallest value that so many percent of all are not above; 0 without values.
fn quantile(sorted: &[f64], percent: usize) -> f64 {
    let rank = (sorted.len() * percent).div_ceil(100);
    let value = sorted.get(rank.saturating_sub(1));
    value.copied().unwrap_or_default()
}

/// Returns a duration in milliseconds, to the microsecond.
pub fn milliseconds(duration: Duration) -> f64 {
    rounded(duration.as_secs_f64() * 1e3)
}

/// Returns a number with three decimals, so that a list of them can be read.
pub fn rounded(number: f64) -> f64 {
    (number * 1e3).round() / 1e3
}

/// Returns a count as a number that is calculated with.
#[expect(clippy::cast_precision_loss, reason = "counts here are small")]
pub fn number(count: usize) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_that_were_measured() {
        let latencies = Latencies::of((1..=200).rev().map(Duration::from_millis));
        assert_eq!(latencies.count, 200);
        let expected = [100.0, 198.0, 200.0];
        let quantiles = [latencies.p50_ms, latencies.p99_ms, latencies.max_ms];
        assert!(
            quantiles
                .iter()
                .zip(expected)
                .all(|(is, should)| (is - should).abs() < 1e-9)
        );
        assert!(Latencies::of([]).max_ms.abs() < 1e-9);
    }
}
