//! A few calls whose every frame is sent back, so that it is known how late audio is.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use callgate_benches::carrier::{ACCOUNT_SID, AUTH_TOKEN};
use callgate_benches::cluster::{Cluster, Process, free_port, until_ready};
use serde::Serialize;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use super::PROBED;
use crate::lab::Lab;

/// How many calls there are.
pub const PROBES: usize = 5;
/// How long they may take to begin and to end, beside talking.
const PATIENCE: Duration = Duration::from_secs(20);

/// An agent that sends back every frame.
pub struct Agent {
    address: SocketAddr,
    process: Option<Process>,
}

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

impl Agent {
    /// Chooses where it will be, which a cluster has to know before it is started.
    pub fn choose() -> anyhow::Result<Self> {
        Ok(Self {
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?)),
            process: None,
        })
    }

    pub fn url(&self) -> String {
        format!("ws://{}/v1/realtime", self.address)
    }

    pub async fn start(&mut self, program: &Path, directory: &Path) -> anyhow::Result<()> {
        let mut process = Process::new("echoing-agent", program, directory).arguments([
            "parrot",
            "--echo",
            "--listen",
            &self.address.to_string(),
        ]);
        process.start()?;
        let address = self.address;
        until_ready(&mut process, async || {
            TcpStream::connect(address).await.is_ok()
        })
        .await?;
        self.process = Some(process);
        Ok(())
    }
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
        .environment(vec![
            ("TWILIO_AUTH_TOKEN".to_owned(), AUTH_TOKEN.to_owned()),
            ("TWILIO_ACCOUNT_SID".to_owned(), ACCOUNT_SID.to_owned()),
        ]);
    let began = Instant::now();
    process.start()?;
    // It fails when a frame is lost, which is told by what it says.
    while process.ended()?.is_none() {
        ensure!(
            began.elapsed() < long + PATIENCE,
            "{name}: calls do not end"
        );
        sleep(Duration::from_millis(50)).await;
    }
    let said = fs::read_to_string(process.log())?;
    read(&said).with_context(|| format!("{name}: {}", process.last_words()))
}

/// Reads the report, which is the one line of JSON.
fn read(said: &str) -> anyhow::Result<Heard> {
    let report = said.lines().rev().find(|line| line.starts_with('{'));
    let report: Value = serde_json::from_str(report.context("it reported nothing")?)?;
    let count = |name: &str| report[name].as_u64().context("a count is missing");
    let time = |name: &str, quantile: &str| {
        let time = report[name][quantile].as_f64();
        time.with_context(|| format!("{name} is missing"))
    };
    Ok(Heard {
        answered: count("answered")?,
        frames: count("echo_sent")?,
        lost: count("echo_lost")?,
        round_trip_p50_ms: time("round_trip_ms", "p50")?,
        round_trip_p99_ms: time("round_trip_ms", "p99")?,
        late_p99_ms: time("lateness_ms", "p99")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_read_and_one_that_is_missing_is_no_silence() {
        let said = r#"listening
{"answered":10,"echo_sent":900,"echo_lost":1,"round_trip_ms":{"p50":0.5,"p99":2.5},"lateness_ms":{"p99":1.5}}"#;
        let heard = read(said).unwrap();
        assert_eq!((heard.answered, heard.frames, heard.lost), (10, 900, 1));
        assert!((heard.round_trip_p99_ms - 2.5).abs() < 1e-9);
        assert!(read("listening").is_err());
        assert!(read(r#"{"answered":10}"#).is_err());
    }
}
