//! R2: calls that are admitted beyond a cap when very many ring at the same moment.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use callgate_benches::carrier::{Carrier, Ending};
use callgate_benches::cluster::Cluster;
use callgate_benches::twilio::{Answer, Stream};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use serde_json::json;
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::lab::{Lab, Verdict, conclude};
use crate::life::sid;
use crate::statistics::milliseconds;

const AT_ONCE: usize = 1_002;
/// The cap on all calls, and a number that is no campaign's own.
const CAP: usize = 100;
const ANY: &str = "+15550000000";
/// Caps of campaigns, and whom to dial for them.
const CAMPAIGNS: [(usize, &str); 2] = [(1, "+15550000001"), (15, "+15550000015")];
/// How long admitted calls may take to give their slots back.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longer than a replica may remember that a cap was full.
const REST: Duration = Duration::from_millis(100);

pub async fn run(lab: &Lab) -> anyhow::Result<Verdict> {
    let directory = TempDir::with_prefix("callgate-overadmission-")?;
    let config = directory.path().join("campaigns.toml");
    fs::write(&config, campaigns())?;
    let options = lab
        .options()
        .set("MAX_ACTIVE_CALLS", CAP)
        .set("CALLGATE_CONFIG", config.display());
    let mut cluster = Cluster::start(&options).await?;
    let mut random = lab.random("overadmission");
    let mut parts = Vec::new();
    for (cap, called) in CAMPAIGNS.into_iter().chain([(CAP, ANY)]) {
        let measured = measure(lab, &cluster, (cap, called), &mut random).await;
        parts.push((cap.to_string(), conclude(&mut cluster, measured)?));
    }
    let caps: Vec<&String> = parts.iter().map(|(cap, _)| cap).collect();
    let parameters = json!({
        "at_once": AT_ONCE, "caps": caps, "trials": trials(lab),
        "replicas": lab.options().replicas,
    });
    Ok(Verdict::of(parts, parameters))
}

/// Describes campaigns with caps of their own, and one that has all the room there is.
fn campaigns() -> String {
    let capped = CAMPAIGNS.map(|(cap, number)| {
        format!("[campaigns.with-{cap}]\nnumbers = [\"{number}\"]\nmax_calls = {cap}\n")
    });
    let rest = "default_campaign = \"any\"\n[campaigns.any]\nmax_calls = 10000\n";
    rest.to_owned() + &capped.concat()
}

fn trials(lab: &Lab) -> u64 {
    lab.or_short(100, 2)
}

async fn measure(
    lab: &Lab,
    cluster: &Cluster,
    (cap, called): (usize, &str),
    random: &mut StdRng,
) -> anyhow::Result<Verdict> {
    let trials = trials(lab);
    let bar = lab.bar(trials, "overadmission");
    let carrier = Arc::new(cluster.carrier().dialing(called));
    let (mut admitted, mut took) = (Vec::new(), Vec::new());
    for _ in 0..trials {
        let (streams, time) = ring_at_once(cluster, &carrier, random).await?;
        took.push(milliseconds(time));
        admitted.push(streams.len());
        // Their media comes: calls without it would make admission careful. And it is their media
        // that ends them: a status could overtake it.
        let mut calls = JoinSet::new();
        for (sid, stream) in streams {
            let carrier = Arc::clone(&carrier);
            calls.spawn(async move {
                let media = carrier.open(&sid, &stream).await?;
                media
                    .talk(Duration::ZERO, Ending::HangsUp, &carrier.truth)
                    .await;
                anyhow::Ok(())
            });
        }
        for over in calls.join_all().await {
            over.context("an admitted call was not let in")?;
        }
        until_empty(cluster).await?;
        sleep(REST).await;
        bar.inc(1);
    }
    bar.finish_and_clear();
    let expected = cap.min(AT_ONCE);
    let over: usize = admitted
        .iter()
        .map(|one| one.saturating_sub(expected))
        .sum();
    let under: usize = admitted
        .iter()
        .map(|one| expected.saturating_sub(*one))
        .sum();
    let exact = admitted.iter().filter(|one| **one == expected).count();
    Ok(Verdict {
        passed: exact == admitted.len(),
        line: format!("cap {cap}: {exact} of {trials} exact, {over} over, {under} under"),
        parameters: json!({}),
        result: json!({"trials": trials, "exact": exact, "over": over, "under": under}),
        samples: json!({"admitted": admitted, "took_ms": took}),
        logs: None,
    })
}

/// Rings with as many calls, equally many at each replica, over connections that are open already.
/// Returns those that may come in, and how long it took until all were answered.
async fn ring_at_once(
    cluster: &Cluster,
    carrier: &Arc<Carrier>,
    random: &mut StdRng,
) -> anyhow::Result<(Vec<(String, Stream)>, Duration)> {
    let replicas = cluster.addresses();
    for replica in &replicas {
        let share = AT_ONCE.div_ceil(replicas.len());
        carrier.http.connect(*replica, share).await?;
    }
    let rings = replicas.iter().cycle().take(AT_ONCE);
    let mut rings: Vec<_> = rings.map(|replica| (*replica, sid(random))).collect();
    rings.shuffle(random);
    let began = Instant::now();
    let mut ringing = JoinSet::new();
    for (replica, sid) in rings {
        let carrier = Arc::clone(carrier);
        ringing.spawn(async move {
            let rung = carrier.ring(replica, &sid).await?;
            anyhow::Ok((sid, rung.answer))
        });
    }
    let rung = ringing.join_all().await;
    let took = began.elapsed();
    let mut streams = Vec::new();
    for rung in rung {
        match rung? {
            (sid, Answer::Connect(stream)) => streams.push((sid, stream)),
            (_, Answer::Told(_)) => {}
            (sid, Answer::HungUp) => bail!("{sid} rang for the first time: hung up"),
        }
    }
    Ok((streams, took))
}

/// Waits until every slot is back.
async fn until_empty(cluster: &Cluster) -> anyhow::Result<()> {
    let began = Instant::now();
    loop {
        let held = if let Some(redis) = &cluster.redis {
            redis.leased().await?.len() as u64
        } else {
            let details = cluster.replicas[0].page("/health/details").await?;
            details["active_calls"]
                .as_u64()
                .context("no active_calls")?
        };
        if held == 0 {
            return Ok(());
        }
        ensure!(began.elapsed() < PATIENCE, "{held} slots do not come back");
        sleep(Duration::from_millis(10)).await;
    }
}
