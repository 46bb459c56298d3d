//! Reaches an agent's server as far as TLS: nothing is asked of the agent, so nothing is charged.

use std::{io, net::TcpStream as Blocking, time::Duration};

use rustls::{ClientConnection, pki_types::ServerName};
use tokio::{net::TcpStream, task::spawn_blocking, time::timeout};

use crate::{agent::Trust, config::AgentSettings};

/// How long a server may take to answer.
const PATIENCE: Duration = Duration::from_secs(3);

/// Connects to the agent's server, with TLS where its address wants that.
///
/// # Errors
/// If it does not answer in time, or its certificate is not trusted.
pub async fn reach(agent: &AgentSettings) -> io::Result<()> {
    let tried = timeout(PATIENCE, try_once(agent)).await;
    tried.unwrap_or_else(|_| {
        let slow = format!("no answer within {PATIENCE:?}");
        Err(io::Error::other(slow))
    })
}

async fn try_once(agent: &AgentSettings) -> io::Result<()> {
    let trust = Trust::of(&[agent])?.of_agent(agent);
    let host = agent.url.host_str().unwrap_or_default();
    let host = host.trim_matches(['[', ']']).to_owned();
    let port = agent.url.port_or_known_default().unwrap_or(443);
    let tcp = TcpStream::connect((host.as_str(), port)).await?;
    if agent.url.scheme() != "wss" {
        return Ok(());
    }
    let name = ServerName::try_from(host).map_err(io::Error::other)?;
    let connection = ClientConnection::new(trust, name).map_err(io::Error::other)?;
    let tcp = tcp.into_std()?;
    let shaken = spawn_blocking(move || shake_hands(connection, tcp));
    shaken.await.map_err(io::Error::other)?
}

fn shake_hands(mut connection: ClientConnection, mut tcp: Blocking) -> io::Result<()> {
    tcp.set_nonblocking(false)?;
    tcp.set_read_timeout(Some(PATIENCE))?;
    tcp.set_write_timeout(Some(PATIENCE))?;
    while connection.is_handshaking() {
        connection.complete_io(&mut tcp)?;
    }
    Ok(())
}
