//! The parrot: an agent of our own, for tests, demos and benchmarks. It greets with a tune and
//! says back what it hears, as a real server of the OpenAI Realtime GA protocol over WebSocket, or
//! of Azure Voice Live's where a client asks for its path; on request it plays a [`Fault`].
//!
//! Invariant: at most [`MOST_SESSIONS`] connections are served at a time; others wait.
//! Invariant: [`Parrot::stop`] returns when every task has ended.

mod client;
mod conversation;
mod detection;
mod edge;
mod faults;
mod hearing;
mod session;
mod socket;
mod speech;
mod tools;
mod voice;
mod wire;

use std::{
    fs::File,
    io,
    net::{Ipv4Addr, SocketAddr},
    num::ParseIntError,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::sleep,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use uuid::Uuid;

use self::session::{LONGEST_SESSION, Manner, Session};
pub use self::{faults::Fault, tools::ToolRequest};

/// How many connections one parrot serves.
pub const MOST_SESSIONS: usize = 1_000;

/// How long accepting rests when the process is out of sockets.
const ACCEPT_REST: Duration = Duration::from_millis(100);

const LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 5051);
const ANSWER_AFTER: Duration = Duration::from_millis(500);

/// How a parrot is started.
#[derive(Debug, Clone, clap::Args)]
pub struct ParrotOptions {
    /// The address to listen on; port 0 takes any free port
    #[arg(long, value_name = "ADDRESS", default_value_t = LISTEN)]
    pub listen: SocketAddr,
    /// How long after the caller stopped the parrot answers, in milliseconds
    #[arg(long = "answer-after-ms", value_name = "MS", default_value = "500", value_parser = millis)]
    pub answer_after: Duration,
    /// How long an upgrade and every session.update take, in milliseconds
    #[arg(long = "delay-ms", value_name = "MS", default_value = "0", value_parser = millis)]
    pub delay: Duration,
    /// Sends every piece of audio straight back, without turns
    #[arg(long)]
    pub echo: bool,
    /// What goes wrong, in every session
    #[arg(long, value_enum)]
    pub fault: Option<Fault>,
    /// A tool that is used when the caller presses a key, as name=arguments; the first one by 1
    #[arg(long = "tool-call", value_name = "NAME=JSON", value_parser = tools::request)]
    pub tool_calls: Vec<ToolRequest>,
    /// A file to which every message of a client is appended, one JSON line each
    #[arg(long, value_name = "FILE")]
    pub record: Option<PathBuf>,
}

impl Default for ParrotOptions {
    fn default() -> Self {
        Self {
            listen: LISTEN,
            answer_after: ANSWER_AFTER,
            delay: Duration::ZERO,
            echo: false,
            fault: None,
            tool_calls: Vec::new(),
            record: None,
        }
    }
}

/// A running parrot. Dropping it closes its sessions too, without waiting for them.
#[derive(Debug)]
pub struct Parrot {
    address: SocketAddr,
    connections: Arc<Semaphore>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Parrot {
    /// Starts to listen, on the runtime that calls.
    ///
    /// # Errors
    /// If the address or the file of the record cannot be used.
    pub async fn start(options: ParrotOptions) -> io::Result<Self> {
        let record = options.record.as_ref().map(|path| {
            let mut file = File::options();
            file.append(true).create(true).open(path)
        });
        let cage = Cage {
            record: record.transpose()?,
            manner: Manner {
                answer_after: options.answer_after,
                delay: options.delay,
                echo: options.echo,
                fault: options.fault,
                tool_calls: options.tool_calls,
                tune: voice::tune(),
            },
        };
        let listener = TcpListener::bind(options.listen).await?;
        let parrot = Self {
            address: listener.local_addr()?,
            connections: Arc::new(Semaphore::new(MOST_SESSIONS)),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        };
        tracing::info!(address = %parrot.address, fault = ?options.fault, "parrot listens");
        let (connections, tasks) = (Arc::clone(&parrot.connections), parrot.tasks.clone());
        let stop = parrot.stop.clone();
        parrot.tasks.spawn(async move {
            let accepting = accept(listener, Arc::new(cage), connections, tasks, stop.clone());
            stop.run_until_cancelled(accepting).await;
        });
        Ok(parrot)
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the URL of its realtime endpoint; any other path but Voice Live's does as well.
    pub fn url(&self) -> String {
        format!("ws://{}/v1/realtime", self.address)
    }

    /// Returns the URL at which it speaks as Voice Live does.
    pub fn voice_live_url(&self) -> String {
        format!("ws://{}{}", self.address, socket::VOICE_LIVE_PATH)
    }

    /// Returns how many connections it serves.
    pub fn sessions(&self) -> usize {
        MOST_SESSIONS - self.connections.available_permits()
    }

    /// Closes every session and waits until they have ended.
    pub async fn stop(self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl Drop for Parrot {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// What all sessions of a parrot have in common.
struct Cage {
    manner: Manner,
    record: Option<File>,
}

async fn accept(
    listener: TcpListener,
    cage: Arc<Cage>,
    connections: Arc<Semaphore>,
    tasks: TaskTracker,
    stop: CancellationToken,
) {
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "parrot could not accept a connection");
                sleep(ACCEPT_REST).await;
                continue;
            }
        };
        let Ok(permit) = Arc::clone(&connections).acquire_owned().await else {
            return; // Nobody closes the semaphore.
        };
        let (cage, stop) = (Arc::clone(&cage), stop.clone());
        tasks.spawn(async move {
            serve(stream, &cage, stop).await;
            drop(permit);
        });
    }
}

async fn serve(stream: TcpStream, cage: &Cage, stop: CancellationToken) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "parrot lost a connection");
        return;
    }
    let upgrade = socket::upgrade(stream, cage.manner.delay, cage.manner.fault);
    let Some(Some((socket, dialect))) = stop.run_until_cancelled(upgrade).await else {
        return;
    };
    let record = cage.record.as_ref().map(File::try_clone).transpose();
    let tag = &Uuid::new_v4().simple().to_string()[..12];
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let expires_at = (now.unwrap_or_default() + LONGEST_SESSION).as_secs();
    let session = Session::new(cage.manner.clone(), dialect, format!("{tag}_"), expires_at);
    tracing::debug!(session = tag, "parrot session began");
    match record {
        Ok(record) => match socket::converse(socket, session, record, stop).await {
            Ok(()) => tracing::debug!(session = tag, "parrot session ended"),
            Err(error) => tracing::debug!(session = tag, %error, "parrot session broke"),
        },
        Err(error) => tracing::warn!(%error, "parrot could not open its record"),
    }
}

fn millis(text: &str) -> Result<Duration, ParseIntError> {
    text.parse().map(Duration::from_millis)
}

#[cfg(test)]
mod tests;
