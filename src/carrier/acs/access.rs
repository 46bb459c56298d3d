//! Proves requests to ACS: signed with the access key, or with a token of Entra's.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use reqwest::{
    Client, StatusCode,
    header::{HeaderMap, HeaderName, HeaderValue},
};
use secrecy::{ExposeSecret, SecretSlice, SecretString};
use serde::Deserialize;
use tokio::{sync::Semaphore, time::Instant};
use url::{Position, Url};

use crate::{
    carrier::acs::{
        AcsError,
        signature::{Signable, sign},
        transport::read_body,
    },
    config::AcsCredentials,
};

/// The right that a token is asked for. The vendor's own SDK asks with both slashes.
const SCOPE: &str = "https://communication.azure.com//.default";
/// A token is replaced this long before it expires, or in the last tenth of its time.
const MARGIN: Duration = Duration::from_secs(300);
/// How much is read of Entra's word for a mistake, which has a dozen characters.
const LONGEST_CODE: usize = 64;

/// Makes the headers that prove a request.
pub enum Access {
    Key(SecretSlice<u8>),
    Entra(Box<Tokens>),
}

/// The tokens of an application: one at a time, fetched by one request at a time.
pub struct Tokens {
    http: Client,
    url: Url,
    client: String,
    secret: SecretString,
    token: Mutex<Option<Token>>,
    turn: Semaphore,
}

#[derive(Clone)]
struct Token {
    text: SecretString,
    renew_at: Instant,
    expires_at: Instant,
}

/// What Entra says, of a token or of a mistake.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Said {
    access_token: Option<String>,
    expires_in: u64,
    error: String,
}

impl Access {
    pub fn new(http: &Client, credentials: AcsCredentials, login: &Url) -> Self {
        match credentials {
            AcsCredentials::Key(key) => Self::Key(key),
            AcsCredentials::Entra {
                tenant,
                client,
                secret,
            } => {
                let login = login.as_str().trim_end_matches('/');
                let url = format!("{login}/{tenant}/oauth2/v2.0/token");
                Self::Entra(Box::new(Tokens {
                    http: http.clone(),
                    url: url.parse().expect("a GUID goes into a path"),
                    client: client.to_string(),
                    secret,
                    token: Mutex::default(),
                    turn: Semaphore::new(1),
                }))
            }
        }
    }

    /// Returns the headers that prove a POST of `body` to `url`, made now.
    ///
    /// # Errors
    /// If it takes a token and there is none.
    pub async fn prove(&self, url: &Url, body: &[u8]) -> Result<HeaderMap, AcsError> {
        let mut headers = HeaderMap::new();
        match self {
            Self::Key(key) => {
                let request = Signable {
                    method: "POST",
                    path_and_query: &url[Position::BeforePath..Position::AfterQuery],
                    host: &url[Position::BeforeHost..Position::AfterPort],
                    date: &http_date(Timestamp::now()),
                    body,
                };
                for (name, value) in sign(key, &request) {
                    headers.insert(HeaderName::from_static(name), sensitive(&value));
                }
            }
            Self::Entra(tokens) => {
                let token = tokens.current().await?;
                let bearer = format!("Bearer {}", token.expose_secret());
                headers.insert(reqwest::header::AUTHORIZATION, sensitive(&bearer));
            }
        }
        Ok(headers)
    }

    /// Forgets a token that ACS does not take.
    pub fn was_refused(&self) {
        match self {
            Self::Key(_) => {}
            Self::Entra(tokens) => *tokens.lock() = None,
        }
    }
}

impl Tokens {
    async fn current(&self) -> Result<SecretString, AcsError> {
        if let Some(token) = self.known(|token| token.renew_at) {
            return Ok(token);
        }
        let _turn = self.turn.acquire().await;
        // Whoever had the turn before may have brought one.
        if let Some(token) = self.known(|token| token.renew_at) {
            return Ok(token);
        }
        match self.fetch().await {
            Ok(token) => {
                let text = token.text.clone();
                *self.lock() = Some(token);
                Ok(text)
            }
            Err(error) => self.known(|token| token.expires_at).ok_or(error),
        }
    }

    /// Returns the token, if its time is before `end`.
    fn known(&self, end: impl Fn(&Token) -> Instant) -> Option<SecretString> {
        let token = self.lock();
        let token = token.as_ref()?;
        (Instant::now() < end(token)).then(|| token.text.clone())
    }

    async fn fetch(&self) -> Result<Token, AcsError> {
        let form = [
            ("grant_type", "client_credentials"),
            ("client_id", &self.client),
            ("client_secret", self.secret.expose_secret()),
            ("scope", SCOPE),
        ];
        let asked = Instant::now();
        let no_token = |error: reqwest::Error| AcsError::NoToken(error.without_url());
        let response = self.http.post(self.url.clone()).form(&form).send().await;
        let response = response.map_err(no_token)?;
        let status = response.status();
        let body = read_body(response).await.map_err(no_token)?;
        let Said {
            access_token,
            expires_in,
            error,
        } = serde_json::from_slice(&body).unwrap_or_default();
        match access_token {
            Some(text) if status == StatusCode::OK => {
                let life = Duration::from_secs(expires_in.min(86_400));
                Ok(Token {
                    text: text.into(),
                    renew_at: asked + life.saturating_sub(MARGIN.min(life / 10)),
                    expires_at: asked + life,
                })
            }
            Some(_) | None => Err(AcsError::TokenRefused {
                status: status.as_u16(),
                code: error.chars().take(LONGEST_CODE).collect(),
            }),
        }
    }

    /// Each operation leaves the token whole, so a poisoned lock is taken as it is.
    fn lock(&self) -> MutexGuard<'_, Option<Token>> {
        self.token.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns a time as HTTP writes it.
pub fn http_date(time: Timestamp) -> String {
    jiff::fmt::rfc2822::DateTimePrinter::new()
        .timestamp_to_rfc9110_string(&time)
        .expect("these years have four digits")
}

fn sensitive(value: &str) -> HeaderValue {
    // A token with a line break in it is none, and is refused as an empty one is.
    let mut value =
        HeaderValue::from_str(value).unwrap_or_else(|_| HeaderValue::from_static("Bearer"));
    value.set_sensitive(true);
    value
}
