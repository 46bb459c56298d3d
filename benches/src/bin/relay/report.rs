//! What the rounds came to, for people and for programs.

use callgate_benches::machine::Machine;
use comfy_table::{Table, presets};
use serde::Serialize;

use crate::candidate::Candidate;
use crate::line::Line;
use crate::run::{Answers, Became, Measured};

/// What one round of one carrier came to.
#[derive(Serialize)]
pub struct Round {
    #[serde(flatten)]
    pub measured: Measured,
    #[serde(flatten)]
    pub frames: Became,
}

/// Returns a table of medians over rounds, in Markdown.
pub fn table(rounds: &[Round]) -> String {
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
        "answer p50 / p99, ms",
    ]);
    for (candidate, calls) in series(rounds) {
        let median = |figure: fn(&Round) -> f64| median(rounds, candidate, calls, figure);
        let cpu = median(|round| round.measured.cpu_ms_per_call_second).unwrap_or_default();
        let floor = self::median(rounds, Candidate::Floor, calls, |round| {
            round.measured.cpu_ms_per_call_second
        });
        let figure = |figure: fn(&Round) -> f64| median(figure).unwrap_or_default();
        let of =
            |round: &&Round| round.measured.candidate == candidate && round.measured.calls == calls;
        let answers = |figure: fn(Answers) -> f64| {
            let answers = rounds.iter().filter(of);
            middle(answers.filter_map(|round| round.measured.answer_ms.map(figure)))
        };
        let total = |count: fn(&Round) -> u32| -> u32 { rounds.iter().filter(of).map(count).sum() };
        table.add_row([
            candidate.to_string(),
            calls.to_string(),
            format!("{cpu:.3}"),
            floor.map_or_else(|| "–".to_owned(), |floor| format!("{:.2}", cpu / floor)),
            format!(
                "{:.1}",
                figure(|round| f64::from(round.measured.idle_kib)) / 1024.0
            ),
            format!("{:.1}", figure(|round| round.measured.memory_per_call_kib)),
            format!(
                "{:.3} / {:.3} / {:.1}",
                figure(|round| round.frames.round_trip_p50_ms),
                figure(|round| round.frames.round_trip_p99_ms),
                figure(|round| round.frames.round_trip_max_ms),
            ),
            format!(
                "{} / {} / {} / {}",
                total(|round| round.frames.frames_lost),
                total(|round| round.frames.frames_duplicated),
                total(|round| round.frames.frames_reordered),
                total(|round| round.frames.frames_strange),
            ),
            total(|round| round.frames.calls_dropped).to_string(),
            format!("{:.1}", figure(|round| round.measured.waited_percent)),
            format!(
                "{:.0}",
                figure(|round| round.measured.generator_busy_percent)
            ),
            format!(
                "{:.2}",
                figure(|round| round.measured.generator_late_p99_ms)
            ),
            match (
                answers(|answers| answers.p50),
                answers(|answers| answers.p99),
            ) {
                (Some(p50), Some(p99)) => format!("{p50:.1} / {p99:.1}"),
                _ => "–".to_owned(),
            },
        ]);
    }
    table.trim_fmt()
}

/// Returns one line of JSON.
pub fn json(line: Line, machine: &Machine, rounds: &[Round]) -> serde_json::Result<String> {
    #[derive(Serialize)]
    struct Report<'a> {
        carrier: &'static str,
        encoding: Option<&'static str>,
        machine: &'a Machine,
        rounds: &'a [Round],
    }
    serde_json::to_string(&Report {
        carrier: line.name(),
        encoding: match line {
            Line::Acs { format, .. } => Some(format.name()),
            Line::Twilio | Line::Web => None,
        },
        machine,
        rounds,
    })
}

/// Lists who was measured with how many calls, in the order of the first rounds.
fn series(rounds: &[Round]) -> Vec<(Candidate, u16)> {
    let mut all = Vec::new();
    for round in rounds {
        let one = (round.measured.candidate, round.measured.calls);
        if !all.contains(&one) {
            all.push(one);
        }
    }
    all
}

fn median(
    rounds: &[Round],
    candidate: Candidate,
    calls: u16,
    figure: fn(&Round) -> f64,
) -> Option<f64> {
    let of =
        |round: &&Round| round.measured.candidate == candidate && round.measured.calls == calls;
    middle(rounds.iter().filter(of).map(figure))
}

fn middle(figures: impl Iterator<Item = f64>) -> Option<f64> {
    let mut figures: Vec<f64> = figures.collect();
    figures.sort_by(f64::total_cmp);
    let last = figures.len().checked_sub(1)?;
    Some(f64::midpoint(figures[last / 2], figures[last.div_ceil(2)]))
}
