//! Twilio's REST API, as far as it is used: sending a message.
//!
//! Source: twilio.com/docs/messaging/api/message-resource. Twilio documents no idempotency key, so
//! a request that may have arrived is not repeated.

use std::time::Duration;

use rand::RngExt;
use reqwest::{
    Client, Response, StatusCode,
    header::{HeaderMap, RETRY_AFTER},
    redirect,
};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use tokio::time::sleep;

use crate::{carrier::MessageId, config::ApiSettings};

/// The longest answer that is read, in bytes; Twilio's have about one thousand.
const LONGEST_ANSWER: usize = 64 << 10;
/// The longest pause that is made because Twilio asks for it.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// The pause before the second try where Twilio asks for none, and what is added by chance, so
/// that many do not come again at once.
const PAUSE: Duration = Duration::from_millis(500);
const JITTER_MS: u64 = 500;

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
    messages_url: String,
    user: String,
    secret: SecretString,
}

/// Why a message is not on its way, or may not be.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    #[error("Twilio cannot be reached")]
    Unreachable(#[source] reqwest::Error),
    #[error("Twilio takes no more requests for a while")]
    Throttled { code: Option<u32> },
    #[error("Twilio does not know the credentials, or does not let them send")]
    Unauthorized { code: Option<u32> },
    #[error("Twilio refused the message with status {status}")]
    Refused { status: u16, code: Option<u32> },
    #[error("Twilio failed with status {status}; the message may have been sent")]
    Failed { status: u16, code: Option<u32> },
    #[error("Twilio did not answer in time; the message may have been sent")]
    TooSlow,
    #[error("Twilio's answer broke off; the message may have been sent")]
    BrokenOff(#[source] reqwest::Error),
}

/// What Twilio says in JSON, of a message or of a problem; both kinds of its problems have a code.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Said {
    sid: Option<String>,
    code: Option<u32>,
}

/// A request that Twilio did not do, and after which pause it may be repeated.
struct NotDone {
    error: SendError,
    pause: Option<Duration>,
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
            // On a connection that Twilio is about to close a message could be lost, and nobody
            // would know whether it was sent.
            .pool_max_idle_per_host(0)
            .no_proxy() // Agents' sockets know no proxy either.
            .user_agent(concat!("callgate/", env!("CARGO_PKG_VERSION")))
            .build()?;
        let base = settings.base.as_str().trim_end_matches('/');
        Ok(Self {
            http,
            messages_url: format!(
                "{base}/2010-04-01/Accounts/{}/Messages.json",
                settings.account
            ),
            user: settings.user,
            secret: settings.secret,
        })
    }

    /// Asks Twilio to send a message; once more where the first request cannot have been done.
    /// Returns the message's name, if Twilio told it.
    ///
    /// # Errors
    /// If the message is not sent, or nobody knows.
    pub async fn send_message(
        &self,
        form: &[(&str, &str)],
    ) -> Result<Option<MessageId>, SendError> {
        let not_done = match self.post(form).await {
            Ok(sent) => return sent,
            Err(not_done) => not_done,
        };
        let Some(pause) = not_done.pause else {
            return Err(not_done.error);
        };
        let jitter = Duration::from_millis(rand::rng().random_range(0..=JITTER_MS));
        sleep(pause + jitter).await;
        match self.post(form).await {
            Ok(sent) => sent,
            Err(NotDone { error, .. }) => Err(error),
        }
    }

    /// Returns `Err` only for what Twilio has not done.
    async fn post(
        &self,
        form: &[(&str, &str)],
    ) -> Result<Result<Option<MessageId>, SendError>, NotDone> {
        let request = self.http.post(&self.messages_url).form(form);
        let request = request.basic_auth(&self.user, Some(self.secret.expose_secret()));
        let response = match request.send().await {
            Ok(response) => response,
            Err(error) if error.is_connect() => {
                let error = SendError::Unreachable(error.without_url());
                let pause = Some(PAUSE);
                return Err(NotDone { error, pause });
            }
            Err(error) if error.is_timeout() => return Ok(Err(SendError::TooSlow)),
            Err(error) => return Ok(Err(SendError::BrokenOff(error.without_url()))),
        };
        let status = response.status();
        let pause = pause_before_retry(response.headers());
        let Said { sid, code } = read(response).await;
        let error = match status {
            status if status.is_success() => {
                return Ok(Ok(sid.and_then(|sid| MessageId::read(&sid))));
            }
            StatusCode::TOO_MANY_REQUESTS => {
                let error = SendError::Throttled { code };
                return Err(NotDone { error, pause });
            }
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => SendError::Unauthorized { code },
            status if status.is_client_error() => SendError::Refused {
                status: status.as_u16(),
                code,
            },
            status => SendError::Failed {
                status: status.as_u16(),
                code,
            },
        };
        Ok(Err(error))
    }
}

