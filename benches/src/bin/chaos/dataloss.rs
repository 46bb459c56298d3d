//! R5: calls beyond the cap after Redis has forgotten everything, while more ring than there is
//! room for.

use std::sync::Arc;
use std::time::Duration;

use callgate_benches::cluster::Cluster;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use serde_json::json;
use tokio::time::sleep;

use crate::arrivals::Arrivals;
use crate::lab::{Lab, Verdict, conclude};
use crate::life::{Life, World};
use crate::registry::until_true;
use crate::sampler::Sampler;
use crate::statistics::{milliseconds, number};

/// How long it may take until everything is written down again.
const GOAL: Duration = Duration::from_secs(6);
/// How much more rings than there is room for.
const OVERLOAD: f64 = 3.0;

#[derive(Debug, Clone, Copy)]
enum Loss {
    /// It forgets.
    Flushed,
    /// It dies, and another one comes that knows nothing.
    Restarted,
}

pub async fn run(lab: &Lab) -> anyhow::Result<Verdict> {
    let options = lab.options().set("MAX_ACTIVE_CALLS", cap(lab));
    let mut cluster = Cluster::start(&options).await?;
    let measured = measure(lab, &mut cluster).await;
    conclude(&mut cluster, measured)
}

fn cap(lab: &Lab) -> usize {
    lab.or_short(60, 20)
}

async fn measure(lab: &Lab, cluster: &mut Cluster) -> anyhow::Result<Verdict> {
    let cap = cap(lab);
    // Far shorter than a heartbeat is the worst case.
    let mean = Duration::from_secs(lab.or_short(2, 1));
    let (flushes, restarts) = (lab.or_short(8, 1), lab.or_short(4, 1));
    let mut random = lab.random("dataloss");
    let mut losses = vec![Loss::Flushed; flushes];
    losses.extend(vec![Loss::Restarted; restarts]);
    losses.shuffle(&mut random);

    let world = Arc::new(World::new(cluster.carrier(), cluster.addresses()));
    let rate = OVERLOAD * number(cap) / mean.as_secs_f64();
    let calls = StdRng::from_rng(&mut random);
    let door = world.carrier.door();
    let arrivals = Arrivals::start(&world, rate, calls, move |random| {
        Life::talking(random, door, mean)
    });
    let bar = lab.bar(losses.len() as u64, "dataloss");
    sleep(mean * 2).await; // The house fills.
    let sampler = Sampler::start(&world, cap);
    let (mut healed, mut never_healed) = (Vec::new(), Vec::new());
    for loss in &losses {
        match loss {
            Loss::Flushed => cluster.redis()?.flush().await?,
            Loss::Restarted => {
                let redis = cluster.redis()?;
                redis.kill()?;
                redis.restart().await?;
            }
        }
        let waited = until_true(cluster.redis()?, &world.carrier.truth, GOAL * 2).await;
        match waited {
            Ok(after) => healed.push(after),
            Err(difference) => never_healed.push(difference),
        }
        // The gate is up for three seconds; the next loss comes before or after its end.
        let latest = lab.or_short(5_000, 4_000);
        sleep(Duration::from_millis(random.random_range(0..latest))).await;
        bar.inc(1);
    }
    let seen = sampler.stop()?;
    bar.finish_and_clear();
    arrivals.end(lab).await?;

    let slowest = healed.iter().max().copied().unwrap_or_default();
    let truth = &world.carrier.truth;
    let passed =
        seen.over_cap == 0 && truth.peak() <= cap && never_healed.is_empty() && slowest <= GOAL;
    let line = format!(
        "{} losses: {} of {} samples over, at most {} of {cap} live, registry true after {:.1?} at \
         the latest, {} times not at all",
        losses.len(),
        seen.over_cap,
        seen.samples,
        truth.peak(),
        slowest,
        never_healed.len()
    );
    let healed: Vec<f64> = healed.into_iter().map(milliseconds).collect();
    Ok(Verdict {
        passed,
        line,
        parameters: json!({
            "flushes": flushes, "restarts": restarts, "cap": cap, "overload": OVERLOAD,
            "mean_call_seconds": mean.as_secs_f64(), "goal_seconds": GOAL.as_secs(),
        }),
        result: json!({
            "samples": seen.samples, "over_cap": seen.over_cap, "peak": truth.peak(),
            "mean_live": seen.mean, "slowest_ms": milliseconds(slowest),
            "never_true": never_healed, "calls": world.counts(),
        }),
        samples: json!({
            "losses": losses.iter().map(|loss| format!("{loss:?}")).collect::<Vec<_>>(),
            "true_after_ms": healed, "live": seen.live,
        }),
        logs: None,
    })
}
