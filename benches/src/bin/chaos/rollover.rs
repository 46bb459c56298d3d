//! R9: webhooks that fail and calls that are cut while replicas are replaced one after the other.
//!
//! 60 callers talk by nginx and ring again, and others call for a moment. Each replica in turn is asked
//! to end, and another process takes its place on its port. A few calls in each round are longer than
//! the window: those of the first replica hear a goodbye.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};
use callgate_benches::cluster::{Cluster, Replica, Signal};
use indicatif::ProgressBar;
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::arrivals::Arrivals;
use crate::lab::{Lab, REPLICAS, Verdict, conclude};
use crate::life::{Life, Media, World};
use crate::statistics::{SLACK, milliseconds};

/// How many of the calls in each round are longer than the window.
const LONG_CALLS: usize = 6;
const CAP: usize = 200;
/// Calls of a moment that arrive beside the others, a second: webhooks are on their way all the time.
const BRIEF_PER_SECOND: f64 = 5.0;
const MOMENT: Duration = Duration::from_millis(400);
/// How long a replica may take to end when the window is over.
const EXIT: Duration = Duration::from_secs(2);
/// Over how long goodbyes are spread before that, where calls are left when the window is over: so
/// that their callers do not all ring again at once.
const GOODBYES: Duration = Duration::from_secs(5);
/// After which it is not waited for.
const HUNG: Duration = Duration::from_secs(30);
/// How long nginx leaves a replica alone that it has not reached, and a moment.
const SETTLING: Duration = Duration::from_millis(2_500);
/// A replica's clock and ours do not begin at the same moment.
const TICK: Duration = Duration::from_millis(50);
/// What the end of a call takes to be seen once its replica has ended.
const SEEN_WITHIN: Duration = Duration::from_secs(1);

/// One replica that was replaced. Times are since the world began, or since it was told.
struct Replacement {
    replica: usize,
    held: u64,
    told_at: Duration,
    exited_after: Duration,
    exited_well: bool,
    back_after: Duration,
}

pub async fn run(lab: &Lab) -> anyhow::Result<Verdict> {
    let window = Duration::from_secs(lab.window.unwrap_or(lab.or_short(60, 8)));
    let options = lab
        .options()
        .set("MAX_ACTIVE_CALLS", CAP)
        .set("DRAIN_SECONDS", window.as_secs());
    let mut cluster = Cluster::start(&options).await?;
    let measured = measure(lab, &mut cluster, window).await;
    conclude(&mut cluster, measured)
}

async fn measure(lab: &Lab, cluster: &mut Cluster, window: Duration) -> anyhow::Result<Verdict> {
    let rounds = lab.or_short(10, 1);
    // None is four times as long as the mean: each has time to end, whenever it has begun.
    let mean = window / 4;
    let calls = lab.or_short(60, 24);
    let mut random = lab.random("rollover");
    let world = Arc::new(World::new(cluster.carrier(), cluster.addresses()));
    let bar = lab.bar(rounds * REPLICAS as u64, "rollover");
    let over = Arc::new(AtomicBool::new(false));
    let mut callers = callers(&world, &over, calls - LONG_CALLS, mean, &mut random);
    let door = world.carrier.door();
    let brief = StdRng::from_rng(&mut random);
    let arrivals = Arrivals::start(&world, BRIEF_PER_SECOND, brief, move |random| {
        Life::talking(random, door, MOMENT)
    });
    sleep(mean).await; // Until the house is as full as it will be.
    let mut replaced = Vec::new();
    for _ in 0..rounds {
        for _ in 0..LONG_CALLS {
            let (world, mut random) = (Arc::clone(&world), StdRng::from_rng(&mut random));
            callers.spawn(async move {
                let talking = Life::talking(&mut random, door, mean);
                let Media::Talks(_, ending) = talking.media else {
                    return;
                };
                let media = Media::Talks(window * 3 / 2, ending);
                world.live(&Life { media, ..talking }).await;
            });
        }
        sleep(SETTLING).await;
        replace_all(&world, cluster, window, &bar, &mut replaced).await?;
    }
    over.store(true, Ordering::Relaxed);
    let ended = timeout(window * 2, callers.join_all()).await;
    ensure!(ended.is_ok(), "some calls do not end");
    arrivals.end(lab).await?;
    bar.finish_and_clear();
    Ok(judge(lab, &world, &replaced, calls, window))
}

/// Lets callers talk, and ring again when they have hung up, until it is over.
fn callers(
    world: &Arc<World>,
    over: &Arc<AtomicBool>,
    count: usize,
    mean: Duration,
    random: &mut StdRng,
) -> JoinSet<()> {
    let mut callers = JoinSet::new();
    for _ in 0..count {
        let (world, over) = (Arc::clone(world), Arc::clone(over));
        let mut random = StdRng::from_rng(random);
        callers.spawn(async move {
            let door = world.carrier.door();
            while !over.load(Ordering::Relaxed) {
                let life = Life::talking(&mut random, door, mean);
                if !world.live(&life).await {
                    // Nothing is proven by who fails again and again.
                    sleep(MOMENT).await;
                }
            }
        });
    }
    callers
}

