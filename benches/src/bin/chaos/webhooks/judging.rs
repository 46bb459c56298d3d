//! Whether webhooks were answered in time. Pure: what was measured is handed in.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::{CAP, Measured, PER_SECOND, Refusals, Series};
use crate::lab::{Lab, Verdict};
use crate::statistics::{Latencies, SLACK, milliseconds, number, rounded};

const GOAL_MS: f64 = 5.0;
const LONGER_AT_FIRST_MS: f64 = 75.0;
const LONGER_LATER_MS: f64 = 5.0;
/// What a refusal may take whose row is written beside it.
const REFUSAL_GOAL_MS: f64 = 10.0;

impl Series {
    fn within(&self, from: Duration, to: Duration) -> Latencies {
        let within = self
            .answers
            .iter()
            .filter(|(due, _)| from <= *due && *due < to);
        Latencies::of(within.map(|(_, took)| *took))
    }

    fn all(&self) -> Latencies {
        self.within(Duration::ZERO, Duration::MAX)
    }
}

impl Refusals {
    /// Returns how many refusals a second were answered and written down.
    fn per_second(&self) -> f64 {
        number(self.series.answers.len()) / self.recorded_after.as_secs_f64()
    }

    fn holds(&self) -> bool {
        self.series.admitted == 0
            && self.rows == self.series.answers.len() as u64
            && self.series.all().p99_ms <= REFUSAL_GOAL_MS * SLACK
    }
}

/// Says whether webhooks were answered in time, and each refusal written down.
pub fn verdict(lab: &Lab, measured: &Measured) -> Verdict {
    let second = Duration::from_secs(1);
    let (mut result, mut samples) = (Map::new(), Map::new());
    let all = &measured.series;
    let find = |name: &str| all.iter().find(|series| series.name == name);
    let refused = measured.refusals.iter().map(|refusals| &refusals.series);
    for series in all.iter().chain(refused) {
        let mut entry = json!(series.all());
        entry["generator_late_p99_ms"] = json!(Latencies::of(series.late.clone()).p99_ms);
        result.insert(series.name.to_owned(), entry);
        let series_samples: Vec<_> = series
            .answers
            .iter()
            .map(|(due, took)| [milliseconds(*due), milliseconds(*took)])
            .collect();
        samples.insert(series.name.to_owned(), json!(series_samples));
    }
    let memory = find("memory").map_or(0.0, |series| series.all().p99_ms);
    let mut line = format!("p99 in memory {memory:.2} ms");
    let mut passed = true;
    if let (Some(redis), Some(hung)) = (find("redis"), find("hung")) {
        let redis = redis.all().p99_ms;
        let first = hung.within(Duration::ZERO, second);
        let open = hung.within(second, Duration::MAX);
        passed = redis <= GOAL_MS * SLACK
            && first.p99_ms <= redis + LONGER_AT_FIRST_MS * SLACK
            && open.p99_ms <= redis + LONGER_LATER_MS * SLACK;
        line = format!(
            "{line}, over Redis {redis:.2} ms ({:.1} times), with Redis hung {:.1} ms in the first \
             second and {:.2} ms later",
            redis / memory,
            first.p99_ms,
            open.p99_ms
        );
        result.insert("hung_first_second".to_owned(), json!(first));
        result.insert("hung_later".to_owned(), json!(open));
        result.insert(
            "redis_times_memory".to_owned(),
            json!(rounded(redis / memory)),
        );
        result.insert("slack".to_owned(), json!(SLACK));
    }
    for refusals in &measured.refusals {
        let p99 = refusals.series.all().p99_ms;
        passed &= refusals.holds();
        line = format!(
            "{line}; {}: {:.0} refusals/s with {} of {} rows, p99 {p99:.2} ms",
            refusals.series.name,
            refusals.per_second(),
            refusals.rows,
            refusals.series.answers.len(),
        );
        let entry = &mut result[refusals.series.name];
        entry["refusals"] = json!(refusals.series.answers.len() - refusals.series.admitted);
        entry["rows"] = json!(refusals.rows);
        entry["per_second"] = json!(rounded(refusals.per_second()));
        entry["recorded_after_seconds"] = json!(rounded(refusals.recorded_after.as_secs_f64()));
    }
    Verdict {
        passed,
        line,
        parameters: json!({
            "per_second": PER_SECOND, "seconds": lab.or_short(20, 2), "cap": CAP,
            "goals_ms": [GOAL_MS, LONGER_AT_FIRST_MS, LONGER_LATER_MS],
            "refusal_goal_ms": REFUSAL_GOAL_MS,
        }),
        result: Value::Object(result),
        samples: Value::Object(samples),
        logs: None,
    }
}
