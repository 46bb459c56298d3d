//! Whether an outage went as it should. Pure: what was seen is handed in.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::acting::{Holdings, Observed};
use super::{CAP, Case, Fault};
use crate::health::RECOVERY;
use crate::lab::{REPLICAS, Verdict};
use crate::life::Ring;
use crate::statistics::{Latencies, SLACK, number, rounded};

/// How much of the room has to be used that shares leave.
const LEAST_USED: f64 = 0.8;
/// The same where one replica alone is cut off. A call in nine that the others admit brings its media
/// there and ends there, too: Redis does not hear of its end, and its slot lapses after 20 s where
/// calls last 6 s. By that a fifth of the slots are nobody's; 18 of 61 were seen to be (`differed`),
/// and the room used was 72 to 91 %.
const LEAST_USED_CUT_OFF: f64 = 0.6;
/// How much longer webhooks may take, in milliseconds: at first, and once nobody waits for Redis.
const LONGER_AT_FIRST: f64 = 75.0;
const LONGER_LATER: f64 = 5.0;
/// Each replica learns every second how many calls there are. What was admitted within that time,
/// and the moment that it may come late, may come on top of the cap.
const TICK: Duration = Duration::from_millis(1_250);
/// The goal allows for admissions of the last five seconds, which is more than what short calls
/// leave free; it is told beside it.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// For how long a slot is kept for media that does not come.
const SETUP: Duration = Duration::from_secs(20);

pub fn judge(case: &Case, observed: &Observed) -> Verdict {
    let Observed {
        live_before,
        gone,
        peak,
        recovered,
        rings,
        ..
    } = observed;
    let unknown = admitted_before(rings, *gone, TICK);
    let most = most_live(case.fault, observed.holdings, unknown);
    let used = room_used(case, observed);
    let latencies = latencies(observed);
    let [before, first, later, after] = latencies.each_ref().map(|(_, one)| one.p99_ms);
    // Three times as many webhooks cost something of their own: `after` has as many.
    let usual = before.max(after);
    let cut_off = matches!(case.fault, Fault::CutOff | Fault::CutOffRefused);
    let (degraded, least_used) = if cut_off {
        (1, LEAST_USED_CUT_OFF)
    } else {
        (REPLICAS, LEAST_USED)
    };
    let checks = BTreeMap::from([
        ("within_bound", *peak <= most),
        (
            "within_cap_after",
            observed.peak_after.is_some_and(|it| it <= CAP),
        ),
        ("room_used", least_used <= used),
        ("first_second", first <= usual + LONGER_AT_FIRST * SLACK),
        ("later", later <= usual + LONGER_LATER * SLACK),
        ("degraded", observed.degraded_replicas == degraded),
        (
            "recovered",
            recovered.is_some_and(|after| after <= RECOVERY),
        ),
        ("registry", observed.registry.is_ok()),
    ]);
    let what = case.name();
    let failed: Vec<&str> = checks.iter().filter(|it| !it.1).map(|it| *it.0).collect();
    Verdict {
        passed: failed.is_empty(),
        line: format!(
            "{what}: at most {peak} of {most} live, {:.0} % of the room used, webhooks p99 \
             {before:.1} / {first:.1} / {later:.1} / {after:.1} ms, well again {}{}",
            used * 100.0,
            recovered.map_or("never".to_owned(), |after| format!("after {after:.1?}")),
            if failed.is_empty() {
                String::new()
            } else {
                format!(" ({failed:?})")
            },
        ),
        parameters: Value::Null,
        result: json!({
            "outage": what, "checks": checks, "peak": peak, "bound": most, "cap": CAP,
            "peak_after": observed.peak_after, "live_before": live_before,
            "leases_before": observed.holdings.all,
            "leases_of_first_replica_before": observed.holdings.first,
            "admitted_in_last_tick": unknown,
            "admitted_in_last_heartbeat": admitted_before(rings, *gone, HEARTBEAT),
            "samples": observed.seen.samples, "over_cap": observed.seen.over_cap,
            "mean_live": observed.full.mean, "room_used": rounded(used),
            "degraded_replicas": observed.degraded_replicas, "differed": observed.differed,
            "recovered_seconds": recovered.map(|after| rounded(after.as_secs_f64())),
            "registry_true_seconds": observed.registry.ok().map(|after| rounded(after.as_secs_f64())),
            "registry_differs": observed.registry.err(),
            "webhooks": BTreeMap::from(latencies), "calls": observed.counts, "slack": SLACK,
        }),
        samples: json!({
            "live": observed.seen.live,
            "rings_ms": rings.iter().map(Ring::sample).collect::<Vec<_>>(),
        }),
        logs: None,
    }
}

