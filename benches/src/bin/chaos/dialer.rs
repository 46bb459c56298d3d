//! A program that asks replicas for calls by /v1, and again by the same key until it has an answer.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use callgate_benches::http::Http;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::dials::RING_SECONDS;
use crate::lab::{Lab, output_of};

/// How long one answer is waited for.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long a call is asked for: a key whose replica died before it answered is taken for 40 s.
const ASKS_FOR: Duration = Duration::from_secs(120);
const PAUSE: Duration = Duration::from_millis(500);

pub struct Dialer {
    http: Http,
    replicas: Vec<SocketAddr>,
    key: String,
    turn: AtomicUsize,
    again: Mutex<BTreeMap<u16, u64>>,
}

/// Returns the number that is called for a key, which no other is called for.
pub fn number(call: u64) -> String {
    format!("+97250{:07}", 2_000_000 + call)
}

/// Makes a key of /v1's as an operator does.
pub async fn make_key(lab: &Lab, url: &str, tenant: &str, scopes: &str) -> anyhow::Result<String> {
    let mut create = Command::new(&lab.gateway);
    create
        .args(["keys", "create", "--tenant", tenant, "--name", "chaos"])
        .args(["--scopes", scopes])
        .env("DATABASE_URL", url);
    let made = output_of(create).await.context("no key")?;
    let text = String::from_utf8(made.stdout)?;
    let key = text.lines().next().unwrap_or_default();
    anyhow::ensure!(
        made.status.success() && !key.is_empty(),
        "no key: {}",
        String::from_utf8_lossy(&made.stderr)
    );
    Ok(key.to_owned())
}

impl Dialer {
    pub fn new(replicas: Vec<SocketAddr>, key: String) -> Self {
        Self {
            http: Http::default(),
            replicas,
            key,
            turn: AtomicUsize::new(0),
            again: Mutex::default(),
        }
    }

    /// Asks for a call, one replica after the other, until one of them takes it. `None` if none
    /// does, or it is refused for good.
    pub async fn place(&self, call: u64) -> Option<Value> {
        let body = json!({"to": number(call), "ring_timeout": RING_SECONDS}).to_string();
        let began = Instant::now();
        while began.elapsed() < ASKS_FOR {
            let turn = self.turn.fetch_add(1, Ordering::Relaxed);
            let replica = self.replicas[turn % self.replicas.len()];
            let request = format!(
                "POST /v1/calls HTTP/1.1\r\nHost: {replica}\r\nAuthorization: Bearer {}\r\n\
                 Idempotency-Key: call-{call}\r\nContent-Type: application/json\r\n\
                 Content-Length: {}\r\n\r\n{body}",
                self.key,
                body.len()
            );
            let status = match self.http.exchange(replica, &request, PATIENCE).await {
                Ok(reply) if (200..300).contains(&reply.status) => {
                    return serde_json::from_str(&reply.body).ok();
                }
                Ok(reply) => reply.status,
                Err(_) => 0, // It was killed, or is not there yet.
            };
            self.note(status);
            if !matches!(status, 0 | 408 | 429 | 500..) {
                return None;
            }
            sleep(PAUSE).await;
        }
        None
    }

    fn note(&self, status: u16) {
        let mut again = self.again.lock().unwrap_or_else(PoisonError::into_inner);
        *again.entry(status).or_default() += 1;
    }

    /// Returns how often it had to ask again, by the status that it was answered, 0 without one.
    pub fn again(&self) -> BTreeMap<u16, u64> {
        let again = self.again.lock();
        again.unwrap_or_else(PoisonError::into_inner).clone()
    }
}
