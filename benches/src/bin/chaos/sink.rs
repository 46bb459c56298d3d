//! A receiver of events that fails now and then. What it has written down is the truth.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, ensure};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::Value;
use standardwebhooks::Webhook;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// The secret that events are signed with.
pub const SECRET: &str = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
/// The longest body that is read.
const LONGEST: usize = 1 << 20;

pub struct Sink {
    pub address: SocketAddr,
    log: Arc<Mutex<Log>>,
    _serving: JoinSet<()>,
}

/// What a sink was sent.
#[derive(Debug, Clone, Default)]
pub struct Log {
    /// Of each event how often it was taken, and how often refused.
    pub answers: HashMap<String, (u64, u64)>,
    /// What each event says.
    pub bodies: HashMap<String, Value>,
    /// Messages whose signature was wrong.
    pub forged: u64,
    /// Messages that were read and not answered, which are among the refused ones.
    pub cut: u64,
}

/// What a sink does with a message that it has read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reply {
    Takes,
    Fails,
    /// Closes the connection without a word: whoever sent it cannot know what became of it.
    Cuts,
}

impl Sink {
    /// Starts a sink that fails `percent` of all requests: half of them by a status, the others by
    /// closing the connection.
    pub async fn start(percent: u32, random: &mut StdRng) -> anyhow::Result<Self> {
        Self::start_with(SECRET, percent, random).await
    }

    /// Starts one that has a secret of its own.
    pub async fn start_with(
        secret: &str,
        percent: u32,
        random: &mut StdRng,
    ) -> anyhow::Result<Self> {
        let webhook = Arc::new(Webhook::new(secret)?);
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let log: Arc<Mutex<Log>> = Arc::default();
        let (written, mut random) = (Arc::clone(&log), StdRng::from_rng(random));
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (log, random) = (Arc::clone(&written), StdRng::from_rng(&mut random));
                let webhook = Arc::clone(&webhook);
                connections.spawn(async move {
                    // Fails when a replica is killed, which is what it is for.
                    let _ = serve(stream, &webhook, &log, random, percent).await;
                });
                while connections.try_join_next().is_some() {}
            }
        });
        Ok(Self {
            address,
            log,
            _serving: serving,
        })
    }

    pub fn log(&self) -> Log {
        let log = self.log.lock();
        log.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn serve(
    stream: TcpStream,
    webhook: &Webhook,
    log: &Mutex<Log>,
    mut random: StdRng,
    percent: u32,
) -> anyhow::Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let mut headers = HashMap::new();
        loop {
            let mut line = String::new();
            ensure!(stream.read_line(&mut line).await? > 0, "it is closed");
            let line = line.trim_end();
            if line.is_empty() {
                break;
            }
            if let Some((name, value)) = line.split_once(": ") {
                headers.insert(name.to_ascii_lowercase(), value.to_owned());
            }
        }
        let header = |name: &str| headers.get(name).cloned().unwrap_or_default();
        let length: usize = header("content-length").parse()?;
        ensure!(length <= LONGEST, "too long");
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await?;
        let (id, sent_at) = (header("webhook-id"), header("webhook-timestamp"));
        let expected = webhook.sign(&id, sent_at.parse()?, &body)?;
        let event: Value = serde_json::from_slice(&body)?;
        let reply = Reply::draw(percent, &mut random);
        {
            let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
            if header("webhook-signature") != expected {
                log.forged += 1;
            }
            log.bodies.insert(id.clone(), event);
            let (taken, refused) = log.answers.entry(id).or_default();
            match reply {
                Reply::Takes => *taken += 1,
                Reply::Fails => *refused += 1,
                Reply::Cuts => {
                    *refused += 1;
                    log.cut += 1;
                }
            }
        }
        let status = match reply {
            Reply::Takes => "204 No Content",
            Reply::Fails => "500 As Planned",
            Reply::Cuts => return Ok(()),
        };
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
        let written = stream.write_all(answer.as_bytes()).await;
        written.context("nobody waits for the answer")?;
    }
}

impl Reply {
    fn draw(percent: u32, random: &mut StdRng) -> Self {
        if random.random_range(0..100) >= percent {
            Self::Takes
        } else if random.random_bool(0.5) {
            Self::Fails
        } else {
            Self::Cuts
        }
    }
}
