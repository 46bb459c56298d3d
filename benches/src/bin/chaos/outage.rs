//! R6: calls beyond the cap, and calls that are turned away for nothing, while Redis is away.
//!
//! With the house at 40 %, three times as many calls ring as there is room for, and Redis goes: it
//! is killed, it hangs, it hangs for longer than a lease. Calls come in by nginx, so that the
//! replica that admits one is rarely the one that gets its media.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use callgate_benches::carrier::Ending;
use callgate_benches::cluster::{Cluster, Replica};
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::arrivals::Arrivals;
use crate::lab::{Lab, Verdict, conclude};
use crate::life::{Life, Media, Ring, SHORTEST, World, around, sid};
use crate::sampler::{Sampler, Seen};
use crate::statistics::{Latencies, SLACK, number, rounded};

const OCCUPANCY: f64 = 0.4;
const OVERLOAD: f64 = 3.0;
const LEAST_USED: f64 = 0.8;
/// How much longer webhooks may take, in milliseconds: at first, and once nobody waits for Redis.
const LONGER_AT_FIRST: f64 = 75.0;
const LONGER_LATER: f64 = 5.0;
/// Each replica learns every second how many calls there are. What was admitted within that time,
/// and the moment that it may come late, may come on top of the cap.
const TICK: Duration = Duration::from_millis(1_250);
/// The goal allows for admissions of the last five seconds, which is more than what short calls
/// leave free; it is told beside it.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// How long replicas may take until they are well again.
const RECOVERY: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outage {
    Killed,
    Hung,
}

pub async fn run(lab: &Lab) -> anyhow::Result<Verdict> {
    let minute = Duration::from_secs(60);
    let outages = lab.or_short(
        vec![
            (Outage::Killed, minute),
            (Outage::Hung, minute),
            // Every lease lapses, and what Redis knew else is there again.
            (Outage::Hung, Duration::from_secs(38)),
        ],
        vec![
            (Outage::Killed, Duration::from_secs(8)),
            (Outage::Hung, Duration::from_secs(8)),
        ],
    );
    // Shares are whole calls: of a small house they leave much of the room unused.
    let cap = 60;
    let mut all = Verdict {
        passed: true,
        line: String::new(),
        parameters: json!({
            "cap": cap, "occupancy": OCCUPANCY, "overload": OVERLOAD,
            "mean_call_seconds": mean(lab).as_secs_f64(), "replicas": lab.options().replicas,
        }),
        result: json!([]),
        samples: json!([]),
        logs: None,
    };
    let bar = lab.bar(outages.len() as u64, "outage");
    for (index, (outage, length)) in outages.into_iter().enumerate() {
        let options = lab.options().set("MAX_ACTIVE_CALLS", cap);
        let mut cluster = Cluster::start(&options).await?;
        let random = lab.random(&format!("outage {index}"));
        let measured = measure(lab, &mut cluster, (outage, length), cap, random).await;
        let one = conclude(&mut cluster, measured)?;
        all.passed &= one.passed;
        all.line = format!("{}{}; ", all.line, one.line);
        if let (Value::Array(results), Value::Array(samples)) = (&mut all.result, &mut all.samples)
        {
            results.push(one.result);
            samples.push(one.samples);
        }
        all.logs = all.logs.or(one.logs);
        bar.inc(1);
    }
    bar.finish_and_clear();
    all.line.truncate(all.line.len() - 2);
    Ok(all)
}

fn mean(lab: &Lab) -> Duration {
    Duration::from_secs(lab.or_short(6, 4))
}

/// What was seen of an outage.
struct Observed {
    /// How many calls were live when Redis went.
    live_before: usize,
    /// When it went, since the world began, and when it was back.
    gone: Duration,
    back: Duration,
    over: Duration,
    /// From its beginning to the end of the recovery.
    seen: Seen,
    /// While it lasted, without the time in which the house filled.
    full: Seen,
    degraded_replicas: usize,
    /// How long it took until no replica was degraded.
    recovered: Option<Duration>,
}

async fn measure(
    lab: &Lab,
    cluster: &mut Cluster,
    (outage, length): (Outage, Duration),
    cap: usize,
    mut random: StdRng,
) -> anyhow::Result<Verdict> {
    let mean = mean(lab);
    let room = number(cap) / mean.as_secs_f64();
    let world = Arc::new(World::new(cluster.carrier(), cluster.addresses()));
    let door = world.carrier.door();
    let calls = StdRng::from_rng(&mut random);
    let arrivals = Arrivals::start(&world, OCCUPANCY * room, calls, move |random| Life {
        sid: sid(random),
        rings_at: vec![door],
        media: Media::Talks(around(random, mean).max(SHORTEST), Ending::HangsUp),
        finals: 1,
        rings_again: false,
    });
    sleep(mean * 4).await;

    let (live_before, gone) = (world.carrier.truth.live(), world.began.elapsed());
    world.carrier.truth.forget_peak();
    match outage {
        Outage::Killed => cluster.redis()?.kill()?,
        Outage::Hung => cluster.redis()?.pause()?,
    }
    arrivals.set_rate(OVERLOAD * room);
    let whole = Sampler::start(&world, cap);
    let rising = mean.min(length / 2);
    sleep(rising).await;
    let full = Sampler::start(&world, cap);
    let degraded_replicas = degraded(&cluster.replicas).await?;
    sleep(length.saturating_sub(rising)).await;
    let full = full.stop()?;
    let back = world.began.elapsed();
    match outage {
        Outage::Killed => cluster.redis()?.restart().await?,
        Outage::Hung => cluster.redis()?.resume()?,
    }
    let recovered = until_recovered(&cluster.replicas).await?;
    sleep(Duration::from_secs(lab.or_short(10, 4))).await;
    let observed = Observed {
        live_before,
        gone,
        back,
        over: world.began.elapsed(),
        seen: whole.stop()?,
        full,
        degraded_replicas,
        recovered,
    };
    arrivals.stop().await?;
    let verdict = judge(&observed, cap, &world);
    let what = format!("{outage:?} for {length:?}");
    let mut result = verdict.result;
    result["outage"] = json!(what);
    Ok(Verdict {
        line: format!("{what}: {}", verdict.line),
        result,
        ..verdict
    })
}

