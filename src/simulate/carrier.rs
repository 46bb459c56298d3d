//! Twilio's side of the network: signed webhooks and signed WebSocket upgrades.

pub mod error;

use std::time::Duration;

use anyhow::Context;
use reqwest::{Client, header::CONTENT_TYPE};
use secrecy::SecretString;
use url::Url;

use self::error::WebhookError;
use super::{
    reach::{CONNECT_TIMEOUT, Reach, Socket, UpgradeError},
    script::Script,
};
use crate::webhook::twilio::signature::sign;

pub type Fields = Vec<(String, String)>;

/// Twilio's hard limit for a webhook.
const WEBHOOK_TIMEOUT: Duration = Duration::from_secs(15);

/// The longest document (error 11750).
const LONGEST_DOCUMENT: usize = 64 * 1024;

const SIGNATURE: &str = "x-twilio-signature";

/// What all calls of a run share: how the gateway is reached, and what requests are signed with.
pub struct Carrier {
    http: Client,
    /// What the gateway calls itself is what signatures are over.
    reach: Reach,
    token: Option<SecretString>,
    pub account_sid: String,
}

/// A document that was fetched, and the URL that relative ones in it are relative to.
#[derive(Debug, PartialEq, Eq)]
pub struct Document {
    pub url: String,
    pub body: String,
}

impl Carrier {
    /// # Errors
    /// If there is no TLS to be had.
    pub fn new(
        gateway: &Url,
        public: Option<&Url>,
        token: Option<SecretString>,
        account_sid: String,
    ) -> anyhow::Result<Self> {
        // Fails if another part of the process installed it already, which is as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(WEBHOOK_TIMEOUT)
            .tcp_nodelay(true)
            .user_agent("TwilioProxy/1.1")
            .no_proxy() // Media sockets know no proxy either, and most gateways are on loopback.
            .build()
            .context("cannot set up an HTTP client")?;
        Ok(Self {
            http,
            reach: Reach::new(gateway, public),
            token,
            account_sid,
        })
    }

    /// Returns the URL, as the gateway is known by, of one of its paths.
    pub fn webhook(&self, path: &str) -> String {
        self.reach.url(path)
    }

    /// Sends a webhook and expects a document.
    ///
    /// # Errors
    /// If Twilio would go to the fallback URL.
    pub async fn fetch(
        &self,
        url: &str,
        by_get: bool,
        fields: &Fields,
    ) -> Result<Document, WebhookError> {
        let answer = self.send(url, by_get, fields).await?;
        let content_type = answer.headers().get(CONTENT_TYPE);
        let content_type = content_type.and_then(|value| value.to_str().ok());
        let content_type = content_type.unwrap_or_default().to_owned();
        let essence = content_type.split(';').next().unwrap_or_default().trim();
        let url = url.to_owned();
        if !matches!(essence, "text/xml" | "application/xml" | "text/html") {
            return Err(WebhookError::ContentType { url, content_type });
        }
        match answer.text().await {
            Ok(body) if body.len() > LONGEST_DOCUMENT => Err(WebhookError::TooLong { url }),
            Ok(body) => Ok(Document { url, body }),
            Err(error) => Err(WebhookError::no_answer(url, &error)),
        }
    }

    /// Sends a webhook whose answer does not matter.
    ///
    /// # Errors
    /// If the gateway did not take it.
    pub async fn notify(&self, url: &str, fields: &Fields) -> Result<(), WebhookError> {
        self.send(url, false, fields).await.map(drop)
    }

    /// Opens a media socket to `url`, the text of a `<Stream url>`.
    ///
    /// # Errors
    /// If the gateway does not take it.
    pub async fn open(&self, url: &str, script: Script) -> Result<Socket, UpgradeError> {
        let signature = self.token.as_ref().map(|token| sign(token, url, &[]));
        let headers = signature.map(|signature| (SIGNATURE, signature));
        self.reach.open(url, headers.as_slice(), script).await
    }

    async fn send(
        &self,
        url: &str,
        by_get: bool,
        fields: &Fields,
    ) -> Result<reqwest::Response, WebhookError> {
        let bad = || WebhookError::BadUrl {
            url: url.to_owned(),
        };
        // What follows a # are connection overrides, neither sent nor signed.
        let signed = url.split('#').next().unwrap_or_default();
        let mut public = Url::parse(signed).map_err(|_| bad())?;
        let signed = if by_get {
            public.query_pairs_mut().extend_pairs(fields);
            public.to_string()
        } else {
            signed.to_owned()
        };
        let reached = self.reach.reached(&signed);
        let mut request = if by_get {
            self.http.get(&reached)
        } else {
            self.http.post(&reached).form(fields)
        };
        if let Some(token) = &self.token {
            let signed_fields = if by_get { &[][..] } else { fields };
            request = request.header(SIGNATURE, sign(token, &signed, signed_fields));
        }
        let token = uuid::Uuid::new_v4().to_string();
        let request = request.header("I-Twilio-Idempotency-Token", token);
        let again = request.try_clone();
        let answer = match (request.send().await, again) {
            // Twilio tries once more, and only where no connection came about.
            (Err(error), Some(again)) if error.is_connect() => again.send().await,
            (answer, _) => answer,
        };
        let answer = answer.map_err(|error| WebhookError::no_answer(reached, &error))?;
        if answer.status().is_success() {
            Ok(answer)
        } else {
            Err(WebhookError::Status {
                url: url.to_owned(),
                status: answer.status(),
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::redis_server::free_port;

    #[tokio::test]
    async fn a_gateway_that_is_not_there_is_unreachable() {
        let url = format!("http://127.0.0.1:{}", free_port());
        let carrier = Carrier::new(&url.parse().unwrap(), None, None, "AC1".into()).unwrap();
        let error = carrier.fetch(&carrier.webhook("/a"), false, &vec![]).await;
        assert!(
            matches!(error, Err(WebhookError::Unreachable { .. })),
            "{error:?}"
        );
    }
}
