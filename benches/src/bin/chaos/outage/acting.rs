//! What is done in an outage, and what is seen of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use callgate_benches::cluster::{Cluster, Way};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::time::{Instant, sleep};

use super::{CAP, Case, Fault, OCCUPANCY, OVERLOAD, mean};
use crate::arrivals::Arrivals;
use crate::health::{RECOVERY, degraded, until_recovered};
use crate::lab::Lab;
use crate::life::{Life, Media, Ring, World};
use crate::registry::{Difference, compare, until_true};
use crate::sampler::{Sampler, Seen};
use crate::statistics::number;

/// How many of all callers bring no media, where some do not.
pub const SILENT_CALLERS: f64 = 0.2;
/// How long they stay: a moment less than their slot, which is nobody's afterwards.
const SILENCE: Duration = Duration::from_secs(19);
/// How long the registry may take to be true: until replicas are well again, their debts are told,
/// and what had arrived late has been put right.
const TRUE_WITHIN: Duration = Duration::from_secs(20);

/// What was seen of an outage. Times are since the world began.
pub struct Observed {
    /// How many calls were live when Redis went.
    pub live_before: usize,
    pub holdings: Holdings,
    /// When Redis went, when the house had filled, when Redis was back, and when it was over.
    pub gone: Duration,
    pub filled: Duration,
    pub back: Duration,
    pub over: Duration,
    /// The most calls that were live at once from `gone` on.
    pub peak: usize,
    /// The same from when replicas were well again and what was above the cap had ended; `None` if
    /// it did not end.
    pub peak_after: Option<usize>,
    /// From its beginning to the end of the recovery.
    pub seen: Seen,
    /// While it lasted, without the time in which the house filled.
    pub full: Seen,
    pub degraded_replicas: usize,
    /// How Redis differed from what was so just before it was back, where it answers meanwhile:
    /// its ghosts are slots that nobody uses.
    pub differed: Option<Difference>,
    /// How long it took until no replica was degraded.
    pub recovered: Option<Duration>,
    /// How long it took until Redis knew exactly the live calls.
    pub registry: Result<Duration, Difference>,
    pub rings: Vec<Ring>,
    pub counts: BTreeMap<&'static str, u64>,
}

/// What Redis had written down when it went.
#[derive(Debug, Clone, Copy, Default)]
pub struct Holdings {
    pub all: usize,
    /// The slots that the first replica looks after, which is the one that is cut off.
    pub first: usize,
}

pub async fn measure(
    lab: &Lab,
    cluster: &mut Cluster,
    case: &Case,
    mut random: StdRng,
) -> anyhow::Result<Observed> {
    let mean = mean(lab);
    let silent = if case.with_silent_callers {
        SILENT_CALLERS
    } else {
        0.0
    };
    let stay = mean.mul_f64(1.0 - silent) + SILENCE.mul_f64(silent);
    let room = number(CAP) / stay.as_secs_f64();
    let world = Arc::new(World::new(cluster.carrier(), cluster.addresses()));
    let door = world.carrier.door();
    let calls = StdRng::from_rng(&mut random);
    let arrivals = Arrivals::start(&world, 0.0, calls, move |random| {
        let talks = Life::talking(random, door, mean);
        if !random.random_bool(silent) {
            return talks;
        }
        Life {
            media: Media::NeverComes(SILENCE),
            finals: 0, // Or its slot would not have to lapse.
            ..talks
        }
    });
    if case.fault != Fault::ColdStart {
        arrivals.set_rate(OCCUPANCY * room);
        sleep(stay * lab.or_short(4, 2)).await;
    }

    let holdings = holdings(cluster).await?;
    let (live_before, gone) = (world.carrier.truth.live(), world.began.elapsed());
    world.carrier.truth.forget_peak();
    begin(cluster, case.fault).await?;
    arrivals.set_rate(OVERLOAD * room);
    let whole = Sampler::start(&world, CAP);
    let rising = stay.min(case.length / 2);
    sleep(rising).await;
    let (full, filled) = (Sampler::start(&world, CAP), world.began.elapsed());
    let degraded_replicas = degraded(&cluster.replicas).await?;
    sleep(case.length.saturating_sub(rising)).await;
    let full = full.stop()?;
    let differed = differs(cluster, &world, case.fault).await?;
    let back = world.began.elapsed();
    end(cluster, case.fault).await?;
    let redis = cluster.redis.as_ref().context("there is no Redis")?;
    let (recovered, registry) = tokio::join!(
        until_recovered(&cluster.replicas),
        until_true(redis, &world.carrier.truth, TRUE_WITHIN),
    );
    let recovered = recovered?;
    let within_cap = until_within_cap(&world).await;
    let peak = world.carrier.truth.peak();
    world.carrier.truth.forget_peak();
    sleep(Duration::from_secs(lab.or_short(10, 3))).await;
    let peak_after = within_cap.then(|| world.carrier.truth.peak());
    let observed = Observed {
        live_before,
        holdings,
        gone,
        filled,
        back,
        over: world.began.elapsed(),
        peak,
        peak_after,
        seen: whole.stop()?,
        full,
        degraded_replicas,
        differed,
        recovered,
        registry,
        rings: world.rings(),
        counts: world.counts(),
    };
    arrivals.end(lab).await?;
    Ok(observed)
}

async fn holdings(cluster: &Cluster) -> anyhow::Result<Holdings> {
    let redis = cluster.redis.as_ref().context("there is no Redis")?;
    let details = cluster.replicas[0].page("/health/details").await?;
    let first = details["replica"].as_str().context("it has no name")?;
    Ok(Holdings {
        all: redis.leased().await?.len(),
        first: redis.held_by(first).await?,
    })
}

async fn differs(
    cluster: &Cluster,
    world: &World,
    fault: Fault,
) -> anyhow::Result<Option<Difference>> {
    match (fault, &cluster.redis) {
        (Fault::CutOff | Fault::CutOffRefused, Some(redis)) => {
            Ok(Some(compare(redis, &world.carrier.truth).await?))
        }
        (Fault::Killed | Fault::Hung | Fault::ColdStart, _) | (_, None) => Ok(None),
    }
}

async fn begin(cluster: &mut Cluster, fault: Fault) -> anyhow::Result<()> {
    match fault {
        Fault::Killed => cluster.redis()?.kill()?,
        Fault::Hung => cluster.redis()?.pause()?,
        Fault::CutOff => cluster.proxy()?.lead(Way::Silent),
        Fault::CutOffRefused => cluster.proxy()?.lead(Way::Refused),
        Fault::ColdStart => {
            cluster.redis()?.kill()?;
            for replica in &mut cluster.replicas {
                replica.kill()?;
            }
            for replica in &mut cluster.replicas {
                replica.start().await?;
            }
        }
    }
    Ok(())
}

async fn end(cluster: &mut Cluster, fault: Fault) -> anyhow::Result<()> {
    match fault {
        Fault::Killed | Fault::ColdStart => cluster.redis()?.restart().await?,
        Fault::Hung => cluster.redis()?.resume()?,
        Fault::CutOff | Fault::CutOffRefused => {
            let redis = cluster.redis()?.address();
            cluster.proxy()?.lead(Way::To(redis));
        }
    }
    Ok(())
}

/// Waits until as many calls have ended as there were too many, which nobody hangs up; tells
/// whether they have.
async fn until_within_cap(world: &World) -> bool {
    let began = Instant::now();
    while CAP < world.carrier.truth.live() {
        if RECOVERY < began.elapsed() {
            return false;
        }
        sleep(Duration::from_millis(20)).await;
    }
    true
}
