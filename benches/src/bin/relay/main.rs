//! What a gateway spends on a call, beside the smallest relay of the same messages.
//!
//! Invariant: the floor and the gateway take turns, against the same callers and the same echoing
//! agent, each in a process of its own that is ended with its run.

mod audio;
mod callers;
mod candidate;
mod exchange;
mod line;
mod mixed;
mod pacer;
mod process;
mod report;
mod rest;
mod run;

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, ensure};
use callgate_benches::acs::Format;
use callgate_benches::floor;
use callgate_benches::machine::Machine;
use clap::{Parser, Subcommand, ValueEnum};

use crate::candidate::{Candidate, Placement};
use crate::line::Line;
use crate::report::Round;
use crate::rest::Rest;
use crate::run::{Crowd, Load};

/// Measures what a gateway spends on a call, beside the smallest relay of the same messages
#[derive(Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    floor: Option<Floor>,
    #[command(flatten)]
    options: Options,
}

#[derive(Subcommand)]
enum Floor {
    /// Is the floor itself, which a run starts as a process of its own
    #[command(hide = true)]
    Floor(floor::Options),
}

#[derive(clap::Args)]
struct Options {
    /// Who brings the calls. Mixed: all three at once, to one gateway, without a floor
    #[arg(long, value_enum, default_value_t = Carrier::Twilio)]
    carrier: Carrier,
    /// What ACS's audio is. With 16 kHz the gateway has to resample, for the agent has 24
    #[arg(long, value_enum, default_value_t = Format::Pcm24k)]
    encoding: Format,
    /// How many calls at once, one series for each number; mixed so many of Twilio's and of ACS's
    /// each, and a fifth as many browsers [default: 200,300; acs: 100,200; mixed: 100]
    #[arg(long, value_delimiter = ',', value_parser = clap::value_parser!(u16).range(1..=1000))]
    calls: Vec<u16>,
    /// How long each run is measured
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=600))]
    seconds: u16,
    /// How long each run talks before it is measured
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=60))]
    warm_up: u16,
    /// How often each candidate has its turn
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=20))]
    rounds: u16,
    /// Who takes part
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "floor,gateway"
    )]
    candidates: Vec<Candidate>,
    /// The gateway's program [default: callgate, beside this program]
    #[arg(long)]
    gateway: Option<PathBuf>,
    /// The gateway's workers. With one it has a core to itself; with more it has all of them, which
    /// it shares with the callers
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    workers: u16,
    /// Print all rounds and the machine as one line of JSON, after the table
    #[arg(long)]
    json: bool,
    /// The cores there were before this process was put on its own
    #[arg(long, hide = true)]
    cores: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Carrier {
    Twilio,
    Acs,
    Mixed,
}

fn main() -> anyhow::Result<()> {
    let Cli { floor, options } = Cli::parse();
    if let Some(Floor::Floor(options)) = floor {
        return Ok(floor::run(&options)?);
    }
    let Some(cores) = &options.cores else {
        return pin();
    };
    let cores = process::cores(cores)?;
    let (first, last) = (cores[0], cores[cores.len() - 1]);
    let gateway = match &options.gateway {
        // Candidates run in a directory of their own.
        Some(gateway) => std::path::absolute(gateway)?,
        None => std::env::current_exe()?.with_file_name("callgate"),
    };
    ensure!(
        gateway.exists() || !options.candidates.contains(&Candidate::Gateway),
        "there is no gateway at {}: build it with `cargo build --release`, or name one by --gateway",
        gateway.display(),
    );
    let placement = Placement {
        own: last,
        all: (first..=last).filter(|core| cores.contains(core)).collect(),
        gateway,
        workers: options.workers,
    };

    let machine = Machine::of(cores.len())?;
    let rest = Rest::start()?;
    let load = Load {
        warm_up: options.warm_up,
        seconds: options.seconds,
    };
    let line = match options.carrier {
        Carrier::Twilio => Line::Twilio,
        Carrier::Acs => Line::Acs {
            format: options.encoding,
            resampled: options.encoding == Format::Pcm16k,
        },
        Carrier::Mixed => {
            for calls in options.calls() {
                println!("{}", mixed::run(&placement, &rest, &machine, calls, load)?);
            }
            return Ok(());
        }
    };
    let mut rounds = Vec::new();
    for calls in options.calls() {
        for round in 1..=options.rounds {
            for &candidate in &options.candidates {
                eprintln!("{candidate}, {calls} calls, round {round}");
                let line = line.through(candidate);
                let crowd = [Crowd { line, calls }];
                let run = run::run(candidate, &placement, &rest, &crowd, load, |_| Ok(()));
                let run =
                    run.with_context(|| format!("{candidate} with {calls} calls, round {round}"));
                let (measured, frames) = run?;
                rounds.extend(frames.into_iter().map(|frames| Round { measured, frames }));
            }
        }
    }
    println!("{}", report::table(&rounds));
    if options.json {
        println!("{}", report::json(line, &machine, &rounds)?);
    }
    Ok(())
}

impl Options {
    fn calls(&self) -> Vec<u16> {
        match self.carrier {
            _ if !self.calls.is_empty() => self.calls.clone(),
            Carrier::Twilio => vec![200, 300],
            Carrier::Acs => vec![100, 200],
            Carrier::Mixed => vec![100],
        }
    }
}

/// Starts this program again on the first of its cores, with as many files as it may have: the
/// other cores are the candidates'.
fn pin() -> anyhow::Result<()> {
    let allowed = process::allowed_cores()?;
    let cores = process::cores(&allowed)?;
    ensure!(1 < cores.len(), "callers and gateway need a core each");
    let files = process::most_open_files()?;
    let error = Command::new("prlimit")
        .arg(format!("--nofile={files}:{files}"))
        .args(["taskset", "--cpu-list", &cores[0].to_string()])
        .arg(std::env::current_exe()?)
        .args(std::env::args_os().skip(1))
        .args(["--cores", &allowed])
        .exec();
    Err(error).context("cannot start prlimit and taskset of util-linux")
}
