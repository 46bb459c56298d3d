//! Asks ACS for one thing until it is done, refused or too late.

use std::time::Duration;

use rand::RngExt;
use reqwest::{
    Client, Method, Response, StatusCode,
    header::{ACCEPT, CONTENT_TYPE, HeaderMap, RETRY_AFTER},
    redirect,
};
use tokio::time::{Instant, sleep_until, timeout_at};
use url::Url;

use crate::{
    carrier::acs::{AcsError, Problem, access::Access},
    config::AcsCredentials,
};

/// How long a connection may take, and one try altogether; answering a call takes about 2 s.
const CONNECT_PATIENCE: Duration = Duration::from_secs(2);
const PATIENCE: Duration = Duration::from_secs(5);
const MOST_TRIES: u32 = 4;
/// The first pause where ACS asks for none, which doubles with each try, and what is added by
/// chance, so that many do not come again at once.
const PAUSE: Duration = Duration::from_millis(250);
const JITTER_MS: u64 = 250;
/// The idle connections that are kept.
const PER_HOST: usize = 8;
/// The longest answer that is read, in bytes; ACS's have a few thousand.
const LONGEST_ANSWER: usize = 256 << 10;

/// Carries requests to ACS.
pub struct Transport {
    http: Client,
    /// For tries after the first: a pooled connection may be what failed.
    fresh: Client,
    access: Access,
}

/// One thing to ask for, however often it is tried.
pub struct Operation {
    pub method: Method,
    pub url: Url,
    pub body: Vec<u8>,
    /// By what ACS knows it again: its id, and when it was first sent.
    pub repeatability: Option<(String, String)>,
}

/// What a try failed with, and how long ACS wants to be left alone.
pub struct Failure {
    pub error: AcsError,
    pub retry_after: Option<Duration>,
}

impl Transport {
    /// # Errors
    /// If there is no TLS to be had.
    pub fn new(credentials: AcsCredentials, login: &Url) -> Result<Self, reqwest::Error> {
        Ok(Self {
            fresh: client(0)?,
            access: Access::new(credentials, login)?,
            http: client(PER_HOST)?,
        })
    }

    /// Asks until it is done, refused or too late; returns what ACS answers.
    ///
    /// # Errors
    /// If it is not done by the deadline, or nobody knows.
    pub async fn ask(&self, operation: &Operation, deadline: Instant) -> Result<Vec<u8>, AcsError> {
        let mut tries = 0;
        loop {
            let http = if tries == 0 { &self.http } else { &self.fresh };
            let failure = match self.attempt_until(http, operation, deadline).await {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            tries += 1;
            let again = Instant::now() + failure.pause(tries);
            let may_repeat = failure.error.may_repeat(operation.is_repeatable());
            if !may_repeat || tries == MOST_TRIES || deadline <= again {
                return Err(failure.error);
            }
            sleep_until(again).await;
        }
    }

    /// Asks a single time, on a connection of its own.
    ///
    /// # Errors
    /// If it is not done by the deadline, or nobody knows.
    pub async fn ask_once(
        &self,
        operation: &Operation,
        deadline: Instant,
    ) -> Result<Vec<u8>, Failure> {
        self.attempt_until(&self.fresh, operation, deadline).await
    }

    async fn attempt_until(
        &self,
        http: &Client,
        operation: &Operation,
        deadline: Instant,
    ) -> Result<Vec<u8>, Failure> {
        let until = deadline.min(Instant::now() + PATIENCE);
        let attempt = timeout_at(until, self.attempt(http, operation));
        attempt
            .await
            .unwrap_or_else(|_| Err(AcsError::TooSlow.into()))
    }

    async fn attempt(&self, http: &Client, operation: &Operation) -> Result<Vec<u8>, Failure> {
        let Operation {
            method,
            url,
            body,
            repeatability,
        } = operation;
        let mut request = http.request(method.clone(), url.clone()).body(body.clone());
        request = request.header(ACCEPT, "application/json");
        if !body.is_empty() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        if let Some((id, first_sent)) = repeatability {
            request = request.header("Repeatability-Request-ID", id);
            request = request.header("Repeatability-First-Sent", first_sent);
        }
        let proof = self.access.prove(method, url, body).await?;
        let response = request.headers(proof).send().await.map_err(|error| {
            if error.is_connect() {
                AcsError::Unreachable(error.without_url())
            } else {
                AcsError::BrokenOff(error.without_url())
            }
        })?;
        let status = response.status();
        let retry_after = retry_after(response.headers());
        let answer = read_body(response).await;
        if status.is_success() {
            return answer.map_err(|error| AcsError::BrokenOff(error.without_url()).into());
        }
        if status == StatusCode::UNAUTHORIZED {
            self.access.was_refused().await;
        }
        // The status counts, whatever becomes of the rest.
        let problem = Problem::read(status.as_u16(), &answer.unwrap_or_default());
        let error = AcsError::from(problem);
        Err(Failure { error, retry_after })
    }
}

impl Operation {
    /// Tells whether asking for it again does no harm, whatever became of it.
    fn is_repeatable(&self) -> bool {
        self.method == Method::GET || self.repeatability.is_some()
    }
}

impl Failure {
    /// Returns how long to wait before the next try, after so many.
    fn pause(&self, tries: u32) -> Duration {
        let jitter = Duration::from_millis(rand::rng().random_range(0..=JITTER_MS));
        let pause = self.retry_after.unwrap_or(PAUSE * 2_u32.pow(tries - 1));
        pause + jitter
    }
}

impl From<AcsError> for Failure {
    fn from(error: AcsError) -> Self {
        Self {
            error,
            retry_after: None,
        }
    }
}

fn client(idle_per_host: usize) -> Result<Client, reqwest::Error> {
    // Fails if another part of the process installed it already, which is as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder()
        .connect_timeout(CONNECT_PATIENCE)
        .timeout(PATIENCE)
        .redirect(redirect::Policy::none())
        .retry(reqwest::retry::never())
        .pool_max_idle_per_host(idle_per_host)
        .no_proxy() // Agents' sockets know no proxy either.
        .user_agent(concat!("callgate/", env!("CARGO_PKG_VERSION")))
        .build()
}

/// Returns how long ACS wants to be left alone, in whole seconds.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse();
    // A day is beyond every deadline, and nothing overflows.
    seconds
        .ok()
        .map(|seconds: u64| Duration::from_secs(seconds.min(86_400)))
}

/// Reads an answer's body; one that is too long counts as empty.
pub async fn read_body(mut response: Response) -> Result<Vec<u8>, reqwest::Error> {
    let mut body = Vec::new();
    while let Some(part) = response.chunk().await? {
        if body.len() + part.len() > LONGEST_ANSWER {
            return Ok(Vec::new());
        }
        body.extend_from_slice(&part);
    }
    Ok(body)
}
