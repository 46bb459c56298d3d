//! The simulator's Twilio in a process of its own. The list of calls that it took is the truth.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use callgate_benches::carrier::{ACCOUNT_SID, AUTH_TOKEN};
use callgate_benches::cluster::{Cluster, Process, free_port, until_ready};
use callgate_benches::http::Http;
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(5);

pub struct FakeTwilio {
    address: SocketAddr,
    faults: &'static str,
    lost_callbacks: u8,
    http: Http,
    process: Option<Process>,
}

impl FakeTwilio {
    /// Chooses where it will be, which a cluster has to know before it is started.
    /// What goes wrong there: of 100 requests for a call as `faults` says, and of 100 status callbacks
    /// so many.
    pub fn choose(faults: &'static str, lost_callbacks: u8) -> anyhow::Result<Self> {
        Ok(Self {
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?)),
            faults,
            lost_callbacks,
            http: Http::default(),
            process: None,
        })
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Starts it, for a cluster which it reaches by nginx.
    pub async fn start(&mut self, cluster: &Cluster, program: &Path) -> anyhow::Result<()> {
        let mut process = Process::new("twilio", program, cluster.directory())
            .arguments(["simulate", "--answer", &self.address.to_string()])
            .arguments(["--url", &format!("http://{}", cluster.door)])
            .arguments(["--call-faults", self.faults, "--talk-for", "1s"])
            .arguments(["--lost-callbacks", &self.lost_callbacks.to_string()])
            .arguments(["--for", "2h"])
            .environment(vec![
                ("TWILIO_AUTH_TOKEN".to_owned(), AUTH_TOKEN.to_owned()),
                ("TWILIO_ACCOUNT_SID".to_owned(), ACCOUNT_SID.to_owned()),
            ]);
        process.start()?;
        until_ready(&mut process, async || self.dials("").await.is_ok()).await?;
        self.process = Some(process);
        Ok(())
    }

    /// Returns how often a number was dialed.
    pub async fn dials(&self, to: &str) -> anyhow::Result<usize> {
        let known = STANDARD.encode(format!("{ACCOUNT_SID}:{AUTH_TOKEN}"));
        let to = to.replace('+', "%2B");
        let request = format!(
            "GET /2010-04-01/Accounts/{ACCOUNT_SID}/Calls.json?To={to} HTTP/1.1\r\n\
             Host: {}\r\nAuthorization: Basic {known}\r\n\r\n",
            self.address
        );
        let reply = self.http.exchange(self.address, &request, PATIENCE).await?;
        ensure!(reply.status == 200, "the fake Twilio: {}", reply.status);
        let list: Value = serde_json::from_str(&reply.body)?;
        let calls = list["calls"].as_array();
        Ok(calls.context("the fake Twilio has no list")?.len())
    }
}
