//! What a cluster of callgate stands: processes that are killed, a Redis that forgets, hangs or
//! dies, webhooks that come twice. Real processes on loopback, and a carrier that counts for itself.
//!
//! Invariant: a figure passes by what the carrier and Redis saw, never by the gateway's own figures.
//! Invariant: what is random comes from the seed, and every figure ends.

mod arrivals;
mod dataloss;
mod dialer;
mod dials;
mod duplicates;
mod events;
mod failover;
mod fake_twilio;
mod halfopen;
mod health;
mod lab;
mod leaks;
mod life;
mod namespace;
mod outage;
mod overadmission;
#[path = "../../../../tests/it/postgres_server.rs"]
mod postgres_server;
mod reclaim;
mod registry;
mod sampler;
mod sink;
mod statistics;
mod webhooks;

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context, ensure};
use callgate_benches::machine::{Machine, commit};
use clap::{Parser, ValueEnum};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

use crate::lab::{Lab, Verdict};

/// Measures what a cluster of callgate stands, with real processes on loopback
#[derive(Parser)]
#[command(
    after_help = "By scripts/chaos there is one figure more, `store`: what slots cost a Redis."
)]
struct Options {
    /// Which figure, or all of them, one after the other
    #[arg(value_enum)]
    figure: Choice,
    /// What everything random is made from [default: a new one, which is told]
    #[arg(long)]
    seed: Option<u64>,
    /// Small numbers: all figures within five minutes
    #[arg(long)]
    short: bool,
    /// Append the results to this file, too
    #[arg(long)]
    out: Option<PathBuf>,
    /// The gateway's program [default: callgate beside this program, which is built first]
    #[arg(long)]
    gateway: Option<PathBuf>,
    /// One replica, with its slots in memory: only what makes sense without Redis is measured
    #[arg(long)]
    memory: bool,
    /// For a figure that this program starts in a network of its own: the one outside
    #[arg(long, hide = true)]
    outside: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Choice {
    All,
    /// R1: slots left over after calls, kills and restarts
    Leaks,
    /// R2: calls admitted beyond a cap, at once
    Overadmission,
    /// R4: how long the slots of a killed replica stay taken
    Reclaim,
    /// R5: calls beyond the cap after Redis has lost everything
    Dataloss,
    /// R6: calls beyond the cap, and calls turned away for nothing, while Redis is away
    Outage,
    /// F7: calls that Redis forgets, or keeps too long, when its copy takes over
    Failover,
    /// How long webhooks take: over Redis, with Redis hung, and without it
    Webhooks,
    /// R11: slots, answers and ends of calls whose webhooks come more than once
    Duplicates,
    /// R19: how long the slots of calls stay taken whose carrier or agent has vanished
    Halfopen,
    /// R12: events lost or told twice while their receiver fails and replicas are killed
    Events,
    /// R20: numbers called twice, and calls and slots that nobody looks after, while the carrier fails
    /// and replicas are killed
    Dials,
}

impl Choice {
    const FIGURES: [Self; 11] = [
        Self::Overadmission,
        Self::Duplicates,
        Self::Webhooks,
        Self::Leaks,
        Self::Reclaim,
        Self::Halfopen,
        Self::Dataloss,
        Self::Outage,
        Self::Failover,
        Self::Events,
        Self::Dials,
    ];

