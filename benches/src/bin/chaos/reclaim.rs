//! R4: how long the slots of a killed replica stay taken.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use callgate_benches::carrier::{Carrier, Ending};
use callgate_benches::cluster::Cluster;
use callgate_benches::twilio::Answer;
use rand::RngExt;
use rand::rngs::StdRng;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, sleep};

use crate::lab::{Lab, Verdict, conclude};
use crate::life::sid;
use crate::statistics::rounded;

const POLL: Duration = Duration::from_millis(100);
/// How long slots may take to be written down.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longer than any call here.
const LONG: Duration = Duration::from_secs(600);

/// What one kill came to.
struct Reclaimed {
    after: Duration,
    /// How many were left at each poll.
    left: Vec<u64>,
}

pub async fn run(lab: &Lab) -> anyhow::Result<Verdict> {
    // The shortest lease there is, where a run has to be short.
    let lease = lab.or_short(30, 15);
    let options = lab
        .options()
        .set("MAX_ACTIVE_CALLS", 200)
        .set("TELEPHONY_SEMAPHORE_TTL_SEC", lease);
    let mut cluster = Cluster::start(&options).await?;
    let measured = measure(lab, &mut cluster, Duration::from_secs(lease)).await;
    conclude(&mut cluster, measured)
}

async fn measure(lab: &Lab, cluster: &mut Cluster, lease: Duration) -> anyhow::Result<Verdict> {
    let (calls, kills) = (lab.or_short(50, 10), lab.or_short(30, 1));
    let goal = lease + Duration::from_secs(1);
    let mut random = lab.random("reclaim");
    let bar = lab.bar(kills, "reclaim");
    let (mut seconds, mut left) = (Vec::new(), Vec::new());
    let mut worst = Duration::ZERO;
    for _ in 0..kills {
        let victim = random.random_range(0..cluster.replicas.len());
        let reclaimed = reclaim(cluster, victim, calls, goal, &mut random).await?;
        worst = worst.max(reclaimed.after);
        seconds.push(rounded(reclaimed.after.as_secs_f64()));
        left.push(reclaimed.left);
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(Verdict {
        passed: worst <= goal,
        line: format!("{kills} kills with {calls} calls: the worst took {worst:.1?} of {goal:?}"),
        parameters: json!({
            "calls": calls, "kills": kills, "lease_seconds": lease.as_secs(),
            "poll_ms": POLL.as_millis(), "replicas": cluster.replicas.len(),
        }),
        result: json!({
            "worst_seconds": rounded(worst.as_secs_f64()),
            "goal_seconds": goal.as_secs(),
        }),
        samples: json!({"seconds": seconds, "scard_each_100_ms": left}),
        logs: None,
    })
}

/// Fills a replica with live calls, kills it, and waits until `SCARD` no longer counts them.
async fn reclaim(
    cluster: &mut Cluster,
    victim: usize,
    calls: u64,
    goal: Duration,
    random: &mut StdRng,
) -> anyhow::Result<Reclaimed> {
    let address = cluster.replicas[victim].address;
    let carrier = Arc::new(Carrier::new(format!("http://{}", cluster.door), address));
    let mut talking = JoinSet::new();
    for _ in 0..calls {
        talk(&carrier, address, sid(random), &mut talking).await?;
    }
    let began = Instant::now();
    loop {
        let written = cluster.redis()?.count("SCARD", "calls:active").await?;
        let health = cluster.replicas[victim].page("/health").await?;
        if written == calls && health["active_connections"] == calls {
            break;
        }
        ensure!(
            began.elapsed() < PATIENCE,
            "of {calls} calls {written} are written down; the replica says: {health}"
        );
        sleep(POLL).await;
    }
    // At any moment between two heartbeats, so that the leases are of any age.
    sleep(Duration::from_millis(random.random_range(0..5_000))).await;
    cluster.replicas[victim].kill()?;
    let killed = Instant::now();
    let mut left = Vec::new();
    let mut polls = interval(POLL);
    let after = loop {
        polls.tick().await;
        let count = cluster.redis()?.count("SCARD", "calls:active").await?;
        left.push(count);
        if count == 0 {
            break killed.elapsed();
        }
        // Twice the goal has failed as thoroughly as for ever.
        if goal * 2 < killed.elapsed() {
            break killed.elapsed();
        }
    };
    cluster.replicas[victim].start().await?;
    talking.join_all().await;
    Ok(Reclaimed { after, left })
}

/// Brings a call to one replica, media included.
async fn talk(
    carrier: &Arc<Carrier>,
    replica: SocketAddr,
    sid: String,
    talking: &mut JoinSet<()>,
) -> anyhow::Result<()> {
    let rung = carrier.ring(replica, &sid).await?;
    let Answer::Connect(stream) = rung.answer else {
        anyhow::bail!("{sid} was not admitted: {:?}", rung.answer);
    };
    let media = carrier.open(&sid, &stream).await.context("no media")?;
    let carrier = Arc::clone(carrier);
    talking.spawn(async move {
        media.talk(LONG, Ending::HangsUp, &carrier.truth).await;
    });
    Ok(())
}
