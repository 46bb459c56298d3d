//! How long webhooks take at 200 a second: over Redis, while it hangs, and without it; and where all
//! of them are refused, each of which is a row.
//!
//! Calls arrive at fixed times and are measured from then on, whatever the generator was doing, so
//! that one slow answer does not hide those behind it.

mod judging;

use std::fs;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use callgate_benches::carrier::{Carrier, Ending};
use callgate_benches::cluster::{Cluster, Options};
use callgate_benches::twilio::Answer;
use rand::rngs::StdRng;
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use crate::lab::{Lab, Verdict, conclude};
use crate::life::sid;
use crate::records::Records;
use judging::verdict;

const PER_SECOND: u32 = 200;
/// Room for every call there is.
const CAP: u32 = 5_000;
/// When the caller hangs up, after its webhook.
const RINGS_FOR: Duration = Duration::from_millis(300);
/// How long rows may take to be there once the last caller was refused.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longer than a series.
const LONG: Duration = Duration::from_secs(600);
/// Whom to dial to hear that the line is busy.
const BUSY: &str = "+15550000001";

/// What one stretch of time came to.
struct Series {
    name: &'static str,
    /// When a webhook was due, and how long after that it was answered.
    answers: Vec<(Duration, Duration)>,
    /// How late the generator was.
    late: Vec<Duration>,
    admitted: usize,
}

/// Calls that were refused, and the rows that are there of them.
struct Refusals {
    series: Series,
    rows: u64,
    /// From the first webhook until the last row.
    recorded_after: Duration,
}

/// What was measured.
#[derive(Default)]
struct Measured {
    series: Vec<Series>,
    refusals: Vec<Refusals>,
}

pub async fn run(lab: &Lab) -> anyhow::Result<Verdict> {
    let directory = TempDir::with_prefix("callgate-webhooks-")?;
    let config = directory.path().join("campaigns.toml");
    fs::write(&config, campaigns())?;
    let set = |options: Options| {
        let options = options.set("MAX_ACTIVE_CALLS", CAP);
        options.set("CALLGATE_CONFIG", config.display())
    };
    let mut random = lab.random("webhooks");
    let time = Duration::from_secs(lab.or_short(20, 2));
    let bar = lab.bar(lab.or_short(7, 5), "webhooks");

    let mut measured = Measured::default();
    {
        let sqlite = format!("sqlite://{}/records.db", directory.path().display());
        let alone = set(Options::new(lab.gateway.clone(), 1).without_redis());
        let cluster = Cluster::start(&alone.set("DATABASE_URL", &sqlite)).await?;
        let refusals = refuse(
            "refused_memory_sqlite",
            &cluster,
            &sqlite,
            time,
            &mut random,
        );
        measured.refusals.push(refusals.await?);
        bar.inc(1);
        let doors = cluster.addresses();
        let carrier = Arc::new(cluster.carrier());
        let memory = ring("memory", &carrier, &doors, time, &mut random).await?;
        measured.series.push(memory);
        bar.inc(1);
    }
    if lab.memory {
        bar.finish_and_clear();
        return Ok(verdict(lab, &measured));
    }
    let url = lab.postgres("webhooks").await?;
    let mut cluster = Cluster::start(&set(lab.options()).set("DATABASE_URL", &url)).await?;
    let done = || bar.inc(1);
    let all = measure(
        lab,
        &mut cluster,
        &url,
        time,
        &mut random,
        &mut measured,
        &done,
    )
    .await;
    bar.finish_and_clear();
    conclude(&mut cluster, all.map(|()| verdict(lab, &measured)))
}

/// Describes a campaign with all the room there is, and one that is full with one call.
fn campaigns() -> String {
    format!(
        "default_campaign = \"any\"\n[campaigns.any]\nmax_calls = {CAP}\n\
         [campaigns.busy]\nnumbers = [\"{BUSY}\"]\nmax_calls = 1\n"
    )
}

