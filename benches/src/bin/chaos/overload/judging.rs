//! What an overload came to.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::{Course, Observed, PROBES, Plateau};
use crate::lab::{Lab, REPLICAS, Verdict};
use crate::life::Ring;
use crate::statistics::{Latencies, SLACK, milliseconds, number, rounded};

/// How much of the room is used by calls when twice and ten times as many ring.
const GOODPUT: f64 = 0.95;
const GOODPUT_IN_A_BURST: f64 = 0.90;
/// The same in a short run: chance takes much from a small house that has just filled.
const GOODPUT_IN_SHORT: f64 = 0.5;
/// How long refusals may take, at p99.
const REFUSED_WITHIN_MS: f64 = 250.0;
const REFUSED_WITHIN_IN_A_BURST_MS: f64 = 1_000.0;
/// How long anything may take.
const ANSWERED_WITHIN_MS: f64 = 2_000.0;
/// What more than this load counts as a burst.
const BURST: f64 = 2.0;
/// How soon after the burst callers are answered as if it had not been.
const NORMAL_WITHIN: Duration = Duration::from_secs(5);
const NORMAL_WITHIN_IN_SHORT: Duration = Duration::from_secs(3);
/// How much later audio may be than with nobody else.
const LATER_MS: f64 = 10.0;
/// Each frame passes four programs that are without optimisation then.
const AUDIO_SLACK: f64 = SLACK * SLACK;

pub fn judge(lab: &Lab, course: &Course, observed: &Observed) -> Verdict {
    let mut checks = BTreeMap::new();
    let mut parts = Vec::new();
    let mut results = Vec::new();
    for plateau in &observed.plateaus {
        let rings = between(&observed.rings, plateau.from, plateau.to);
        let refused = Latencies::of(waits(&rings, |ring| !ring.admitted));
        let all = Latencies::of(waits(&rings, |_| true));
        let goodput = rounded(plateau.seen.mean / number(course.cap));
        let later = plateau.heard.round_trip_p99_ms - observed.idle.round_trip_p99_ms;
        let load = plateau.load;
        let mut check = |what: &str, holds: bool| {
            checks.insert(format!("{what} at {load}x"), holds);
        };
        if load >= BURST {
            let is_burst = load > BURST;
            let least = if is_burst {
                GOODPUT_IN_A_BURST
            } else {
                GOODPUT
            };
            let least = lab.or_short(least, GOODPUT_IN_SHORT);
            check("goodput", least <= goodput);
            let within = if is_burst {
                REFUSED_WITHIN_IN_A_BURST_MS
            } else {
                REFUSED_WITHIN_MS
            };
            check("refusals are quick", refused.p99_ms <= within * SLACK);
            check("some are refused", refused.count > 0);
        }
        check("all are answered", all.max_ms <= ANSWERED_WITHIN_MS * SLACK);
        check("the cap is kept", plateau.seen.over_cap == 0);
        check("audio is in time", later <= LATER_MS * AUDIO_SLACK);
        check("audio is whole", is_whole(plateau));
        parts.push(format!(
            "{load}x: {:.0} % used, refused p50 {:.1} p99 {:.1} max {:.1} ms, audio p99 {:.1} ms",
            goodput * 100.0,
            refused.p50_ms,
            refused.p99_ms,
            refused.max_ms,
            plateau.heard.round_trip_p99_ms
        ));
        results.push(json!({
            "load": load, "goodput": goodput, "refused": refused, "answered": all,
            "most_live": plateau.seen.most, "over_cap": plateau.seen.over_cap,
            "generator_late_p99_ms": lateness(&rings), "audio": plateau.heard,
            "audio_later_p99_ms": rounded(later),
        }));
    }
    let after = between(&observed.rings, observed.burst_over, observed.over);
    let limit = Duration::from_secs_f64(REFUSED_WITHIN_MS * SLACK / 1e3);
    let normal = until_normal(&after, observed.burst_over, limit);
    let within = lab.or_short(NORMAL_WITHIN, NORMAL_WITHIN_IN_SHORT);
    checks.insert(
        "it is normal again".to_owned(),
        normal <= within.mul_f64(SLACK),
    );
    let failed = failures(&observed.counts);
    checks.insert("nothing failed".to_owned(), failed.is_empty());
    let missed: Vec<&String> = checks.iter().filter(|it| !it.1).map(|it| it.0).collect();
    let mut line = format!(
        "{}; alone {:.1} ms; normal {:.1} s after the burst; failed {failed:?}",
        parts.join("; "),
        observed.idle.round_trip_p99_ms,
        normal.as_secs_f64(),
    );
    if !missed.is_empty() {
        line = format!("{line} (missed: {missed:?})");
    }
    Verdict {
        passed: missed.is_empty(),
        line,
        parameters: json!({
            "cap": course.cap, "mean_call_seconds": course.mean.as_secs_f64(),
            "capacity_per_second": rounded(course.capacity()), "loads": course.loads,
            "plateau_seconds": course.plateau.as_secs(), "replicas": REPLICAS,
            "calls_heard": PROBES, "slack": SLACK,
        }),
        result: json!({
            "checks": checks, "plateaus": results, "audio_alone": observed.idle,
            "normal_after_ms": milliseconds(normal), "failed": failed, "calls": observed.counts,
        }),
        samples: samples(observed),
        logs: None,
    }
}

