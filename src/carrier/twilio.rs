//! Twilio's REST API, as far as it is used: messages and calls.
//!
//! Source: twilio.com/docs/usage/requests-to-twilio. Twilio documents no idempotency key, so a
//! request that may have arrived is not repeated, unless doing it twice is doing it once.

mod call;
mod message;

use std::time::Duration;

use reqwest::{
    Client, RequestBuilder, Response,
    header::{HeaderMap, RETRY_AFTER},
    redirect,
};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::Value;

use crate::config::ApiSettings;

pub use call::{CallError, Detection, Listed, NewCall};
pub use message::{SendError, hint};

/// The longest answer that is read, in bytes: a page of 50 calls has about sixty thousand.
const LONGEST_ANSWER: usize = 256 << 10;

/// How long one request may take.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    pub connect: Duration,
    /// Everything, the connection included.
    pub whole: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(3),
            whole: Duration::from_secs(10),
        }
    }
}

/// An account at Twilio, by its REST API.
pub struct TwilioApi {
    http: Client,
    /// Ends with a slash.
    account_url: String,
    user: String,
    secret: SecretString,
}

/// What Twilio has said to a request.
#[derive(Debug)]
struct Reply {
    status: u16,
    /// Twilio's own number for a problem; both kinds of its problems have one.
    code: Option<u32>,
    /// How long it wants to be left alone; `None` if it does not say so.
    wait: Option<Wait>,
    body: Value,
}

/// How long Twilio wants to be left alone; `None` inside if that makes no sense.
#[derive(Debug, Clone, Copy)]
struct Wait(Option<Duration>);

/// Why there is no answer to a request.
#[derive(Debug)]
enum Lost {
    /// It was never sent.
    Unreachable(reqwest::Error),
    /// It was sent, perhaps.
    TooSlow,
    BrokenOff(reqwest::Error),
}

/// The part of every problem's JSON that is understood.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Problem {
    code: Option<u32>,
}

impl TwilioApi {
    /// # Errors
    /// If there is no TLS to be had.
    pub fn new(settings: ApiSettings, patience: Patience) -> Result<Self, reqwest::Error> {
        // Fails if another part of the process installed it already, which is as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = Client::builder()
            .connect_timeout(patience.connect)
            .timeout(patience.whole)
            .redirect(redirect::Policy::none())
            .retry(reqwest::retry::never())
            // On a connection that Twilio is about to close a request could be lost, and nobody
            // would know whether it was done.
            .pool_max_idle_per_host(0)
            .no_proxy() // Agents' sockets know no proxy either.
            .user_agent(concat!("callgate/", env!("CARGO_PKG_VERSION")))
            .build()?;
        let base = settings.base.as_str().trim_end_matches('/');
        Ok(Self {
            http,
            account_url: format!("{base}/2010-04-01/Accounts/{}/", settings.account),
            user: settings.user,
            secret: settings.secret,
        })
    }

    async fn post(&self, path: &str, form: &[(&str, &str)]) -> Result<Reply, Lost> {
        let url = format!("{}{path}", self.account_url);
        self.send(self.http.post(url).form(form)).await
    }

    async fn get(&self, path: &str, query: &[(&str, &str)]) -> Result<Reply, Lost> {
        let query = url::form_urlencoded::Serializer::new(String::new())
            .extend_pairs(query)
            .finish();
        let url = format!("{}{path}?{query}", self.account_url);
        self.send(self.http.get(url)).await
    }

    async fn send(&self, request: RequestBuilder) -> Result<Reply, Lost> {
        let request = request.basic_auth(&self.user, Some(self.secret.expose_secret()));
        let response = match request.send().await {
            Ok(response) => response,
            Err(error) if error.is_connect() => return Err(Lost::Unreachable(error.without_url())),
            Err(error) if error.is_timeout() => return Err(Lost::TooSlow),
            Err(error) => return Err(Lost::BrokenOff(error.without_url())),
        };
        let status = response.status().as_u16();
        let wait = Wait::read(response.headers());
        let body = read(response).await;
        let problem = Problem::deserialize(&body).unwrap_or_default();
        Ok(Reply {
            status,
            code: problem.code,
            wait,
            body,
        })
    }
}

impl Reply {
    /// Returns the name of what the answer is about.
    fn sid(&self) -> Option<&str> {
        self.body.get("sid")?.as_str()
    }
}

impl Wait {
    fn read(headers: &HeaderMap) -> Option<Self> {
        let asked = headers.get(RETRY_AFTER)?;
        let seconds = asked
            .to_str()
            .ok()
            .and_then(|text| text.trim().parse().ok());
        Some(Self(seconds.map(Duration::from_secs)))
    }

    /// Returns how long to wait; `None` where that is longer than `longest`.
    fn at_most(self, longest: Duration) -> Option<Duration> {
        self.0.filter(|wait| *wait <= longest)
    }
}

/// Reads what there is of an answer: its status counts, whatever becomes of the rest.
async fn read(mut response: Response) -> Value {
    let mut body = Vec::new();
    while let Ok(Some(part)) = response.chunk().await {
        if body.len() + part.len() > LONGEST_ANSWER {
            return Value::Null;
        }
        body.extend_from_slice(&part);
    }
    serde_json::from_slice(&body).unwrap_or_default()
}