    fn name(self) -> String {
        let value = self.to_possible_value();
        value.map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// Tells whether a replica alone, without Redis, can show anything.
    fn works_in_memory(self) -> bool {
        match self {
            Self::All | Self::Overadmission | Self::Webhooks => true,
            Self::Leaks
            | Self::Reclaim
            | Self::Dataloss
            | Self::Outage
            | Self::Failover
            | Self::Duplicates
            | Self::Halfopen
            | Self::Events
            | Self::Dials => false,
        }
    }

    /// How long it may take at most.
    fn bound(self, short: bool) -> Duration {
        let minutes = match self {
            _ if short => 4,
            Self::Overadmission
            | Self::Webhooks
            | Self::Dataloss
            | Self::Failover
            | Self::Halfopen
            | Self::Events
            | Self::Dials => 20,
            Self::All | Self::Leaks | Self::Reclaim | Self::Outage | Self::Duplicates => 40,
        };
        Duration::from_secs(minutes * 60)
    }

    /// Measures it within its bound; says how long that took, too.
    async fn verdict(self, lab: &Lab) -> (Verdict, Duration) {
        let began = Instant::now();
        let bound = self.bound(lab.short);
        let measured = timeout(bound, self.measure(lab)).await;
        let measured = measured
            .with_context(|| format!("it is not over after {bound:?}"))
            .and_then(|measured| measured);
        (measured.unwrap_or_else(failed), began.elapsed())
    }

    async fn measure(self, lab: &Lab) -> anyhow::Result<Verdict> {
        match self {
            Self::Leaks => leaks::run(lab).await,
            Self::Overadmission => overadmission::run(lab).await,
            Self::Reclaim => reclaim::run(lab).await,
            Self::Dataloss => dataloss::run(lab).await,
            Self::Outage => outage::run(lab).await,
            Self::Failover => failover::run(lab).await,
            Self::Webhooks => webhooks::run(lab).await,
            Self::Duplicates => duplicates::run(lab).await,
            Self::Halfopen => halfopen::run(lab).await,
            Self::Events => events::run(lab).await,
            Self::Dials => dials::run(lab).await,
            Self::All => unreachable!("it stands for the others"),
        }
    }
}

/// One figure as it is printed.
#[derive(Serialize)]
struct Report<'a> {
    figure: String,
    passed: bool,
    seed: u64,
    short: bool,
    commit: &'a str,
    machine: Machine,
    seconds: f64,
    parameters: Value,
    result: Value,
    samples: Value,
    /// Where the logs of a run that did not pass are.
    logs: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("chaos: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(options: &Options) -> anyhow::Result<bool> {
    let seed = options.seed.unwrap_or_else(rand::random);
    let gateway = match &options.gateway {
        // Replicas run in a directory of their own.
        Some(gateway) => std::path::absolute(gateway)?,
        None => build_gateway()?,
    };
    let lab = Lab {
        seed,
        short: options.short,
        memory: options.memory,
        gateway,
        outside: options.outside.clone(),
    };
    let chosen = if options.figure == Choice::All {
        Choice::FIGURES.to_vec()
    } else {
        vec![options.figure]
    };
    let commit = commit();
    // One thread, the main one: processes die with the thread that started them.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    if lab.outside.is_none() {
        eprintln!("seed {seed}");
    }
    let mut all_passed = true;
    for choice in chosen {
        let left_out = if lab.memory && !choice.works_in_memory() {
            Some("it needs Redis".to_owned())
        } else if choice == Choice::Halfopen && options.figure == Choice::All {
            namespace::missing()?
        } else {
            None // A figure that was asked for fails, and says what is missing.
        };
        if let Some(reason) = left_out {
            eprintln!("{:<14} left out: {reason}", choice.name());
            continue;
        }
        let machine = Machine::of(std::thread::available_parallelism()?.get())?;
        let (verdict, seconds) = runtime.block_on(choice.verdict(&lab));
        if lab.outside.is_some() {
            // Whoever waits outside says the rest.
            println!("{}", serde_json::to_string(&verdict)?);
            continue;
        }
        all_passed &= verdict.passed;
        let word = if verdict.passed { "passed" } else { "FAILED" };
        let name = choice.name();
        eprintln!("{name:<14} {word}  {}  ({seconds:.0?})", verdict.line);
        if let Some(logs) = &verdict.logs {
            eprintln!("{:<14} logs are in {}", "", logs.display());
        }
        let report = serde_json::to_string(&Report {
            figure: name,
            passed: verdict.passed,
            seed,
            short: lab.short,
            commit: &commit,
            machine,
            seconds: statistics::rounded(seconds.as_secs_f64()),
            parameters: verdict.parameters,
            result: verdict.result,
            samples: verdict.samples,
            logs: verdict.logs,
        })?;
        println!("{report}");
        if let Some(path) = &options.out {
            append(path, &report).with_context(|| format!("cannot write {}", path.display()))?;
        }
    }
    Ok(all_passed)
}

/// What is said of a figure that could not be measured to its end.
#[expect(clippy::needless_pass_by_value, reason = "it is given by value")]
fn failed(error: anyhow::Error) -> Verdict {
    Verdict {
        passed: false,
        line: format!("{error:#}"),
        parameters: Value::Null,
        result: json!({"error": format!("{error:#}")}),
        samples: Value::Null,
        logs: None,
    }
}

fn append(path: &Path, report: &str) -> std::io::Result<()> {
    let mut file = OpenOptions::new().create(true).append(true).open(path)?;
    writeln!(file, "{report}")
}

/// Builds the gateway in the profile of this program, and returns where it is: an old one would be
/// measured without anybody noticing.
fn build_gateway() -> anyhow::Result<PathBuf> {
    let mut build = Command::new("cargo");
    build
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        // Both packages, so that dependencies have the features that they were built with.
        .args(["build", "--locked", "--quiet", "--package", "callgate"])
        .args(["--package", "callgate-benches", "--bin", "callgate"]);
    if !cfg!(debug_assertions) {
        build.arg("--release");
    }
    let ended = build.status().context("cannot run cargo")?;
    ensure!(ended.success(), "the gateway cannot be built");
    let gateway = std::env::current_exe()?.with_file_name("callgate");
    ensure!(gateway.exists(), "no gateway at {}", gateway.display());
    Ok(gateway)
}
