//! The simulator's callers, some processes of them: each calls again and again, for a length that is
//! its process's own, and one in a hundred cuts its connection each time.

use std::time::Duration;

use anyhow::Context;
use callgate_benches::cluster::{Cluster, Process, Report, credentials};
use serde::Serialize;
use tokio::time::Instant;

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
        let until = Instant::now() + PATIENCE;
        for process in &mut self.0 {
            let left = until.saturating_duration_since(Instant::now());
            let report = Report::of(process, left).await?;
            told.add(&report).with_context(|| process.last_words())?;
        }
        Ok(told)
    }
}

impl Told {
    /// Adds what a simulator reports.
    fn add(&mut self, report: &Report) -> anyhow::Result<()> {
        self.calls += report.count("calls")?;
        self.answered += report.count("answered")?;
        self.busy += report.count("busy")?;
        self.failed += report.count("failed")?;
        self.frames += report.count("frames_sent")?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_are_added_up() {
        let mut told = Told::default();
        let said = r#"{"calls":3,"answered":2,"busy":1,"failed":0,"frames_sent":900}"#;
        told.add(&Report::find(said).unwrap()).unwrap();
        told.add(&Report::find(said).unwrap()).unwrap();
        assert_eq!((told.calls, told.answered, told.frames), (6, 4, 1_800));
    }
}
