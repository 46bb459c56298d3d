//! An issuer's keys, fetched from the address that its discovery document names.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jsonwebtoken::DecodingKey;
use reqwest::{Client, StatusCode, redirect};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout},
};
use url::Url;

use super::{
    LONGEST_KEY_ID,
    cache::{Cache, Keys, Look},
};

/// How long an issuer may take for both documents.
const PATIENCE: Duration = Duration::from_secs(3);
/// The longest document that is read, in bytes.
const LONGEST_DOCUMENT: usize = 1 << 20;
const MOST_KEYS: usize = 100;

/// The keys of one issuer.
pub struct KeySet {
    http: Client,
    openid: Url,
    cache: Mutex<Cache>,
    turn: Semaphore,
}

/// What is known of a key in the end.
pub enum Lookup {
    Found(DecodingKey),
    Unknown,
    Unavailable,
}

/// Why an issuer's keys are not to be had.
#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error("it cannot be reached, or its answer broke off")]
    Unreachable(#[source] reqwest::Error),
    #[error("it did not answer in time")]
    TooSlow,
    #[error("it answered with status {0}")]
    Refused(StatusCode),
    #[error("its document is longer than {LONGEST_DOCUMENT} bytes")]
    TooLong,
    #[error("its document makes no sense")]
    Garbled(#[source] serde_json::Error),
    #[error("its keys are at another host")]
    Elsewhere,
    #[error("it has no key for RS256")]
    NoKeys,
}

#[derive(Deserialize)]
struct Discovery {
    jwks_uri: String,
}

/// Each key by itself: one of another kind spoils no other.
#[derive(Deserialize)]
struct Document {
    keys: Vec<Value>,
}

/// RFC 7517, 4, and RFC 7518, 6.3.1.
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: String,
    #[serde(rename = "use")]
    purpose: Option<String>,
    alg: Option<String>,
    n: String,
    e: String,
}

impl KeySet {
    /// # Errors
    /// If there is no TLS to be had.
    pub fn new(openid: Url) -> Result<Self, reqwest::Error> {
        // Fails if another part of the process installed it already, which is as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = Client::builder()
            .timeout(PATIENCE)
            .redirect(redirect::Policy::none())
            .retry(reqwest::retry::never())
            .no_proxy() // Agents' sockets know no proxy either.
            .user_agent(concat!("callgate/", env!("CARGO_PKG_VERSION")))
            .build()?;
        Ok(Self {
            http,
            openid,
            cache: Mutex::default(),
            turn: Semaphore::new(1),
        })
    }

    /// Finds the key with this id; asks the issuer where that is due.
    pub async fn find(&self, id: &str) -> Lookup {
        let look = self.lock().look(Instant::now(), id);
        let known = match look {
            Look::Key(key) => return Lookup::Found(key),
            Look::Unknown => return Lookup::Unknown,
            Look::Unavailable if self.turn.available_permits() > 0 => return Lookup::Unavailable,
            Look::Unavailable => None, // Yet somebody asks just now.
            Look::Ask(known) => known,
        };
        let _turn = match (self.turn.try_acquire(), known) {
            (Ok(turn), _) => turn,
            // Somebody asks already, and nobody waits for what is at hand.
            (Err(_), Some(key)) => return Lookup::Found(key),
            (Err(_), None) => {
                let turn = self.turn.acquire().await;
                turn.expect("nobody closes it")
            }
        };
        // Whoever had the turn before may have been told.
        let asked = Instant::now();
        let look = self.lock().look(asked, id);
        if matches!(look, Look::Ask(_)) {
            self.ask(asked, id).await;
        }
        let look = self.lock().look(asked, id);
        match look {
            Look::Key(key) | Look::Ask(Some(key)) => Lookup::Found(key),
            Look::Unknown => Lookup::Unknown,
            Look::Unavailable | Look::Ask(None) => Lookup::Unavailable,
        }
    }

    async fn ask(&self, asked: Instant, id: &str) {
        // Whoever gives up waiting has asked all the same.
        self.lock().failed(asked);
        let fetched = timeout(PATIENCE, self.fetch()).await;
        match fetched.unwrap_or(Err(FetchError::TooSlow)) {
            Ok(keys) => self.lock().answered(asked, id, keys),
            Err(error) => tracing::warn!(
                issuer = self.openid.host_str(),
                error = &error as &dyn std::error::Error,
                "the keys of an issuer's tokens are not to be had"
            ),
        }
    }

    async fn fetch(&self) -> Result<Keys, FetchError> {
        let Discovery { jwks_uri } = self.document(self.openid.clone()).await?;
        let keys: Option<Url> = jwks_uri.parse().ok();
        let keys = keys.filter(|keys| keys.origin() == self.openid.origin());
        let keys = keys.ok_or(FetchError::Elsewhere)?;
        let Document { keys } = self.document(keys).await?;
        let keys: Keys = keys.into_iter().take(MOST_KEYS).filter_map(key).collect();
        if keys.is_empty() {
            return Err(FetchError::NoKeys);
        }
        Ok(keys)
    }

    async fn document<T: DeserializeOwned>(&self, url: Url) -> Result<T, FetchError> {
        let unreachable = |error: reqwest::Error| FetchError::Unreachable(error.without_url());
        let response = self.http.get(url).send().await;
        let mut response = response.map_err(unreachable)?;
        if response.status() != StatusCode::OK {
            return Err(FetchError::Refused(response.status()));
        }
        let mut body = Vec::new();
        while let Some(part) = response.chunk().await.map_err(unreachable)? {
            if body.len() + part.len() > LONGEST_DOCUMENT {
                return Err(FetchError::TooLong);
            }
            body.extend_from_slice(&part);
        }
        serde_json::from_slice(&body).map_err(FetchError::Garbled)
    }

    /// Each operation leaves the cache whole, so a poisoned lock is taken as it is.
    fn lock(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns a key that can check RS256, by its id.
fn key(key: Value) -> Option<(String, DecodingKey)> {
    let key: Jwk = serde_json::from_value(key).ok()?;
    let is = |found: Option<&str>, wanted| found.is_none_or(|found| found == wanted);
    let is_for_it = key.kty == "RSA"
        && is(key.purpose.as_deref(), "sig")
        && is(key.alg.as_deref(), "RS256")
        && key.kid.len() <= LONGEST_KEY_ID;
    let decoded = DecodingKey::from_rsa_components(&key.n, &key.e).ok()?;
    is_for_it.then_some((key.kid, decoded))
}
