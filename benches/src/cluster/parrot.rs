//! An agent in a process of its own, as real ones are.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use super::{Process, free_port, until_ready};
use crate::http;

/// A parrot that listens, or is about to.
pub struct Parrot {
    address: SocketAddr,
    process: Option<Process>,
}

impl Parrot {
    /// Chooses where it will be, which a cluster has to know before it is started.
    ///
    /// # Errors
    /// If no port is free.
    pub fn choose() -> anyhow::Result<Self> {
        Ok(Self::at((Ipv4Addr::LOCALHOST, free_port()?).into()))
    }

    pub fn at(address: SocketAddr) -> Self {
        Self {
            address,
            process: None,
        }
    }

    pub fn url(&self) -> String {
        format!("ws://{}/v1/realtime", self.address)
    }

    /// Starts it, and waits until it listens.
    ///
    /// # Errors
    /// If it does not.
    pub async fn start(
        &mut self,
        gateway: &Path,
        directory: &Path,
        arguments: &[&str],
    ) -> anyhow::Result<()> {
        let listen = self.address.to_string();
        let mut process = Process::new("parrot", gateway, directory)
            .arguments(["parrot", "--listen", &listen])
            .arguments(arguments);
        process.start()?;
        until_ready(&mut process, async || {
            http::connect(self.address).await.is_ok()
        })
        .await?;
        self.process = Some(process);
        Ok(())
    }
}
