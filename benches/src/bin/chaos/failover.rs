//! F7: calls that Redis forgets, and calls that it remembers for too long, when its copy takes over
//! and has missed the last moments.
//!
//! Replicas reach Redis at an address that stays, as they would by a name or a virtual address that
//! follows the primary. More calls ring all the time than there is room for.

use std::mem;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use callgate_benches::cluster::{Cluster, Proxied, Redis, Way};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, sleep_until};

use crate::arrivals::Arrivals;
use crate::health::{RECOVERY, until_recovered};
use crate::lab::{Lab, Verdict, conclude};
use crate::life::{Life, World};
use crate::registry::{Difference, compare, until_complete, until_true};
use crate::statistics::{number, rounded};

/// How much more rings than there is room for.
const OVERLOAD: f64 = 3.0;
/// For how long the copy has heard nothing when it takes over: longer than most calls last.
const LAG: Duration = Duration::from_secs(2);
/// How long it may take until Redis knows every live call again: a heartbeat and a tick.
const COMPLETE_WITHIN: Duration = Duration::from_secs(6);

/// How long after there is a primary again the next failover may begin: a replica puts up the gate
/// every 15 s at most, and would be well again no sooner.
const REST: Duration = Duration::from_secs(15);

/// What one failover came to.
struct Seen {
    /// How many calls were admitted that the copy heard nothing of.
    unheard: usize,
    /// How its copy differed from what was so when it took over.
    forgot: Difference,
    /// The most calls that were live at once, from the lag on.
    peak: usize,
    /// How long it took until every live call was written down again, until nothing else was, and
    /// until no replica was degraded.
    complete: Result<Duration, Difference>,
    exact: Result<Duration, Difference>,
    recovered: Option<Duration>,
}

/// What has to hold.
struct Goals {
    cap: usize,
    lease: Duration,
}

pub async fn run(lab: &Lab) -> anyhow::Result<Verdict> {
    let goals = Goals {
        cap: lab.or_short(60, 20),
        // The shortest lease there is, where a run has to be short.
        lease: Duration::from_secs(lab.or_short(30, 15)),
    };
    let options = lab
        .options()
        .set("MAX_ACTIVE_CALLS", goals.cap)
        .set("TELEPHONY_SEMAPHORE_TTL_SEC", goals.lease.as_secs())
        .by_proxy(Proxied::Everybody);
    let mut cluster = Cluster::start(&options).await?;
    let measured = measure(lab, &mut cluster, &goals).await;
    conclude(&mut cluster, measured)
}

async fn measure(lab: &Lab, cluster: &mut Cluster, goals: &Goals) -> anyhow::Result<Verdict> {
    let failovers = lab.or_short(8, 1);
    let mean = Duration::from_secs(2);
    let mut random = lab.random("failover");
    let mut copy = cluster.start_second_redis().await?;
    let world = Arc::new(World::new(cluster.carrier(), cluster.addresses()));
    let rate = OVERLOAD * number(goals.cap) / mean.as_secs_f64();
    let door = world.carrier.door();
    let calls = StdRng::from_rng(&mut random);
    let arrivals = Arrivals::start(&world, rate, calls, move |random| {
        Life::talking(random, door, mean)
    });
    let bar = lab.bar(failovers, "failover");
    sleep(mean * 2).await; // The house fills.
    let mut all = Vec::new();
    let mut rested = Instant::now();
    for _ in 0..failovers {
        copy.follow(cluster.redis()?).await?;
        sleep_until(rested).await;
        // At any moment between two heartbeats.
        sleep(Duration::from_millis(
            random.random_range(0..lab.or_short(5_000, 500)),
        ))
        .await;
        // As long as whoever decides takes to see that a primary is dead.
        let gap = Duration::from_millis(random.random_range(0..lab.or_short(2_000, 500)));
        rested = Instant::now() + LAG + gap + REST;
        all.push(fail_over(cluster, &mut copy, &world, gap, goals).await?);
        copy.restart().await?;
        bar.inc(1);
    }
    bar.finish_and_clear();
    arrivals.end(lab).await?;
    let verdict = judge(&all, goals);
    Ok(Verdict {
        parameters: json!({
            "failovers": failovers, "cap": goals.cap, "lease_seconds": goals.lease.as_secs(),
            "overload": OVERLOAD, "mean_call_seconds": mean.as_secs_f64(),
            "lag_seconds": LAG.as_secs_f64(),
        }),
        result: json!({"failovers": verdict.result, "calls": world.counts()}),
        ..verdict
    })
}

