//! How long webhooks take at 200 a second: over Redis, while it hangs, and without it.
//!
//! Calls arrive at fixed times and are measured from then on, whatever the generator was doing, so
//! that one slow answer does not hide those behind it.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, ensure};
use callgate_benches::carrier::Carrier;
use callgate_benches::cluster::Cluster;
use rand::rngs::StdRng;
use serde_json::{Map, Value, json};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use crate::lab::{Lab, Verdict, conclude};
use crate::life::sid;
use crate::statistics::{Latencies, SLACK, milliseconds, rounded};

const PER_SECOND: u32 = 200;
/// Room for every call there is.
const CAP: u32 = 5_000;
/// When the caller hangs up, after its webhook.
const RINGS_FOR: Duration = Duration::from_millis(300);
const GOAL_MS: f64 = 5.0;
const LONGER_AT_FIRST_MS: f64 = 75.0;
const LONGER_LATER_MS: f64 = 5.0;

/// What one stretch of time came to.
struct Series {
    name: &'static str,
    /// When a webhook was due, and how long after that it was answered.
    answers: Vec<(Duration, Duration)>,
    /// How late the generator was.
    late: Vec<Duration>,
}

pub async fn run(lab: &Lab) -> anyhow::Result<Verdict> {
    let options = lab.options().set("MAX_ACTIVE_CALLS", CAP);
    let alone = callgate_benches::cluster::Options::new(lab.gateway.clone(), 1)
        .without_redis()
        .set("MAX_ACTIVE_CALLS", CAP);
    let mut random = lab.random("webhooks");
    let time = Duration::from_secs(lab.or_short(20, 3));
    let bar = lab.bar(5, "webhooks");

    let mut series = Vec::new();
    {
        let cluster = Cluster::start(&alone).await?;
        series.push(ring("memory", &cluster, &cluster.addresses(), time, &mut random).await?);
        bar.inc(1);
    }
    if lab.memory {
        bar.finish_and_clear();
        return Ok(verdict(lab, &series));
    }
    let mut cluster = Cluster::start(&options).await?;
    let measured = measure(&mut cluster, time, &mut random, &mut series, &|| bar.inc(1)).await;
    bar.finish_and_clear();
    conclude(&mut cluster, measured.map(|()| verdict(lab, &series)))
}

async fn measure(
    cluster: &mut Cluster,
    time: Duration,
    random: &mut StdRng,
    series: &mut Vec<Series>,
    measured: &impl Fn(),
) -> anyhow::Result<()> {
    let replicas = cluster.addresses();
    series.push(ring("redis", cluster, &replicas, time, random).await?);
    measured();
    let door = [cluster.door];
    series.push(ring("redis_by_nginx", cluster, &door, time, random).await?);
    measured();
    cluster.redis()?.pause()?;
    let hung = ring("hung", cluster, &replicas, time, random).await;
    cluster.redis()?.resume()?;
    series.push(hung?);
    measured();
    // What the replicas still have to tell Redis is not measured.
    sleep(Duration::from_secs(5)).await;
    series.push(ring("again", cluster, &replicas, time, random).await?);
    measured();
    Ok(())
}

/// Rings at each of `doors` in turn.
async fn ring(
    name: &'static str,
    cluster: &Cluster,
    doors: &[SocketAddr],
    time: Duration,
    random: &mut StdRng,
) -> anyhow::Result<Series> {
    let carrier = Arc::new(cluster.carrier());
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
        let (carrier, answers, sid) = (Arc::clone(&carrier), Arc::clone(&answers), sid(random));
        calls.spawn(async move {
            carrier.ring(door, &sid).await?;
            let took = began.elapsed().saturating_sub(due);
            answers
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push((due, took));
            hang_up(&carrier, door, &sid).await
        });
    }
    for call in calls.join_all().await {
        call.with_context(|| format!("a webhook of the series `{name}`"))?;
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
    })
}

async fn hang_up(carrier: &Carrier, door: SocketAddr, sid: &str) -> anyhow::Result<()> {
    sleep(RINGS_FOR).await;
    carrier.status(door, sid, "completed").await?;
    Ok(())
}

impl Series {
    fn within(&self, from: Duration, to: Duration) -> Latencies {
        let within = self
            .answers
            .iter()
            .filter(|(due, _)| from <= *due && *due < to);
        Latencies::of(within.map(|(_, took)| *took))
    }

    fn all(&self) -> Latencies {
        self.within(Duration::ZERO, Duration::MAX)
    }
}

fn verdict(lab: &Lab, all: &[Series]) -> Verdict {
    let second = Duration::from_secs(1);
    let (mut result, mut samples) = (Map::new(), Map::new());
    let find = |name: &str| all.iter().find(|series| series.name == name);
    for series in all {
        let mut entry = json!(series.all());
        entry["generator_late_p99_ms"] = json!(Latencies::of(series.late.clone()).p99_ms);
        result.insert(series.name.to_owned(), entry);
        let series_samples: Vec<_> = series
            .answers
            .iter()
            .map(|(due, took)| [milliseconds(*due), milliseconds(*took)])
            .collect();
        samples.insert(series.name.to_owned(), json!(series_samples));
    }
    let memory = find("memory").map_or(0.0, |series| series.all().p99_ms);
    let mut line = format!("p99 in memory {memory:.2} ms");
    let mut passed = true;
    if let (Some(redis), Some(hung)) = (find("redis"), find("hung")) {
        let redis = redis.all().p99_ms;
        let first = hung.within(Duration::ZERO, second);
        let open = hung.within(second, Duration::MAX);
        passed = redis <= GOAL_MS * SLACK
            && first.p99_ms <= redis + LONGER_AT_FIRST_MS * SLACK
            && open.p99_ms <= redis + LONGER_LATER_MS * SLACK;
        line = format!(
            "{line}, over Redis {redis:.2} ms ({:.1} times), with Redis hung {:.1} ms in the first \
             second and {:.2} ms later",
            redis / memory,
            first.p99_ms,
            open.p99_ms
        );
        result.insert("hung_first_second".to_owned(), json!(first));
        result.insert("hung_later".to_owned(), json!(open));
        result.insert(
            "redis_times_memory".to_owned(),
            json!(rounded(redis / memory)),
        );
        result.insert("slack".to_owned(), json!(SLACK));
    }
    Verdict {
        passed,
        line,
        parameters: json!({
            "per_second": PER_SECOND, "seconds": lab.or_short(20, 3), "cap": CAP,
            "goals_ms": [GOAL_MS, LONGER_AT_FIRST_MS, LONGER_LATER_MS],
        }),
        result: Value::Object(result),
        samples: Value::Object(samples),
        logs: None,
    }
}