/// Returns how many calls may be live at once, as docs/replicas.md says ("While Redis is away").
fn most_live(fault: Fault, holdings: Holdings, unknown: usize) -> usize {
    match fault {
        Fault::Killed | Fault::Hung => CAP + unknown,
        // Nobody knows anything, and everybody rounds up.
        Fault::ColdStart => REPLICAS * CAP.div_ceil(REPLICAS),
        // What the one that is cut off holds comes on top, which is its share at most. That is so
        // within a lease, too: calls whose leases Redis still has end, the others hear of it and
        // fill their room, and so does the replica that had them.
        Fault::CutOff | Fault::CutOffRefused => {
            let free = CAP.saturating_sub(holdings.all);
            CAP + unknown + holdings.first + free / REPLICAS
        }
    }
}

/// Returns how much was used of the room that there was.
///
/// A caller whose media never comes takes its share along until Redis is back: whether the media is
/// at another replica cannot be told. So that room is not there to be used any more, and what is
/// left can be less than what was live before: then it is all of it that counts.
fn room_used(case: &Case, observed: &Observed) -> f64 {
    let (mean, before) = (observed.full.mean, number(observed.live_before));
    if case.with_silent_callers {
        let lost = lost_in_the_mean(
            &observed.rings,
            observed.gone,
            observed.filled..observed.back,
        );
        return mean / (number(CAP) - lost).max(1.0);
    }
    (mean - before) / (number(CAP) - before).max(1.0)
}

/// Returns how much room callers without media had taken along, in the mean over a time.
fn lost_in_the_mean(rings: &[Ring], gone: Duration, within: std::ops::Range<Duration>) -> f64 {
    let silent = rings.iter().filter(|ring| ring.admitted && !ring.has_media);
    let lapses = silent.map(|ring| ring.at + ring.took + SETUP);
    let lost = lapses.filter(|at| gone <= *at);
    let without: f64 = lost
        .map(|at| {
            within
                .end
                .saturating_sub(at.max(within.start))
                .as_secs_f64()
        })
        .sum();
    without / within.end.saturating_sub(within.start).as_secs_f64()
}

fn admitted_before(rings: &[Ring], gone: Duration, time: Duration) -> usize {
    let of_late = gone.saturating_sub(time)..gone;
    let admitted = rings.iter().filter(|ring| ring.admitted);
    admitted.filter(|ring| of_late.contains(&ring.at)).count()
}

fn latencies(observed: &Observed) -> [(&'static str, Latencies); 4] {
    let Observed {
        gone, back, over, ..
    } = *observed;
    let second = Duration::from_secs(1);
    // Admission is local for a moment longer, until all have told Redis what they have.
    let well = back + observed.recovered.unwrap_or_default();
    [
        ("before", Duration::ZERO..gone),
        ("first_second", gone..gone + second),
        ("later", gone + second..back),
        ("after", well..over),
    ]
    .map(|(name, phase)| {
        let within = observed
            .rings
            .iter()
            .filter(|ring| phase.contains(&ring.at));
        (name, Latencies::of(within.map(|ring| ring.took)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_live_is_what_the_readme_says() {
        let holdings = Holdings { all: 25, first: 8 };
        for (fault, expected) in [
            (Fault::Killed, 61 + 2),
            (Fault::Hung, 61 + 2),
            (Fault::ColdStart, 3 * 21),
            (Fault::CutOff, 61 + 2 + 8 + 12),
            (Fault::CutOffRefused, 61 + 2 + 8 + 12),
        ] {
            assert_eq!(most_live(fault, holdings, 2), expected, "{fault:?}");
        }
    }

    #[test]
    fn callers_without_media_take_room_along_once_their_slot_has_lapsed() {
        let seconds = Duration::from_secs;
        let ring = |at, admitted, has_media| Ring {
            at: seconds(at),
            took: Duration::ZERO,
            waited: Duration::ZERO,
            admitted,
            has_media,
        };
        let rings = [
            ring(0, true, false),  // Its slot lapses before Redis goes.
            ring(15, true, false), // At 35: half of the time.
            ring(12, true, false), // At 32, before the time begins: all of it.
            ring(15, true, true),
            ring(15, false, false),
            ring(50, true, false), // At 70, after its end.
        ];
        let lost = lost_in_the_mean(&rings, seconds(30), seconds(33)..seconds(37));
        assert!((lost - 1.5).abs() < 1e-9, "{lost}");
    }
}
