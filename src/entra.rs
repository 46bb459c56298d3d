//! Tokens of Microsoft Entra for an application of ours, by its client credentials.
//!
//! Invariant: at most one request of an application's is under way, and none while its token is
//! good.
//!
//! Source: learn.microsoft.com/entra/identity-platform/v2-oauth2-client-creds-grant-flow.

use std::time::Duration;

use reqwest::{Client, Response, StatusCode, redirect};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use tokio::{sync::Mutex, time::Instant};

use crate::config::EntraSettings;

/// How long one request may take, the connection included: less than a caller waits for an agent.
const PATIENCE: Duration = Duration::from_millis(2_500);
/// A token is replaced this long before its end, or in the last tenth of its time.
const MARGIN: Duration = Duration::from_mins(5);
/// The longest answer that is read, in bytes; a token has a few thousand.
const LONGEST_ANSWER: usize = 64 << 10;

/// One application.
pub struct Entra {
    settings: EntraSettings,
    http: Client,
    /// What its tokens are for.
    scope: &'static str,
    /// The last token. Held while one is fetched, so that others wait for it.
    token: Mutex<Option<Token>>,
}

struct Token {
    secret: SecretString,
    renew_at: Instant,
    good_until: Instant,
}

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum EntraError {
    #[error("Entra cannot be reached")]
    Unreachable(#[source] reqwest::Error),
    #[error("Entra refused with status {status} and {code:?}")]
    Refused { status: u16, code: String },
    #[error("Entra's answer makes no sense")]
    Garbled,
}

/// What Entra answers: a token, or a problem.
#[derive(Deserialize)]
struct Answer {
    access_token: Option<String>,
    /// In seconds.
    expires_in: Option<u64>,
    error: Option<String>,
}

impl Entra {
    /// Uses a client of [`http_client`].
    pub fn new(settings: EntraSettings, scope: &'static str, http: Client) -> Self {
        Self {
            settings,
            http,
            scope,
            token: Mutex::new(None),
        }
    }

    /// Returns a token that is good for a while; where Entra is away, the last one until its end.
    /// Cancel-safe: who comes next asks anew.
    ///
    /// # Errors
    /// If Entra cannot be reached or refuses.
    pub async fn token(&self) -> Result<SecretString, EntraError> {
        let mut known = self.token.lock().await;
        if let Some(token) = &*known
            && Instant::now() < token.renew_at
        {
            return Ok(token.secret.clone());
        }
        match (self.fetch().await, &*known) {
            (Ok(token), _) => {
                let secret = token.secret.clone();
                *known = Some(token);
                Ok(secret)
            }
            (Err(_), Some(last)) if Instant::now() < last.good_until => Ok(last.secret.clone()),
            (Err(error), _) => Err(error),
        }
    }

    /// Forgets a token that whoever it is for does not take.
    pub async fn was_refused(&self) {
        *self.token.lock().await = None;
    }

    async fn fetch(&self) -> Result<Token, EntraError> {
        let EntraSettings {
            login,
            tenant,
            client,
            secret,
        } = &self.settings;
        let login = login.as_str().trim_end_matches('/');
        let asked = Instant::now();
        let request = self
            .http
            .post(format!("{login}/{tenant}/oauth2/v2.0/token"));
        let request = request.form(&[
            ("grant_type", "client_credentials"),
            ("client_id", client),
            ("client_secret", secret.expose_secret()),
            ("scope", self.scope),
        ]);
        let response = request.send().await;
        let response = response.map_err(|error| EntraError::Unreachable(error.without_url()))?;
        let status = response.status();
        let answer = read(response).await?;
        if status != StatusCode::OK {
            let mut code = answer.and_then(|answer| answer.error).unwrap_or_default();
            code.truncate(code.floor_char_boundary(64)); // It ends up in a log line.
            return Err(EntraError::Refused {
                status: status.as_u16(),
                code,
            });
        }
        let Some(Answer {
            access_token: Some(secret),
            expires_in: Some(lasts),
            ..
        }) = answer
        else {
            return Err(EntraError::Garbled);
        };
        if !secret.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(EntraError::Garbled); // It could not be sent in a header.
        }
        let lasts = Duration::from_secs(lasts.min(86_400));
        Ok(Token {
            secret: secret.into(),
            renew_at: asked + lasts.saturating_sub(MARGIN.min(lasts / 10)),
            good_until: asked + lasts,
        })
    }
}

/// Returns what applications may share to ask Entra with.
///
/// # Errors
/// If there is no TLS to be had.
pub fn http_client() -> Result<Client, reqwest::Error> {
    // Fails if another part of the process installed it already, which is as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder()
        .timeout(PATIENCE)
        .redirect(redirect::Policy::none())
        .retry(reqwest::retry::never())
        // Tokens are fetched once an hour, and a connection belongs to the worker that opened it.
        .pool_max_idle_per_host(0)
        .no_proxy() // Agents' sockets know no proxy either.
        .user_agent(concat!("callgate/", env!("CARGO_PKG_VERSION")))
        .build()
}

/// Returns the answer; `None` if it is too long or none.
async fn read(mut response: Response) -> Result<Option<Answer>, EntraError> {
    let mut body = Vec::new();
    let unreachable = |error: reqwest::Error| EntraError::Unreachable(error.without_url());
    while let Some(part) = response.chunk().await.map_err(unreachable)? {
        if body.len() + part.len() > LONGEST_ANSWER {
            return Ok(None);
        }
        body.extend_from_slice(&part);
    }
    Ok(serde_json::from_slice(&body).ok())
}

#[cfg(test)]
mod tests;