async fn replace_all(
    world: &World,
    cluster: &mut Cluster,
    window: Duration,
    bar: &ProgressBar,
    replaced: &mut Vec<Replacement>,
) -> anyhow::Result<()> {
    for (index, replica) in cluster.replicas.iter_mut().enumerate() {
        let stats = replica.page("/stats").await?;
        let held = stats["active_connections"].as_u64();
        let told_at = world.began.elapsed();
        let (exited_after, exited_well) = end(replica, window).await?;
        replica.start().await?;
        replaced.push(Replacement {
            replica: index + 1,
            held: held.context("/stats says nothing of connections")?,
            told_at,
            exited_after,
            exited_well,
            back_after: world.began.elapsed().saturating_sub(told_at),
        });
        bar.inc(1);
        sleep(SETTLING).await;
    }
    Ok(())
}

/// Asks a replica to end; tells how long that took, and whether it ended as it should.
async fn end(replica: &mut Replica, window: Duration) -> anyhow::Result<(Duration, bool)> {
    let began = Instant::now();
    replica.signal(Signal::Terminate)?;
    let status = loop {
        if let Some(status) = replica.ended()? {
            break status;
        }
        ensure!(began.elapsed() < window + HUNG, "a replica does not end");
        sleep(Duration::from_millis(20)).await;
    };
    Ok((began.elapsed(), status.success()))
}

fn judge(
    lab: &Lab,
    world: &World,
    replaced: &[Replacement],
    calls: usize,
    window: Duration,
) -> Verdict {
    let counts = world.counts();
    let failed: BTreeMap<&str, u64> = counts
        .iter()
        .filter(|(what, _)| match **what {
            "refused" | "hung_up" => true,
            other => other.starts_with("webhooks_") || other.starts_with("media_"),
        })
        .map(|(what, count)| (*what, *count))
        .collect();
    let losses = world.losses();
    let cut = losses
        .iter()
        .filter(|at| !replaced.iter().any(|one| one.was_over(**at, window)))
        .count();
    let goodbyes = losses.len() - cut;
    let said_goodbye = |one: &Replacement| losses.iter().any(|at| one.was_over(*at, window));
    let exits_in_time = replaced.iter().all(|one| {
        let goodbyes = if said_goodbye(one) {
            GOODBYES
        } else {
            Duration::ZERO
        };
        one.exited_after <= window + goodbyes + EXIT.mul_f64(SLACK)
    });
    let slowest = replaced.iter().map(|one| one.exited_after).max();
    let slowest = slowest.unwrap_or_default();
    let checks = BTreeMap::from([
        ("nothing_failed", failed.is_empty()),
        ("no_call_cut_inside_the_window", cut == 0),
        ("exits_in_time", exits_in_time),
        ("exits_well", replaced.iter().all(|one| one.exited_well)),
        // Or nothing was there to be cut.
        ("calls_were_held", replaced.iter().all(|one| one.held > 0)),
        // In one round, by chance, none of the long calls may be at the first replica.
        ("the_window_was_used", lab.short || goodbyes > 0),
    ]);
    let missed: Vec<&str> = checks.iter().filter(|it| !it.1).map(|it| *it.0).collect();
    let webhooks = world.rings().len();
    let line = format!(
        "{} replicas replaced under {calls} calls: {webhooks} rings and {} calls, failed {failed:?}, \
         {cut} cut inside the window of {window:?}, {goodbyes} told goodbye after it; slowest exit \
         {slowest:.1?} (missed: {missed:?})",
        replaced.len(),
        counts.get("admitted").copied().unwrap_or_default(),
    );
    Verdict {
        passed: missed.is_empty(),
        line,
        parameters: json!({
            "calls": calls, "long_calls": LONG_CALLS, "replicas": REPLICAS,
            "window_seconds": window.as_secs(), "mean_call_seconds": (window / 4).as_secs_f64(),
            "brief_per_second": BRIEF_PER_SECOND, "slack": SLACK,
        }),
        result: json!({
            "checks": checks, "failed": failed, "cut": cut, "goodbyes": goodbyes, "calls": counts,
            "replaced": replaced.len(), "slowest_exit_ms": milliseconds(slowest),
        }),
        samples: replaced.iter().map(Replacement::sample).collect(),
        logs: None,
    }
}

impl Replacement {
    /// Tells whether this replica's window was over at a time, and its calls might end.
    fn was_over(&self, at: Duration, window: Duration) -> bool {
        let over = (self.told_at + window).saturating_sub(TICK);
        (over..=self.told_at + self.exited_after + SEEN_WITHIN).contains(&at)
    }

    fn sample(&self) -> Value {
        json!({
            "replica": self.replica, "held": self.held, "told_at_ms": milliseconds(self.told_at),
            "exited_after_ms": milliseconds(self.exited_after), "exited_well": self.exited_well,
            "back_after_ms": milliseconds(self.back_after),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_may_be_ended_only_between_the_end_of_the_window_and_that_of_its_replica() {
        let seconds = Duration::from_secs;
        let one = Replacement {
            replica: 1,
            held: 20,
            told_at: seconds(100),
            exited_after: seconds(62),
            exited_well: true,
            back_after: seconds(63),
        };
        for (at, expected) in [
            (99, false),
            (130, false),
            (159, false),
            (160, true),
            (162, true),
        ] {
            assert_eq!(one.was_over(seconds(at), seconds(60)), expected, "{at}");
        }
        assert!(!one.was_over(seconds(165), seconds(60)), "another's call");
    }
}