fn is_whole(plateau: &Plateau) -> bool {
    plateau.heard.answered == PROBES as u64 && plateau.heard.lost == 0
}

fn between(rings: &[Ring], from: Duration, to: Duration) -> Vec<Ring> {
    let rings = rings.iter().filter(|ring| (from..to).contains(&ring.at));
    rings.copied().collect()
}

fn waits(rings: &[Ring], is_meant: impl Fn(&Ring) -> bool) -> impl Iterator<Item = Duration> {
    let meant = rings.iter().filter(move |ring| is_meant(ring));
    meant
        .map(|ring| ring.waited)
        .collect::<Vec<_>>()
        .into_iter()
}

/// Returns how late calls were sent, which is the generator's fault.
fn lateness(rings: &[Ring]) -> f64 {
    let late = |ring: &Ring| ring.waited.saturating_sub(ring.took);
    Latencies::of(rings.iter().map(late)).p99_ms
}

/// Returns how long after the burst the last call was due that was refused, or answered after more
/// than `limit`.
fn until_normal(after: &[Ring], burst_over: Duration, limit: Duration) -> Duration {
    let is_bad = |ring: &&Ring| !ring.admitted || limit < ring.waited;
    let last = after.iter().filter(is_bad).map(|ring| ring.at).max();
    last.map_or(Duration::ZERO, |at| at.saturating_sub(burst_over))
}

/// Returns what neither callers nor the gateway wanted. A call that the cap turns away is no failure.
fn failures(counts: &BTreeMap<&'static str, u64>) -> BTreeMap<&'static str, u64> {
    let failures = counts.iter().filter(|(what, _)| match **what {
        "streams_lost" | "hung_up" => true,
        other => other.starts_with("webhooks_") || other.starts_with("media_"),
    });
    failures.map(|(what, count)| (*what, *count)).collect()
}

/// Returns what is needed to draw it: five counts a second of each plateau.
fn samples(observed: &Observed) -> Value {
    let plateaus = observed.plateaus.iter();
    let plateaus = plateaus.map(|plateau| json!({"load": plateau.load, "live": plateau.seen.live}));
    plateaus.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring(at: u64, waited: u64, admitted: bool) -> Ring {
        Ring {
            at: Duration::from_secs(at),
            took: Duration::from_millis(1),
            waited: Duration::from_millis(waited),
            admitted,
            has_media: true,
        }
    }

    #[test]
    fn it_is_normal_once_nobody_is_refused_and_nobody_waits() {
        let (over, limit) = (Duration::from_secs(10), Duration::from_millis(250));
        for (rings, seconds) in [
            (vec![], 0),
            (vec![ring(11, 5, true)], 0),
            (vec![ring(11, 5, false), ring(12, 5, true)], 1),
            (
                vec![ring(11, 5, false), ring(13, 300, true), ring(14, 5, true)],
                3,
            ),
        ] {
            let expected = Duration::from_secs(seconds);
            assert_eq!(until_normal(&rings, over, limit), expected, "{rings:?}");
        }
    }

    #[test]
    fn a_call_is_late_by_what_it_waited_before_it_was_sent() {
        assert!((lateness(&[ring(1, 41, true)]) - 40.0).abs() < 1e-9);
    }
}
