//! R13: hours of calls, and whether memory, tasks, descriptors, keys and series grow with them.
//!
//! The simulator's callers talk by nginx with a parrot in a process of its own, 45 to 90 s at a time, and call again. Every
//! 10 s it is looked what replicas take up, and written as a line of JSON. When the callers have hung
//! up and the last lease has lapsed, everything is to be where it was before them.

mod callers;
mod judging;
#[path = "../../../../tests/it/postgres_server.rs"]
mod postgres_server;
mod sampling;
mod slope;

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, ensure};
use callgate_benches::cluster::{Cluster, Options, Parrot};
use callgate_benches::machine::{Machine, commit};
use clap::Parser;
use comfy_table::{Table, presets};
use serde_json::json;
use tokio::time::{Instant, sleep, sleep_until};

use self::callers::Callers;
use self::judging::{Outcome, judge};
use self::postgres_server::PostgresServer;
use self::sampling::{Looker, Phase, Sample};
use self::slope::Slope;

const EVERY: Duration = Duration::from_secs(10);
/// How much of a run is not measured: memory fills its pools. Half of a short one.
const WARM_UP: Duration = Duration::from_secs(30 * 60);
/// Idle connections are closed within 15 s, and a lease lapses within 30 s.
const SETTLING: Duration = Duration::from_secs(35);
/// How often it is looked afterwards, until all is as it was.
const LAST_LOOKS: u32 = 6;
const LONGEST: Duration = Duration::from_secs(24 * 3_600);
/// What logs and records may take up, in bytes.
const MOST_DISK: u64 = 4 << 30;

/// Lets callers call for hours, and tells whether a cluster of callgate grows with them
#[derive(Parser)]
struct Soak {
    /// How long callers call, such as 3m or 8h
    #[arg(long = "for", default_value = "1h", value_parser = duration)]
    long: Duration,
    /// How many call at once
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    calls: u16,
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=16))]
    replicas: u8,
    /// Records are kept in a Postgres that is started for it, and not in a file of SQLite
    #[arg(long)]
    postgres: bool,
    /// Where samples go, a line each
    #[arg(long, default_value = "soak.jsonl")]
    out: PathBuf,
    /// The gateway's program
    #[arg(long)]
    gateway: PathBuf,
}

