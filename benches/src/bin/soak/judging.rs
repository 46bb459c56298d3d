//! What hours of calls have left behind.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::callers::Told;
use crate::sampling::{Phase, Sample, Taken};
use crate::slope::Slope;

/// The most that anonymous memory may grow, by the upper bound, in MB an hour.
const MOST_GROWTH: f64 = 0.5;
/// How much there has to be of measured time: of less, chance is more than growth.
pub const SHORTEST_HOURS: f64 = 0.4;
/// How many descriptors the pool of connections to the database may have opened since the baseline,
/// and how many threads this pool and the one for what blocks may have started. What leaks with calls
/// is soon more.
const POOLED_DESCRIPTORS: usize = 16;
const POOLED_TASKS: usize = 8;
/// An end that had not happened before brings series of its own.
const RARE_ENDS: usize = 24;
const HOUR: f64 = 3_600.0;
/// One MB is a million bytes.
const KIB_PER_MB: f64 = 1e6 / 1_024.0;

/// What one replica has come to.
#[derive(Debug, Serialize)]
pub struct Grown {
    pub rss_mb_per_hour: Option<Slope>,
    pub anonymous_mb_per_hour: Option<Slope>,
    pub baseline: Taken,
    pub warmed_up: Taken,
    pub drained: Taken,
}

#[derive(Debug, Serialize)]
pub struct Outcome {
    pub passed: bool,
    pub checks: BTreeMap<&'static str, bool>,
    /// Whether growth was judged, or there was too little of it to be seen.
    pub growth_judged: bool,
    pub replicas: Vec<Grown>,
    pub last: Sample,
    pub told: Told,
    pub samples: usize,
}

/// Judges samples, of which there is one at least before and after the calls.
pub fn judge(samples: &[Sample], told: Told, measured_hours: f64) -> Option<Outcome> {
    let of = |phase: Phase| samples.iter().filter(move |sample| sample.phase == phase);
    let (baseline, drained) = (
        of(Phase::Baseline).next_back()?,
        of(Phase::Drained).next_back()?,
    );
    // The last one before it is measured, or the first one if all of it is.
    let warmed_up = of(Phase::WarmUp)
        .next_back()
        .or(of(Phase::Measured).next())?;
    let growth_judged = SHORTEST_HOURS <= measured_hours;
    let replicas = (0..drained.replicas.len()).map(|index| {
        let slope = |kib: fn(&Taken) -> u64| {
            let memory = of(Phase::Measured).map(|sample| {
                #[expect(clippy::cast_precision_loss, reason = "memory is far below 2^52 KiB")]
                let megabytes = kib(&sample.replicas[index]) as f64 / KIB_PER_MB;
                (sample.at_seconds / HOUR, megabytes)
            });
            Slope::of(&memory.collect::<Vec<_>>())
        };
        Grown {
            rss_mb_per_hour: slope(|taken| taken.rss_kib),
            anonymous_mb_per_hour: slope(|taken| taken.anonymous_kib),
            baseline: baseline.replicas[index].clone(),
            warmed_up: warmed_up.replicas[index].clone(),
            drained: drained.replicas[index].clone(),
        }
    });
    let replicas: Vec<Grown> = replicas.collect();
    let all = |holds: fn(&Grown) -> bool| replicas.iter().all(holds);
    let is_flat = |grown: &Grown| {
        let slope = grown.anonymous_mb_per_hour;
        slope.is_some_and(|slope| slope.high <= MOST_GROWTH)
    };
    let checks = BTreeMap::from([
        (
            "memory_is_flat",
            !growth_judged || replicas.iter().all(is_flat),
        ),
        (
            "tasks_are_back",
            all(|it| it.drained.tasks <= it.baseline.tasks + POOLED_TASKS),
        ),
        (
            "descriptors_are_back",
            all(|it| it.drained.descriptors <= it.baseline.descriptors + POOLED_DESCRIPTORS),
        ),
        (
            "connections_are_back",
            all(|it| it.drained.connections == 0),
        ),
        (
            "series_are_flat",
            all(|it| it.drained.series <= it.warmed_up.series + RARE_ENDS),
        ),
        ("no_lease_is_left", drained.leases == 0),
        ("no_key_is_left", drained.redis_leftovers == 0),
        ("every_call_is_over", drained.open_calls == 0),
        // Or there was nothing to be seen.
        ("calls_were_answered", told.answered > 0),
        ("no_call_failed", told.failed == 0 && told.busy == 0),
    ]);
    Some(Outcome {
        passed: checks.values().all(|holds| *holds),
        checks,
        growth_judged,
        replicas,
        last: drained.clone(),
        told,
        samples: samples.len(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(at_minutes: f64, phase: Phase, memory_kib: u64, descriptors: usize) -> Sample {
        Sample {
            at_seconds: at_minutes * 60.0,
            phase,
            replicas: vec![Taken {
                rss_kib: memory_kib + 30_000,
                anonymous_kib: memory_kib,
                tasks: 4,
                descriptors,
                connections: 0,
                series: 300,
            }],
            redis_keys: 9,
            redis_leftovers: 0,
            leases: 0,
            calls: 5,
            open_calls: 0,
            steps: 50,
            disk_bytes: 1,
        }
    }

    /// An hour whose second half grows by so many KiB a minute.
    fn hour(growth: u64, left: usize) -> Vec<Sample> {
        let mut samples = vec![sample(0.0, Phase::Baseline, 30_000, 20)];
        samples.push(sample(30.0, Phase::WarmUp, 60_000, 120));
        for minute in 0_u32..30 {
            let rss = 60_000 + growth * u64::from(minute);
            samples.push(sample(30.0 + f64::from(minute), Phase::Measured, rss, 120));
        }
        samples.push(sample(62.0, Phase::Drained, 60_000, 20 + left));
        samples
    }

    fn told() -> Told {
        Told {
            calls: 5,
            answered: 5,
            ..Told::default()
        }
    }

    #[test]
    fn what_grows_and_what_stays_behind_is_found() {
        let failed = |growth, left, hours| {
            let outcome = judge(&hour(growth, left), told(), hours).unwrap();
            let checks = outcome.checks.into_iter().filter(|check| !check.1);
            checks.map(|check| check.0).collect::<Vec<_>>()
        };
        assert_eq!(failed(0, 0, 0.5), [""; 0]);
        // 100 KiB a minute are 6.1 MB an hour; in a short look nobody can tell.
        assert_eq!(failed(100, 0, 0.5), ["memory_is_flat"]);
        assert_eq!(failed(100, 0, 0.01), [""; 0]);
        assert_eq!(failed(0, 50, 0.5), ["descriptors_are_back"]);
        assert!(
            judge(&hour(0, 0)[..5], told(), 0.5).is_none(),
            "it was not drained"
        );
    }
}
