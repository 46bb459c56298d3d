//! R1: slots that are left over after many short calls on replicas that are killed.
//!
//! Calls are admitted, repeated, duplicated, cut, forgotten and ended twice; replicas die at random
//! times and come back. When all is over and the last lease has lapsed, nothing may be left.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::ensure;
use callgate_benches::carrier::Ending;
use callgate_benches::cluster::{Cluster, leftovers};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::lab::{Lab, Verdict, conclude};
use crate::life::{Life, Media, World, around, sid};

/// Callers who call again and again.
const CALLERS: u32 = 40;
const CAP: u32 = 60;

pub async fn run(lab: &Lab) -> anyhow::Result<Verdict> {
    // The shortest lease there is, where a run has to be short.
    let lease = lab.or_short(30, 15);
    let options = lab
        .options()
        .set("MAX_ACTIVE_CALLS", CAP)
        .set("TELEPHONY_SEMAPHORE_TTL_SEC", lease);
    let mut cluster = Cluster::start(&options).await?;
    let measured = measure(lab, &mut cluster, Duration::from_secs(lease)).await;
    conclude(&mut cluster, measured)
}

async fn measure(lab: &Lab, cluster: &mut Cluster, lease: Duration) -> anyhow::Result<Verdict> {
    let lifecycles = lab.or_short(10_000, 200);
    let kills = lab.or_short(14, 2);
    let mut random = lab.random("leaks");
    let world = Arc::new(World::new(cluster.carrier(), cluster.addresses()));
    let completed = Arc::new(AtomicU64::new(0));
    let bar = lab.bar(lifecycles, "leaks");

    let mut callers = JoinSet::new();
    for _ in 0..CALLERS {
        let (world, completed, bar) = (Arc::clone(&world), Arc::clone(&completed), bar.clone());
        let mut random = StdRng::from_rng(&mut random);
        callers.spawn(async move {
            while completed.load(Ordering::Relaxed) < lifecycles {
                let life = life(&mut random, &world);
                if world.live(&life).await {
                    completed.fetch_add(1, Ordering::Relaxed);
                    bar.inc(1);
                }
                // Who hears that the line is busy does not ring again at once.
                sleep(around(&mut random, Duration::from_millis(100))).await;
            }
        });
    }
    let mut killed = Vec::new();
    for kill in 1..=kills {
        let due = lifecycles * kill / (kills + 1);
        while completed.load(Ordering::Relaxed) < due && !callers.is_empty() {
            sleep(Duration::from_millis(20)).await;
            while callers.try_join_next().is_some() {}
        }
        sleep(around(&mut random, Duration::from_millis(300))).await;
        let victim = random.random_range(0..cluster.replicas.len());
        cluster.replicas[victim].kill()?;
        killed.push(json!({"replica": victim + 1, "live": world.carrier.truth.live()}));
        sleep(around(&mut random, Duration::from_millis(700))).await;
        cluster.replicas[victim].start().await?;
    }
    callers.join_all().await;
    bar.finish_and_clear();
    let completed = completed.load(Ordering::Relaxed);
    ensure!(
        world.carrier.truth.live() == 0,
        "the carrier has calls left"
    );

    // A replica that lives reaps what others left; a call that never came holds on for 20 s.
    let setup = Duration::from_secs(20);
    sleep(lease.max(setup) + Duration::from_secs(1)).await;
    let redis = cluster.redis()?;
    let zcard = redis.count("ZCARD", "calls:lease").await?;
    let scard = redis.count("SCARD", "calls:active").await?;
    let count = redis.count("GET", "calls:active_count").await?;
    let keys = redis.keys().await?;
    let leftovers = leftovers(&keys);
    let mut connections = Vec::new();
    for replica in &cluster.replicas {
        let stats = replica.page("/stats").await?;
        connections.push(stats["active_connections"].clone());
    }
    let passed = zcard == 0
        && scard == 0
        && count == 0
        && leftovers.is_empty()
        && connections.iter().all(|open| *open == 0);
    Ok(Verdict {
        passed,
        line: format!(
            "{completed} lifecycles, {kills} kills: ZCARD {zcard}, SCARD {scard}, count {count}, \
             {} keys that should be gone",
            leftovers.len()
        ),
        parameters: json!({
            "lifecycles": lifecycles, "kills": kills, "replicas": cluster.replicas.len(),
            "cap": CAP, "callers": CALLERS, "lease_seconds": lease.as_secs(),
        }),
        result: json!({
            "completed": completed, "zcard": zcard, "scard": scard, "count": count,
            "leftovers": leftovers, "keys": keys.len(), "connections": connections,
            "calls": world.counts(),
        }),
        samples: json!({"killed": killed}),
        logs: None,
    })
}

fn life(random: &mut StdRng, world: &World) -> Life {
    let door = world.carrier.door();
    let mut rings_at = vec![door];
    if random.random_bool(0.1) {
        // Two copies at once, on two replicas.
        let first = random.random_range(0..world.replicas.len());
        let second = (first + 1) % world.replicas.len();
        rings_at = vec![world.replicas[first], world.replicas[second]];
    }
    let time = around(random, Duration::from_millis(400));
    let media = match random.random_range(0..100) {
        0..5 => Media::NeverComes(time),
        5..20 => Media::Talks(time, Ending::Dies),
        _ => Media::Talks(time, Ending::HangsUp),
    };
    let finals = match random.random_range(0..100) {
        0..2 => 0,
        2..12 => 2,
        _ => 1,
    };
    Life {
        sid: sid(random),
        rings_at,
        media,
        finals,
        rings_again: random.random_bool(0.05),
    }
}