fn main() -> ExitCode {
    match run(&Soak::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("soak: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(soak: &Soak) -> anyhow::Result<bool> {
    // Before the runtime: it has one of its own.
    let server = soak.postgres.then(PostgresServer::start);
    let machine = Machine::of(std::thread::available_parallelism()?.get())?;
    // One thread, the main one: processes die with the thread that started them.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let outcome = runtime.block_on(measure(soak, server.as_ref()))?;
    eprintln!("{}", table(&outcome));
    let missed = outcome.checks.iter().filter(|check| !check.1);
    let missed: Vec<&str> = missed.map(|check| *check.0).collect();
    let word = if outcome.passed { "passed" } else { "FAILED" };
    let unjudged = if outcome.growth_judged {
        ""
    } else {
        "; growth is not judged in so short a time"
    };
    eprintln!(
        "soak {word} {missed:?}{unjudged}; samples are in {}",
        soak.out.display()
    );
    let report = json!({
        "figure": "soak", "passed": outcome.passed, "commit": commit(), "machine": machine,
        "parameters": {
            "seconds": soak.long.as_secs(), "calls": soak.calls, "replicas": soak.replicas,
            "database": if soak.postgres { "postgres" } else { "sqlite" },
            "warm_up_seconds": warm_up(soak).as_secs(), "every_seconds": EVERY.as_secs(),
        },
        "result": outcome,
    });
    println!("{report}");
    Ok(outcome.passed)
}

async fn measure(soak: &Soak, server: Option<&PostgresServer>) -> anyhow::Result<Outcome> {
    let gateway = std::path::absolute(&soak.gateway)?;
    let folder = tempfile::TempDir::with_prefix("callgate-soak-")?;
    let url = match server {
        Some(server) => server.database("soak"),
        None => format!("sqlite://{}/records.db", folder.path().display()),
    };
    // What an agent keeps of what it hears is not the gateway's.
    let mut agent = Parrot::choose()?;
    agent.start(&gateway, folder.path(), &[]).await?;
    let options = Options::new(gateway.clone(), soak.replicas.into())
        .set("AGENT", "openai")
        .set("OPENAI_API_KEY", "any")
        .set("OPENAI_REALTIME_URL", agent.url())
        .set("MAX_ACTIVE_CALLS", soak.calls * 2)
        .set("MAX_CONNECTIONS", soak.calls * 2)
        .set("DATABASE_URL", &url)
        // Of hours of calls only what is wrong is written down.
        .set("RUST_LOG", "warn");
    let mut cluster = Cluster::start(&options).await?;
    let watched = watch(soak, &cluster, &gateway, &url, folder.path()).await;
    if watched.as_ref().is_ok_and(|outcome| outcome.passed) {
        return watched;
    }
    let logs = cluster.keep_directory().display();
    eprintln!("logs are in {logs}");
    watched
}

async fn watch(
    soak: &Soak,
    cluster: &Cluster,
    gateway: &std::path::Path,
    url: &str,
    records: &std::path::Path,
) -> anyhow::Result<Outcome> {
    let mut file = File::create(&soak.out).with_context(|| soak.out.display().to_string())?;
    let mut looker = Looker::new(url, records).await?;
    let mut samples = Vec::new();
    let mut look = async |phase| {
        let sample = looker.look(cluster, phase).await?;
        writeln!(file, "{}", serde_json::to_string(&sample)?)?;
        samples.push(sample.clone());
        ensure!(
            sample.disk_bytes < MOST_DISK,
            "logs and records have grown too large"
        );
        anyhow::Ok(sample)
    };
    Callers::first(cluster, gateway).await?;
    sleep(SETTLING).await;
    look(Phase::Baseline).await?;

    let callers = Callers::start(cluster, gateway, soak.calls.into(), soak.long)?;
    let began = Instant::now();
    let mut due = began;
    loop {
        due += EVERY;
        if began + soak.long <= due {
            break;
        }
        sleep_until(due).await;
        let is_warm = warm_up(soak) <= began.elapsed();
        look(if is_warm {
            Phase::Measured
        } else {
            Phase::WarmUp
        })
        .await?;
    }
    let told = callers.end().await?;
    sleep(SETTLING).await;
    for _ in 0..LAST_LOOKS {
        let sample = look(Phase::Drained).await?;
        if is_empty(&sample) {
            break;
        }
        sleep(EVERY).await;
    }
    let hours = soak.long.saturating_sub(warm_up(soak)).as_secs_f64() / 3_600.0;
    judge(&samples, told, hours).context("there are too few samples")
}

/// Tells whether there is nothing left to wait for.
fn is_empty(sample: &Sample) -> bool {
    sample.leases == 0 && sample.redis_leftovers == 0 && sample.open_calls == 0
}

fn warm_up(soak: &Soak) -> Duration {
    WARM_UP.min(soak.long / 2)
}

fn table(outcome: &Outcome) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_header([
        "replica",
        "",
        "before",
        "warm",
        "drained",
        "MB an hour (95 %)",
    ]);
    for (index, replica) in outcome.replicas.iter().enumerate() {
        let told = |slope: Option<Slope>| {
            slope.map_or_else(String::new, |slope| {
                format!(
                    "{:.2} ({:.2} to {:.2})",
                    slope.median, slope.low, slope.high
                )
            })
        };
        let (before, warm, after) = (&replica.baseline, &replica.warmed_up, &replica.drained);
        let mut row = |what: &str, values: [String; 3], slope: &str| {
            let [before, warm, after] = values;
            let number = (index + 1).to_string();
            table.add_row([number.as_str(), what, &before, &warm, &after, slope]);
        };
        let each = [before, warm, after];
        let rss = told(replica.rss_mb_per_hour);
        row("RSS, KiB", each.map(|it| it.rss_kib.to_string()), &rss);
        let anonymous = each.map(|it| it.anonymous_kib.to_string());
        row(
            "anonymous, KiB",
            anonymous,
            &told(replica.anonymous_mb_per_hour),
        );
        row("tasks", each.map(|it| it.tasks.to_string()), "");
        row("descriptors", each.map(|it| it.descriptors.to_string()), "");
        row("connections", each.map(|it| it.connections.to_string()), "");
        row("series", each.map(|it| it.series.to_string()), "");
    }
    table
}

/// Reads a duration such as 3m or 8h.
fn duration(text: &str) -> Result<Duration, String> {
    let duration: jiff::SignedDuration = text.parse().map_err(|error| format!("{error}"))?;
    match Duration::try_from(duration) {
        Ok(duration) if (Duration::from_secs(60)..=LONGEST).contains(&duration) => Ok(duration),
        _ => Err("from 1m to 24h".to_owned()),
    }
}
