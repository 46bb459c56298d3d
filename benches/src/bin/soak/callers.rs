//! The simulator's callers, some processes of them: each calls again and again, for a length that is
//! its process's own, and one in a hundred cuts its connection each time.

use std::fs;
use std::time::Duration;

use anyhow::{Context, ensure};
use callgate_benches::carrier::{ACCOUNT_SID, AUTH_TOKEN};
use callgate_benches::cluster::{Cluster, Process};
use serde::Serialize;
use serde_json::Value;
use tokio::time::{Instant, sleep};

/// How long calls are, in seconds.
const LENGTHS: [usize; 5] = [45, 56, 67, 78, 90];
/// How long callers may take to hang up when their time is over.
const PATIENCE: Duration = Duration::from_secs(60);

/// Callers who call until their time is over.
pub struct Callers(Vec<Process>);

/// What became of their calls.
#[derive(Debug, Default, Serialize)]
pub struct Told {
    pub calls: u64,
    pub answered: u64,
    pub busy: u64,
    pub failed: u64,
    pub frames: u64,
}

impl Callers {
    /// Starts as many callers, who call for so long.
    ///
    /// # Errors
    /// If the simulator cannot be started.
    pub fn start(
        cluster: &Cluster,
        gateway: &std::path::Path,
        calls: usize,
        long: Duration,
    ) -> anyhow::Result<Self> {
        let faulted = calls.div_ceil(100);
        let mut groups = vec![(60, faulted, "drop")];
        for (index, length) in LENGTHS.into_iter().enumerate() {
            // What is left over when they are split is the first ones'.
            let share = (calls - faulted + LENGTHS.len() - 1 - index) / LENGTHS.len();
            groups.push((length, share, "talk"));
        }
        let mut processes = Vec::new();
        for (length, callers, script) in groups.into_iter().filter(|group| group.1 > 0) {
            let name = format!("callers-{script}-{length}");
            let mut process = Process::new(&name, gateway, cluster.directory())
                .arguments(["simulate", "--json", "--repeat", "--rate", "2"])
                .arguments(["--url", &format!("http://{}", cluster.door)])
                .arguments(["--script", script, "--calls", &callers.to_string()])
                .arguments(["--talk-for", &format!("{length}s")])
                .arguments(["--for", &format!("{}s", long.as_secs())])
                .environment(credentials());
            process.start()?;
            processes.push(process);
        }
        Ok(Self(processes))
    }

    /// Lets a few callers make one short call each, so that whatever is made with the first call is
    /// there afterwards.
    ///
    /// # Errors
    /// If they do not end.
    pub async fn first(cluster: &Cluster, gateway: &std::path::Path) -> anyhow::Result<()> {
        let mut process = Process::new("callers-first", gateway, cluster.directory())
            .arguments(["simulate", "--json", "--calls", "10", "--talk-for", "3s"])
            .arguments(["--url", &format!("http://{}", cluster.door)])
            .environment(credentials());
        process.start()?;
        Self(vec![process]).end().await?;
        Ok(())
    }

    /// Waits until all have hung up, and tells what became of their calls.
    ///
    /// # Errors
    /// If they do not.
    pub async fn end(mut self) -> anyhow::Result<Told> {
        let mut told = Told::default();
        let began = Instant::now();
        for process in &mut self.0 {
            while process.ended()?.is_none() {
                ensure!(began.elapsed() < PATIENCE, "callers do not hang up");
                sleep(Duration::from_millis(100)).await;
            }
            let said = fs::read_to_string(process.log())?;
            told.add(&said).with_context(|| process.last_words())?;
        }
        Ok(told)
    }
}

impl Told {
    /// Adds what a simulator reports, which is its one line of JSON.
    fn add(&mut self, said: &str) -> anyhow::Result<()> {
        let report = said.lines().rev().find(|line| line.starts_with('{'));
        let report: Value = serde_json::from_str(report.context("it reported nothing")?)?;
        let count = |name: &str| report[name].as_u64().context("a count is missing");
        self.calls += count("calls")?;
        self.answered += count("answered")?;
        self.busy += count("busy")?;
        self.failed += count("failed")?;
        self.frames += count("frames_sent")?;
        Ok(())
    }
}

fn credentials() -> Vec<(String, String)> {
    vec![
        ("TWILIO_AUTH_TOKEN".to_owned(), AUTH_TOKEN.to_owned()),
        ("TWILIO_ACCOUNT_SID".to_owned(), ACCOUNT_SID.to_owned()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_are_added_up() {
        let mut told = Told::default();
        let said = r#"{"calls":3,"answered":2,"busy":1,"failed":0,"frames_sent":900}"#;
        told.add(&format!("a word\n{said}\n")).unwrap();
        told.add(said).unwrap();
        assert_eq!((told.calls, told.answered, told.frames), (6, 4, 1_800));
        assert!(told.add("a word").is_err());
    }
}