impl SendError {
    /// Returns the name that metrics have for it.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => "unreachable",
            Self::Throttled { .. } => "throttled",
            Self::Unauthorized { .. } => "unauthorized",
            Self::Refused { .. } => "refused",
            Self::Failed { .. } => "failed",
            Self::TooSlow => "too_slow",
            Self::BrokenOff(_) => "broken_off",
        }
    }

    /// Tells whether the same message could be sent at another time, since this one was not.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::Throttled { .. } | Self::Unauthorized { .. } => true,
            Self::Refused { .. } | Self::Failed { .. } | Self::TooSlow | Self::BrokenOff(_) => {
                false
            }
        }
    }

    /// Returns Twilio's own number for it.
    pub fn code(&self) -> Option<u32> {
        match self {
            Self::Throttled { code }
            | Self::Unauthorized { code }
            | Self::Refused { code, .. }
            | Self::Failed { code, .. } => *code,
            Self::Unreachable(_) | Self::TooSlow | Self::BrokenOff(_) => None,
        }
    }
}

/// Says what to do about Twilio's `code`. twilio.com/docs/api/errors.
pub fn hint(code: u32) -> &'static str {
    match code {
        20003 => "are TWILIO_ACCOUNT_SID and TWILIO_AUTH_TOKEN, or the API key, of one account?",
        20404 => "is TWILIO_ACCOUNT_SID the account of the credentials?",
        20429 => "the account sends too many requests at once",
        21211 | 21214 | 21217 | 63024 => "the caller's number cannot be written to",
        21212 => "WHATSAPP_FROM is no number that can send",
        63003 => "the caller's number has no WhatsApp",
        63007 => "WHATSAPP_FROM is not a WhatsApp sender of this account",
        63013 | 63021 => "do WHATSAPP_TEMPLATE_VARIABLES fit the template?",
        63016 => "is WHATSAPP_TEMPLATE_SID an approved template for WhatsApp?",
        63018 => "the sender's own rate limit is reached",
        _ => "see twilio.com/docs/api/errors",
    }
}

/// Returns how long to wait before a second try; `None` where Twilio wants more time than that.
fn pause_before_retry(headers: &HeaderMap) -> Option<Duration> {
    let Some(asked) = headers.get(RETRY_AFTER) else {
        return Some(PAUSE);
    };
    let seconds = asked.to_str().ok()?.trim().parse().ok()?;
    let pause = Duration::from_secs(seconds);
    (pause <= LONGEST_PAUSE).then_some(pause)
}

/// Reads what there is of an answer: its status counts, whatever becomes of the rest.
async fn read(mut response: Response) -> Said {
    let mut body = Vec::new();
    while let Ok(Some(part)) = response.chunk().await {
        if body.len() + part.len() > LONGEST_ANSWER {
            return Said::default();
        }
        body.extend_from_slice(&part);
    }
    serde_json::from_slice(&body).unwrap_or_default()
}

#[cfg(test)]
mod tests;
