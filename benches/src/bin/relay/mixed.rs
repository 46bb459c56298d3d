//! All three carriers at once, before one gateway.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use anyhow::{Context, ensure};
use callgate_benches::acs::Format;
use callgate_benches::machine::Machine;
use serde::Serialize;
use serde_json::Value;

use crate::callers;
use crate::candidate::{Candidate, Placement};
use crate::line::Line;
use crate::rest::Rest;
use crate::run::{self, Became, Crowd, Load, Measured};

#[derive(Serialize)]
struct Report<'a> {
    carrier: &'static str,
    machine: &'a Machine,
    #[serde(flatten)]
    measured: Measured,
    /// As the gateway counts them while they talk.
    connection_types: BTreeMap<&'static str, u16>,
    frames: BTreeMap<&'static str, Became>,
}

/// Runs so many calls by ACS and Twilio each, and a fifth as many from browsers. Returns one line
/// of JSON.
///
/// # Errors
/// Also when a frame was lost, or the gateway has not counted the calls as what they are.
pub fn run(
    placement: &Placement,
    rest: &Rest,
    machine: &Machine,
    calls: u16,
    load: Load,
) -> anyhow::Result<String> {
    let acs = Line::Acs {
        format: Format::Pcm24k,
        resampled: false,
    };
    let browsers = calls.div_ceil(5);
    let lines = [(acs, calls), (Line::Twilio, calls), (Line::Web, browsers)];
    let crowds = lines.map(|(line, calls)| Crowd { line, calls });
    let connection_types = lines.map(|(line, calls)| (line.name(), calls)).into();
    let count = |address| check(address, &connection_types);
    let run = run::run(Candidate::Gateway, placement, rest, &crowds, load, count);
    let (measured, frames) = run?;
    let names = crowds.iter().map(|crowd| crowd.line.name());
    let frames: BTreeMap<_, _> = names.zip(frames).collect();
    let whole = frames.values().all(Became::is_whole);
    let report = serde_json::to_string(&Report {
        carrier: "mixed",
        machine,
        measured,
        connection_types,
        frames,
    })?;
    ensure!(whole, "not every frame came back as it should: {report}");
    Ok(report)
}

/// Checks what the gateway says of its connections.
fn check(address: SocketAddr, expected: &BTreeMap<&'static str, u16>) -> anyhow::Result<()> {
    let page = callers::get(address, "/stats")?;
    let page: Value = serde_json::from_str(&page.body).context("/stats is no JSON")?;
    let types = &page["connection_types"];
    ensure!(
        *types == serde_json::to_value(expected)?,
        "the gateway counts {types}, and there are {expected:?}"
    );
    Ok(())
}