async fn measure(
    lab: &Lab,
    cluster: &mut Cluster,
    url: &str,
    time: Duration,
    random: &mut StdRng,
    all: &mut Measured,
    measured: &impl Fn(),
) -> anyhow::Result<()> {
    let replicas = cluster.addresses();
    let refusals = refuse("refused_redis_postgres", cluster, url, time, random);
    all.refusals.push(refusals.await?);
    measured();
    let carrier = Arc::new(cluster.carrier());
    all.series
        .push(ring("redis", &carrier, &replicas, time, random).await?);
    measured();
    if !lab.short {
        let door = [cluster.door];
        all.series
            .push(ring("redis_by_nginx", &carrier, &door, time, random).await?);
        measured();
    }
    cluster.redis()?.pause()?;
    let hung = ring("hung", &carrier, &replicas, time, random).await;
    cluster.redis()?.resume()?;
    all.series.push(hung?);
    measured();
    if !lab.short {
        // What the replicas still have to tell Redis is not measured.
        sleep(Duration::from_secs(5)).await;
        all.series
            .push(ring("again", &carrier, &replicas, time, random).await?);
        measured();
    }
    Ok(())
}

/// Rings where a line is busy, and waits until each refusal is a row.
async fn refuse(
    name: &'static str,
    cluster: &Cluster,
    url: &str,
    time: Duration,
    random: &mut StdRng,
) -> anyhow::Result<Refusals> {
    let carrier = Arc::new(cluster.carrier().dialing(BUSY));
    let (door, first) = (carrier.door(), sid(random));
    let answer = carrier.ring(door, &first).await?.answer;
    let Answer::Connect(stream) = answer else {
        bail!("the first caller is not connected: {answer:?}");
    };
    let media = carrier.open(&first, &stream).await.context("no media")?;
    let mut talking = JoinSet::new();
    let truth = Arc::clone(&carrier);
    talking.spawn(async move { media.talk(LONG, Ending::HangsUp, &truth.truth).await });
    let began = Instant::now();
    let series = ring(name, &carrier, &cluster.addresses(), time, random).await?;
    let mut records = Records::open(url).await?;
    let rung = Instant::now();
    let rows = loop {
        let rows = "SELECT COUNT(*) FROM calls WHERE state = 'rejected_capacity'";
        let rows = records.count(rows).await?;
        if series.answers.len() as u64 <= rows || PATIENCE < rung.elapsed() {
            break rows;
        }
        sleep(Duration::from_millis(10)).await;
    };
    let recorded_after = began.elapsed();
    carrier.status(door, &first, "completed").await?;
    talking.join_all().await;
    Ok(Refusals {
        series,
        rows,
        recorded_after,
    })
}

/// Rings at each of `doors` in turn.
async fn ring(
    name: &'static str,
    carrier: &Arc<Carrier>,
    doors: &[SocketAddr],
    time: Duration,
    random: &mut StdRng,
) -> anyhow::Result<Series> {
    for door in doors {
        carrier.http.connect(*door, 8).await?;
    }
    let answers = Arc::new(Mutex::new(Vec::new()));
    let (mut late, mut calls) = (Vec::new(), JoinSet::new());
    let began = Instant::now();
    let pause = Duration::from_secs(1) / PER_SECOND;
    for (number, door) in (0_u32..).zip(doors.iter().copied().cycle()) {
        let due = pause * number;
        if time <= due {
            break;
        }
        sleep_until(began + due).await;
        late.push(began.elapsed().saturating_sub(due));
        let (carrier, answers, sid) = (Arc::clone(carrier), Arc::clone(&answers), sid(random));
        calls.spawn(async move {
            let rung = carrier.ring(door, &sid).await?;
            let took = began.elapsed().saturating_sub(due);
            answers
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push((due, took));
            sleep(RINGS_FOR).await;
            carrier.status(door, &sid, "completed").await?;
            anyhow::Ok(matches!(rung.answer, Answer::Connect(_)))
        });
    }
    let mut admitted = 0;
    for call in calls.join_all().await {
        let call = call.with_context(|| format!("a webhook of the series `{name}`"));
        admitted += usize::from(call?);
    }
    let mut answers = answers
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone();
    answers.sort_unstable();
    ensure!(!answers.is_empty(), "no webhook was answered");
    Ok(Series {
        name,
        answers,
        late,
        admitted,
    })
}
