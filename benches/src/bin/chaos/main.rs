//! What a cluster of callgate stands: processes that are killed, a Redis that forgets, hangs or
//! dies, webhooks that come twice. Real processes on loopback, and a carrier that counts for itself.
//!
//! Invariant: a figure passes by what the carrier and Redis saw, never by the gateway's own figures.
//! Invariant: what is random comes from the seed, and every figure ends.

mod arrivals;
mod canary;
mod choice;
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
mod overload;
#[path = "../../../../tests/it/postgres_server.rs"]
mod postgres_server;
mod reclaim;
mod records;
mod registry;
mod rollover;
mod sampler;
mod sink;
mod statistics;
mod webhooks;

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, ensure};
use callgate_benches::machine::{Machine, commit};
use clap::Parser;
use futures_util::future::join_all;
use serde::Serialize;
use serde_json::Value;
use tokio::sync::OnceCell;

use crate::choice::Choice;
use crate::lab::Lab;

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
    /// Leave these figures out, with commas
    #[arg(long, value_enum, value_delimiter = ',')]
    without: Vec<Choice>,
    /// Append the results to this file, too
    #[arg(long)]
    out: Option<PathBuf>,
    /// The gateway's program [default: callgate beside this program, which is built first]
    #[arg(long)]
    gateway: Option<PathBuf>,
    /// One replica, with its slots in memory: only what makes sense without Redis is measured
    #[arg(long)]
    memory: bool,
    /// How long a replica's calls may go on while it is replaced, in seconds: rollover
    /// [default: 60, or 8 with --short]
    #[arg(long, value_parser = clap::value_parser!(u64).range(2..=60))]
    window: Option<u64>,
    /// For a figure that this program starts in a network of its own: the one outside
    #[arg(long, hide = true)]
    outside: Option<String>,
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
        window: options.window,
        outside: options.outside.clone(),
        postgres: OnceCell::new(),
    };
    // One thread, the main one: processes die with the thread that started them.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    if let Some(figure) = lab.outside.as_ref().map(|_| options.figure) {
        // Whoever waits outside says the rest.
        let (verdict, _) = runtime.block_on(figure.verdict(&lab));
        println!("{}", serde_json::to_string(&verdict)?);
        return Ok(verdict.passed);
    }
    eprintln!("seed {seed}");
    let commit = commit();
    let mut all_passed = true;
    for together in options.figure.figures(lab.short) {
        let wanted = |figure: &Choice| !options.without.contains(figure);
        let measuring = together.into_iter().filter(wanted);
        let measuring = measuring.map(|figure| measure(figure, options, &lab, &commit));
        for passed in runtime.block_on(join_all(measuring)) {
            all_passed &= passed?;
        }
    }
    Ok(all_passed)
}

/// Measures one figure and prints it as soon as it is over; tells whether it has passed or is left
/// out.
async fn measure(
    figure: Choice,
    options: &Options,
    lab: &Lab,
    commit: &str,
) -> anyhow::Result<bool> {
    let left_out = if lab.memory && !figure.works_in_memory() {
        Some("it needs Redis".to_owned())
    } else if figure == Choice::Halfopen && options.figure == Choice::All {
        namespace::missing()?
    } else {
        None // A figure that was asked for fails, and says what is missing.
    };
    let name = figure.name();
    if let Some(reason) = left_out {
        eprintln!("{name:<14} left out: {reason}");
        return Ok(true);
    }
    let machine = Machine::of(std::thread::available_parallelism()?.get())?;
    let (verdict, seconds) = figure.verdict(lab).await;
    let word = if verdict.passed { "passed" } else { "FAILED" };
    eprintln!("{name:<14} {word}  {}  ({seconds:.0?})", verdict.line);
    if let Some(logs) = &verdict.logs {
        eprintln!("{:<14} logs are in {}", "", logs.display());
    }
    let report = serde_json::to_string(&Report {
        figure: name,
        passed: verdict.passed,
        seed: lab.seed,
        short: lab.short,
        commit,
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
    Ok(verdict.passed)
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
