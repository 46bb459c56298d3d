//! R14, R15: what callers get when up to ten times as many ring as there is room for, and what that
//! does to the audio of those who talk.
//!
//! Calls arrive at random times, however those before them fare, and are measured from when they
//! were due: a slow answer does not hide those behind it. Beside them a few calls talk with an agent
//! that sends back every frame, in every stretch of the run and before it: their room is their own.

mod judging;
mod probe;

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::time::Duration;

use callgate_benches::cluster::{Cluster, Parrot};
use rand::SeedableRng;
use rand::rngs::StdRng;
use tempfile::TempDir;
use tokio::time::sleep;

use self::judging::judge;
use self::probe::{Heard, PROBES};
use crate::arrivals::Arrivals;
use crate::lab::{Lab, Verdict, conclude};
use crate::life::{Life, Ring, World};
use crate::sampler::{Sampler, Seen};
use crate::statistics::number;

/// What is dialed by the calls whose audio is measured.
const PROBED: &str = "+15550000002";

/// How a run is cut into stretches.
struct Course {
    /// Calls that there is room for, beside those whose audio is measured.
    cap: usize,
    mean: Duration,
    /// How many times as many ring as there is room for.
    loads: &'static [f64],
    plateau: Duration,
    idle: Duration,
    recovery: Duration,
}

/// What was seen of one plateau. Times are since the world began.
struct Plateau {
    load: f64,
    from: Duration,
    to: Duration,
    /// Live calls, without the time in which the house filled.
    seen: Seen,
    heard: Heard,
}

/// What was seen of all of them.
struct Observed {
    /// The audio while nobody else called.
    idle: Heard,
    plateaus: Vec<Plateau>,
    /// When the burst was over, and when it was looked no more.
    burst_over: Duration,
    over: Duration,
    rings: Vec<Ring>,
    counts: BTreeMap<&'static str, u64>,
}

impl Course {
    fn of(lab: &Lab) -> Self {
        let seconds = Duration::from_secs;
        Self {
            cap: lab.or_short(60, 10),
            mean: seconds(lab.or_short(6, 2)),
            loads: lab.or_short(&[0.5, 1.0, 2.0, 5.0, 10.0], &[0.5, 2.0, 10.0]),
            plateau: seconds(lab.or_short(60, 3)),
            idle: seconds(lab.or_short(20, 2)),
            recovery: seconds(lab.or_short(20, 4)),
        }
    }

    /// Calls a second for which there is just room.
    fn capacity(&self) -> f64 {
        number(self.cap) / self.mean.as_secs_f64()
    }
}

pub async fn run(lab: &Lab) -> anyhow::Result<Verdict> {
    let course = Course::of(lab);
    let directory = TempDir::with_prefix("callgate-overload-")?;
    let config = directory.path().join("campaigns.toml");
    let mut agent = Parrot::choose()?;
    fs::write(&config, campaigns(&course, &agent))?;
    let options = lab
        .options()
        .set("MAX_ACTIVE_CALLS", course.cap + PROBES)
        .set("CALLGATE_CONFIG", config.display());
    let mut cluster = Cluster::start(&options).await?;
    let directory = cluster.directory();
    agent.start(&lab.gateway, directory, &["--echo"]).await?;
    let measured = measure(lab, &cluster, &course).await;
    let verdict = measured.map(|observed| judge(lab, &course, &observed));
    conclude(&mut cluster, verdict)
}

/// Describes a campaign for those who ring, and one for the calls whose audio is measured.
fn campaigns(course: &Course, agent: &Parrot) -> String {
    format!(
        "default_campaign = \"any\"\n\
         [agents.echo]\nkind = \"openai\"\nurl = \"{}\"\napi_key = \"any\"\ngreeting = \"none\"\n\
         [campaigns.any]\nmax_calls = {}\n\
         [campaigns.probed]\nnumbers = [\"{PROBED}\"]\nagent = \"echo\"\nmax_calls = {PROBES}\n",
        agent.url(),
        course.cap,
    )
}

async fn measure(lab: &Lab, cluster: &Cluster, course: &Course) -> anyhow::Result<Observed> {
    let mut random = lab.random("overload");
    let world = Arc::new(World::new(cluster.carrier(), cluster.addresses()));
    let bar = lab.bar(course.loads.len() as u64 + 2, "overload");
    let probe = async |name: &str, long| probe::measure(lab, cluster, name, long).await;
    let idle = probe("idle", course.idle).await?;
    bar.inc(1);

    let (door, mean) = (world.carrier.door(), course.mean);
    let calls = StdRng::from_rng(&mut random);
    let arrivals = Arrivals::start(&world, 0.0, calls, move |random| {
        Life::talking(random, door, mean)
    });
    let mut plateaus = Vec::new();
    for load in course.loads {
        let from = world.began.elapsed();
        arrivals.set_rate(load * course.capacity());
        let filled = async {
            sleep(mean.min(course.plateau / 2)).await;
            let sampler = Sampler::start(&world, course.cap);
            sleep(course.plateau.saturating_sub(mean)).await;
            sampler.stop()
        };
        let name = format!("load-{load}");
        let (seen, heard) = tokio::join!(filled, probe(&name, course.plateau));
        plateaus.push(Plateau {
            load: *load,
            from,
            to: world.began.elapsed(),
            seen: seen?,
            heard: heard?,
        });
        bar.inc(1);
    }
    let burst_over = world.began.elapsed();
    arrivals.set_rate(course.capacity() / 2.0);
    sleep(course.recovery).await;
    let observed = Observed {
        idle,
        plateaus,
        burst_over,
        over: world.began.elapsed(),
        rings: world.rings(),
        counts: world.counts(),
    };
    arrivals.end(lab).await?;
    bar.finish_and_clear();
    Ok(observed)
}