fn judge(observed: &Observed, cap: usize, world: &World) -> Verdict {
    let Observed {
        live_before, gone, ..
    } = *observed;
    let recovered = observed.recovered;
    let rings = world.rings();
    let fresh = |time: Duration| {
        let of_late = gone.saturating_sub(time)..gone;
        let admitted = rings.iter().filter(|ring| ring.admitted);
        admitted.filter(|ring| of_late.contains(&ring.at)).count()
    };
    let unknown = fresh(TICK);
    let free = number(cap.saturating_sub(live_before).max(1));
    let used = (observed.full.mean - number(live_before)) / free;
    let second = Duration::from_secs(1);
    // Admission is local for a moment longer, until all have told Redis what they have.
    let well = observed.back + recovered.unwrap_or_default();
    let latencies = [
        ("before", Duration::ZERO..gone),
        ("first_second", gone..gone + second),
        ("later", gone + second..observed.back),
        ("after", well..observed.over),
    ]
    .map(|(name, phase)| {
        let within = rings.iter().filter(|ring| phase.contains(&ring.at));
        (name, Latencies::of(within.map(|ring| ring.took)))
    });
    let [before, first, later, after] = latencies.each_ref().map(|(_, one)| one.p99_ms);
    // Three times as many webhooks cost something of their own: `after` has as many.
    let usual = before.max(after);
    let peak = world.carrier.truth.peak();
    let checks = BTreeMap::from([
        ("within_cap", peak <= cap + unknown),
        ("room_used", LEAST_USED <= used),
        ("first_second", first <= usual + LONGER_AT_FIRST * SLACK),
        ("later", later <= usual + LONGER_LATER * SLACK),
        ("degraded", observed.degraded_replicas > 0),
        ("recovered", recovered.is_some()),
    ]);
    Verdict {
        passed: checks.values().all(|passed| *passed),
        line: format!(
            "at most {peak} of {cap} live (+{unknown} that were news), {:.0} % of the room \
             used, webhooks p99 {before:.1} / {first:.1} / {later:.1} / {after:.1} ms, well again \
             {}",
            used * 100.0,
            recovered.map_or("never".to_owned(), |after| format!("after {after:.1?}")),
        ),
        parameters: Value::Null,
        result: json!({
            "checks": checks, "peak": peak, "cap": cap, "live_before": live_before,
            "admitted_in_last_tick": unknown,
            "admitted_in_last_heartbeat": fresh(HEARTBEAT), "samples": observed.seen.samples, "over_cap": observed.seen.over_cap,
            "mean_live": observed.full.mean, "room_used": rounded(used),
            "degraded_replicas": observed.degraded_replicas,
            "recovered_seconds": recovered.map(|after| rounded(after.as_secs_f64())),
            "webhooks": BTreeMap::from(latencies), "calls": world.counts(), "slack": SLACK,
        }),
        samples: json!({
            "live": observed.seen.live,
            "rings_ms": rings.iter().map(Ring::sample).collect::<Vec<_>>(),
        }),
        logs: None,
    }
}

/// Counts the replicas that say they are degraded.
async fn degraded(replicas: &[Replica]) -> anyhow::Result<usize> {
    let mut degraded = 0;
    for replica in replicas {
        let details = replica.page("/health/details").await?;
        let says = details
            .get("degraded")
            .context("/health/details says nothing of `degraded`")?;
        // A word, a list of words, or yes and no.
        degraded += usize::from(match says {
            Value::Null => false,
            Value::Bool(is) => *is,
            Value::String(what) => !matches!(what.as_str(), "" | "none" | "no"),
            Value::Array(what) => !what.is_empty(),
            Value::Object(what) => !what.is_empty(),
            Value::Number(what) => what.as_f64().is_some_and(|what| what > 0.0),
        });
    }
    Ok(degraded)
}

/// Waits until no replica says that it is degraded.
async fn until_recovered(replicas: &[Replica]) -> anyhow::Result<Option<Duration>> {
    let began = Instant::now();
    while began.elapsed() < RECOVERY {
        if degraded(replicas).await? == 0 {
            return Ok(Some(began.elapsed()));
        }
        sleep(Duration::from_millis(50)).await;
    }
    Ok(None)
}
