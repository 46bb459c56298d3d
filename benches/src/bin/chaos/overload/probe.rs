//! A few calls whose every frame is sent back, so that it is known how late audio is.

use std::time::Duration;

use anyhow::Context;
use callgate_benches::cluster::{Cluster, Process, Report, credentials};
use serde::Serialize;

use super::PROBED;
use crate::lab::Lab;

/// How many calls there are.
pub const PROBES: usize = 5;
/// How long they may take to begin and to end, beside talking.
const PATIENCE: Duration = Duration::from_secs(20);

/// What was heard in these calls, in milliseconds.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Heard {
    pub answered: u64,
    pub frames: u64,
    pub lost: u64,
    /// From sending a frame to hearing it: by the gateway to the agent, and back.
    pub round_trip_p50_ms: f64,
    pub round_trip_p99_ms: f64,
    /// How late the callers themselves were.
    pub late_p99_ms: f64,
}

/// Lets the calls talk for most of `long`, and tells what was heard.
pub async fn measure(
    lab: &Lab,
    cluster: &Cluster,
    name: &str,
    long: Duration,
) -> anyhow::Result<Heard> {
    // They ring one after the other, and all of them are to be over with the plateau.
    let talk = long.mul_f64(0.8).as_secs_f64();
    let mut process = Process::new(&format!("probe-{name}"), &lab.gateway, cluster.directory())
        .arguments([
            "simulate", "--echo", "--json", "--to", PROBED, "--rate", "50",
        ])
        .arguments(["--url", &format!("http://{}", cluster.door)])
        .arguments(["--calls", &PROBES.to_string()])
        .arguments(["--talk-for", &format!("{talk}s")])
        .environment(credentials());
    process.start()?;
    let report = Report::of(&mut process, long + PATIENCE).await;
    heard(&report.with_context(|| name.to_owned())?)
        .with_context(|| format!("{name}: {}", process.last_words()))
}

fn heard(report: &Report) -> anyhow::Result<Heard> {
    Ok(Heard {
        answered: report.count("answered")?,
        frames: report.count("echo_sent")?,
        lost: report.count("echo_lost")?,
        round_trip_p50_ms: report.time("round_trip_ms", "p50")?,
        round_trip_p99_ms: report.time("round_trip_ms", "p99")?,
        late_p99_ms: report.time("lateness_ms", "p99")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_read_and_one_that_is_missing_is_no_silence() {
        let said = r#"listening
{"answered":10,"echo_sent":900,"echo_lost":1,"round_trip_ms":{"p50":0.5,"p99":2.5},"lateness_ms":{"p99":1.5}}"#;
        let heard = heard(&Report::find(said).unwrap()).unwrap();
        assert_eq!((heard.answered, heard.frames, heard.lost), (10, 900, 1));
        assert!((heard.round_trip_p99_ms - 2.5).abs() < 1e-9);
        let silence = Report::find(r#"{"answered":10}"#).unwrap();
        assert!(super::heard(&silence).is_err());
    }
}
