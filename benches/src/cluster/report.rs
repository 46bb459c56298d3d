//! What callgate's simulator reports of the calls that it has made.

use std::fs;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::Process;
use crate::carrier::{ACCOUNT_SID, AUTH_TOKEN};

/// A simulator's report.
#[derive(Debug)]
pub struct Report(Value);

/// Returns what a simulator signs its webhooks with.
pub fn credentials() -> Vec<(String, String)> {
    vec![
        ("TWILIO_AUTH_TOKEN".to_owned(), AUTH_TOKEN.to_owned()),
        ("TWILIO_ACCOUNT_SID".to_owned(), ACCOUNT_SID.to_owned()),
    ]
}

impl Report {
    /// Waits until a simulator has ended, and reads its report. How it ends does not matter: it
    /// fails where calls did, which the report tells.
    ///
    /// # Errors
    /// If it does not end within `patience`, or reports nothing.
    pub async fn of(process: &mut Process, patience: Duration) -> anyhow::Result<Self> {
        let began = Instant::now();
        while process.ended()?.is_none() {
            ensure!(began.elapsed() < patience, "callers do not hang up");
            sleep(Duration::from_millis(50)).await;
        }
        let said = fs::read_to_string(process.log())?;
        Self::find(&said).with_context(|| process.last_words())
    }

    /// Finds the report in what a simulator has said: it is the one line of JSON.
    ///
    /// # Errors
    /// If there is none.
    pub fn find(said: &str) -> anyhow::Result<Self> {
        let report = said.lines().rev().find(|line| line.starts_with('{'));
        let report = report.context("the simulator reported nothing")?;
        Ok(Self(serde_json::from_str(report)?))
    }

    /// # Errors
    /// If it has no such count.
    pub fn count(&self, name: &str) -> anyhow::Result<u64> {
        let count = self.0[name].as_u64();
        count.with_context(|| format!("{name} is missing"))
    }

    /// Returns a quantile, such as `p99`, in milliseconds.
    ///
    /// # Errors
    /// If it has no such time.
    pub fn time(&self, name: &str, quantile: &str) -> anyhow::Result<f64> {
        let time = self.0[name][quantile].as_f64();
        time.with_context(|| format!("{name} is missing"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_found_among_other_words_and_what_it_lacks_is_missed() {
        let said = "a word\n{\"calls\":3,\"round_trip_ms\":{\"p99\":2.5}}\n";
        let report = Report::find(said).unwrap();
        assert_eq!(report.count("calls").unwrap(), 3);
        assert!((report.time("round_trip_ms", "p99").unwrap() - 2.5).abs() < 1e-9);
        assert!(report.count("busy").is_err() && report.time("calls", "p99").is_err());
        assert!(Report::find("a word").is_err());
    }
}