/// Kills the primary and lets its copy take over, which is the primary then; the dead one is the
/// copy.
async fn fail_over(
    cluster: &mut Cluster,
    copy: &mut Redis,
    world: &World,
    gap: Duration,
    goals: &Goals,
) -> anyhow::Result<Seen> {
    let truth = &world.carrier.truth;
    truth.forget_peak();
    let lagging = world.began.elapsed();
    // It hears no more. Stopping its process would not do: what is sent to it would wait in its
    // socket, and it would take that in before it took over.
    copy.promote().await?;
    sleep(LAG).await;
    let primary = cluster.redis()?;
    primary.kill()?;
    let killed = world.began.elapsed();
    let forgot = compare(copy, truth).await?;
    sleep(gap).await;
    mem::swap(primary, copy);
    let address = primary.address();
    cluster.proxy()?.lead(Way::To(address));
    let redis = cluster.redis.as_ref().context("there is no Redis")?;
    let (complete, exact, recovered) = tokio::join!(
        until_complete(redis, truth, COMPLETE_WITHIN * 2),
        until_true(redis, truth, goals.lease * 2),
        until_recovered(&cluster.replicas),
    );
    let rings = world.rings().into_iter();
    let unheard = rings.filter(|ring| ring.admitted && (lagging..killed).contains(&ring.at));
    Ok(Seen {
        unheard: unheard.count(),
        forgot,
        peak: truth.peak(),
        complete,
        exact,
        recovered: recovered?,
    })
}

impl Seen {
    /// Names what did not hold.
    fn failures(&self, goals: &Goals) -> Vec<&'static str> {
        let within = |time: &Result<Duration, _>, goal| time.is_ok_and(|time| time <= goal);
        let checks = [
            ("peak", self.peak <= goals.cap + self.unheard),
            ("complete", within(&self.complete, COMPLETE_WITHIN)),
            // Reaped at the next tick.
            (
                "exact",
                within(&self.exact, goals.lease + Duration::from_secs(1)),
            ),
            (
                "recovered",
                self.recovered.is_some_and(|after| after <= RECOVERY),
            ),
            // Or it would show nothing.
            ("lost", self.forgot.missing > 0 && self.forgot.ghosts > 0),
        ];
        let failed = checks.into_iter().filter(|(_, holds)| !holds);
        failed.map(|(name, _)| name).collect()
    }
}

fn judge(all: &[Seen], goals: &Goals) -> Verdict {
    let failed: Vec<&str> = all.iter().flat_map(|seen| seen.failures(goals)).collect();
    let worst = |time: fn(&Seen) -> Option<Duration>| {
        let times: Option<Vec<Duration>> = all.iter().map(time).collect();
        let longest = times.and_then(|times| times.into_iter().max());
        longest.map_or("never".to_owned(), |time| format!("after {time:.1?}"))
    };
    let most = |count: fn(&Seen) -> usize| all.iter().map(count).max().unwrap_or_default();
    let seconds = |time: Option<Duration>| time.map(|time| rounded(time.as_secs_f64()));
    let result = all.iter().map(|seen| {
        json!({
            "failed": seen.failures(goals), "peak": seen.peak, "unheard": seen.unheard,
            "forgot": seen.forgot, "complete_seconds": seconds(seen.complete.ok()),
            "exact_seconds": seconds(seen.exact.ok()), "differs": seen.exact.err(),
            "recovered_seconds": seconds(seen.recovered),
        })
    });
    Verdict {
        passed: failed.is_empty(),
        line: format!(
            "{} failovers: up to {} calls forgotten and {} raised, at most {} of {} live, all calls \
             known {}, no other {}, well again {}{}",
            all.len(),
            most(|seen| seen.forgot.missing),
            most(|seen| seen.forgot.ghosts),
            most(|seen| seen.peak),
            goals.cap,
            worst(|seen| seen.complete.ok()),
            worst(|seen| seen.exact.ok()),
            worst(|seen| seen.recovered),
            if failed.is_empty() {
                String::new()
            } else {
                format!(" ({failed:?})")
            },
        ),
        parameters: Value::Null,
        result: result.collect(),
        samples: Value::Null,
        logs: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failover_is_judged_by_what_its_copy_had_not_heard() {
        let goals = Goals {
            cap: 20,
            lease: Duration::from_secs(15),
        };
        let seconds = Duration::from_secs;
        let good = || Seen {
            unheard: 5,
            forgot: Difference {
                missing: 4,
                ghosts: 3,
            },
            peak: 25,
            complete: Ok(seconds(6)),
            exact: Ok(seconds(16)),
            recovered: Some(seconds(10)),
        };
        assert!(good().failures(&goals).is_empty());
        let bad = Seen {
            peak: 26,
            complete: Ok(seconds(7)),
            exact: Err(Difference::default()),
            recovered: None,
            forgot: Difference::default(),
            ..good()
        };
        let all = ["peak", "complete", "exact", "recovered", "lost"];
        assert_eq!(bad.failures(&goals), all);
    }
}
