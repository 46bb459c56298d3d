//! The report that programs read: one line of JSON.

use std::{collections::BTreeMap, time::Duration};

use hdrhistogram::Histogram;
use serde::Serialize;

use super::{Counts, Report, Results, Said, Share};

/// The line of JSON: a name here is kept for good.
#[derive(Serialize)]
struct Line<'a> {
    all_well: bool,
    seconds: f64,
    #[serde(flatten)]
    counts: &'a Counts,
    carriers: BTreeMap<&'static str, ShareLine<'a>>,
    longest_gap_ms: f64,
    webhook_ms: Percentiles,
    first_audio_from_webhook_ms: Percentiles,
    first_audio_from_start_ms: Percentiles,
    round_trip_ms: Percentiles,
    interrupted_ms: Percentiles,
    lateness_ms: Percentiles,
    said: Vec<SaidOften<'a>>,
    failures: &'a BTreeMap<String, u64>,
    faults: &'a BTreeMap<String, u64>,
}

/// What became of one carrier's calls.
#[derive(Serialize)]
struct ShareLine<'a> {
    #[serde(flatten)]
    results: &'a Results,
    first_audio_from_webhook_ms: Percentiles,
}

#[derive(Serialize)]
struct SaidOften<'a> {
    #[serde(flatten)]
    said: &'a Said,
    count: u64,
}

/// In milliseconds.
#[derive(Serialize)]
pub struct Percentiles {
    pub count: u64,
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub max: f64,
}

impl Report {
    /// Returns the report as one line of JSON.
    pub fn json(&self) -> String {
        let said = |(said, &count)| SaidOften { said, count };
        let share = |(&carrier, share)| (carrier, ShareLine::of(share));
        let line = Line {
            all_well: self.all_well(),
            seconds: round(self.lasted.as_secs_f64()),
            counts: &self.counts,
            carriers: self.carriers.iter().map(share).collect(),
            longest_gap_ms: ms(self.longest_gap),
            webhook_ms: Percentiles::of(&self.webhook),
            first_audio_from_webhook_ms: Percentiles::of(&self.first_audio_from_webhook),
            first_audio_from_start_ms: Percentiles::of(&self.first_audio_from_start),
            round_trip_ms: Percentiles::of(&self.round_trip),
            interrupted_ms: Percentiles::of(&self.interrupted),
            lateness_ms: Percentiles::of(&self.lateness),
            said: self.said.iter().map(said).collect(),
            failures: &self.failures,
            faults: &self.faults,
        };
        serde_json::to_string(&line).expect("numbers and strings can be written")
    }
}

impl<'a> ShareLine<'a> {
    fn of(share: &'a Share) -> Self {
        Self {
            results: &share.results,
            first_audio_from_webhook_ms: Percentiles::of(&share.first_audio_from_webhook),
        }
    }
}

impl Percentiles {
    pub fn of(histogram: &Histogram<u32>) -> Self {
        let at = |quantile| ms(Duration::from_micros(histogram.value_at_quantile(quantile)));
        Self {
            count: histogram.len(),
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            max: at(1.0),
        }
    }
}

/// Returns milliseconds, rounded to microseconds.
pub fn ms(time: Duration) -> f64 {
    round(time.as_secs_f64() * 1_000.0)
}

fn round(number: f64) -> f64 {
    (number * 1_000.0).round() / 1_000.0
}
