//! One callgate of several.

use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::Context;

use crate::cluster::{ATTEMPTS, Process, Signal, ports, until_ready};
use crate::http::{Http, Reply};

/// A replica, which keeps its address when it is started again.
pub struct Replica {
    pub address: SocketAddr,
    process: Process,
}

impl Replica {
    /// Starts a replica on a port of its own and waits until it is ready.
    pub(super) async fn start_new(
        number: usize,
        program: &Path,
        environment: Vec<(String, String)>,
        directory: &Path,
    ) -> anyhow::Result<Self> {
        let mut attempt = 1;
        loop {
            let address = SocketAddr::from(([127, 0, 0, 1], ports::free()?));
            let mut environment = environment.clone();
            environment.push(("LISTEN".to_owned(), address.to_string()));
            let process = Process::new(&format!("replica-{number}"), program, directory)
                .arguments(["serve"])
                .environment(environment);
            let mut replica = Self { address, process };
            match replica.start().await {
                Ok(()) => return Ok(replica),
                Err(error) if attempt == ATTEMPTS => return Err(error),
                Err(_) => attempt += 1,
            }
        }
    }

    /// Starts it, after it was killed or has ended, and waits until it is ready.
    ///
    /// # Errors
    /// If it runs already, or does not become ready.
    pub async fn start(&mut self) -> anyhow::Result<()> {
        self.process.start()?;
        let address = self.address;
        until_ready(&mut self.process, async || {
            Http::default()
                .get(address, "/health/ready", Duration::from_secs(1))
                .await
                .is_ok_and(|reply| reply.status == 200)
        })
        .await
    }

    pub fn pid(&self) -> Option<u32> {
        self.process.pid()
    }

    /// Returns its settings.
    pub fn environment(&self) -> &[(String, String)] {
        self.process.its_environment()
    }

    /// Kills it with all its calls, and waits until it is dead.
    ///
    /// # Errors
    /// If it does not run.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.process.kill()
    }

    /// Tells how it has ended by itself, if it has. It can be started again then.
    ///
    /// # Errors
    /// If it does not run.
    pub fn ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        self.process.ended()
    }

    /// # Errors
    /// If it does not run.
    pub fn signal(&mut self, signal: Signal) -> anyhow::Result<()> {
        self.process.signal(signal)
    }

    /// Reads one of the pages that it has for operators on its own machine.
    ///
    /// # Errors
    /// If it does not answer, or not in JSON.
    pub async fn page(&self, path: &str) -> anyhow::Result<serde_json::Value> {
        let Reply { status, body, .. } = Http::default()
            .get(self.address, path, Duration::from_secs(5))
            .await?;
        serde_json::from_str(&body).with_context(|| format!("{path} answered {status}: {body}"))
    }
}
