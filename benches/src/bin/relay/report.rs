//! What the rounds came to, for people and for programs.

use callgate_benches::machine::Machine;
use comfy_table::{Table, presets};
use serde::Serialize;

use crate::candidate::Candidate;
use crate::run::Measured;

/// Returns a table of medians over rounds, in Markdown.
pub fn table(rounds: &[Measured]) -> String {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN).set_header([
        "candidate",
        "calls",
        "CPU ms per call-second",
        "× floor",
        "idle MiB",
        "memory per call, KiB",
        "round trip p50 / p99 / max, ms",
        "frames lost / doubled / reordered / strange",
        "calls dropped",
        "waited for core %",
        "generator busy %",
        "generator late p99, ms",
    ]);
    for (candidate, calls) in series(rounds) {
        let median = |figure: fn(&Measured) -> f64| median(rounds, candidate, calls, figure);
        let cpu = median(|round| round.cpu_ms_per_call_second).unwrap_or_default();
        let floor = self::median(rounds, Candidate::Floor, calls, |round| {
            round.cpu_ms_per_call_second
        });
        let figure = |figure: fn(&Measured) -> f64| median(figure).unwrap_or_default();
        let total = |count: fn(&Measured) -> u32| -> u32 {
            let of = |round: &&Measured| round.candidate == candidate && round.calls == calls;
            rounds.iter().filter(of).map(count).sum()
        };
        table.add_row([
            candidate.to_string(),
            calls.to_string(),
            format!("{cpu:.3}"),
            floor.map_or_else(|| "–".to_owned(), |floor| format!("{:.2}", cpu / floor)),
            format!("{:.1}", figure(|round| f64::from(round.idle_kib)) / 1024.0),
            format!("{:.1}", figure(|round| round.memory_per_call_kib)),
            format!(
                "{:.3} / {:.3} / {:.1}",
                figure(|round| round.round_trip_p50_ms),
                figure(|round| round.round_trip_p99_ms),
                figure(|round| round.round_trip_max_ms),
            ),
            format!(
                "{} / {} / {} / {}",
                total(|round| round.frames_lost),
                total(|round| round.frames_duplicated),
                total(|round| round.frames_reordered),
                total(|round| round.frames_strange),
            ),
            total(|round| round.calls_dropped).to_string(),
            format!("{:.1}", figure(|round| round.waited_percent)),
            format!("{:.0}", figure(|round| round.generator_busy_percent)),
            format!("{:.2}", figure(|round| round.generator_late_p99_ms)),
        ]);
    }
    table.trim_fmt()
}

/// Returns one line of JSON.
pub fn json(machine: &Machine, rounds: &[Measured]) -> serde_json::Result<String> {
    #[derive(Serialize)]
    struct Report<'a> {
        machine: &'a Machine,
        rounds: &'a [Measured],
    }
    serde_json::to_string(&Report { machine, rounds })
}

/// Lists who was measured with how many calls, in the order of the first rounds.
fn series(rounds: &[Measured]) -> Vec<(Candidate, u16)> {
    let mut all = Vec::new();
    for round in rounds {
        let one = (round.candidate, round.calls);
        if !all.contains(&one) {
            all.push(one);
        }
    }
    all
}

fn median(
    rounds: &[Measured],
    candidate: Candidate,
    calls: u16,
    figure: fn(&Measured) -> f64,
) -> Option<f64> {
    let of = |round: &&Measured| round.candidate == candidate && round.calls == calls;
    let mut figures: Vec<f64> = rounds.iter().filter(of).map(figure).collect();
    figures.sort_by(f64::total_cmp);
    let last = figures.len().checked_sub(1)?;
    Some(f64::midpoint(figures[last / 2], figures[last.div_ceil(2)]))
}
